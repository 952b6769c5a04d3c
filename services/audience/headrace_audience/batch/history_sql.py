"""What the past says of one state, as SQL; `queries.condition_history` runs it.

Columns take in sets (see `engine`), so the same event twice does no harm, unless SQL itself counts events.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from headrace.domain.amounts import LARGEST
from headrace_audience.batch.computed_sql import kind_sql
from headrace_audience.batch.relations import PROPERTIES, WRITTEN, identifiers_sql, matching_sql, writes_sql
from headrace_audience.batch.values import Parameters, json_path, number_sql
from headrace_audience.engine.conditions import (
    AMOUNT,
    FIRST,
    FIRST_TOUCH,
    GREATEST,
    LAST,
    AttributeState,
    EventState,
    FirstState,
    IdentifierState,
    ListState,
    state_of_key,
)
from headrace_audience.engine.people import NEVER
from headrace_audience.engine.states import PROFILES


def history_sql(key: str, now_us: int, parameters: Parameters) -> str:
    """A select of profile, timestamp_us and message_id, of lists and of what events write also value (JSON text).

    Args:
        key: Key of a state, or PROFILES.
        now_us: What lies after this moment is all given.
        parameters: Get the values.

    Raises:
        ValueError: The key is none.
    """
    if key == PROFILES:
        return "SELECT DISTINCT profile, CAST(0 AS BIGINT) AS timestamp_us, '' AS message_id FROM events"
    state = state_of_key(key)
    if isinstance(state, IdentifierState):
        first = identifiers_sql((state.namespace,), parameters)
        return f"SELECT profile, value AS timestamp_us, '' AS message_id FROM ({first})"
    if isinstance(state, FirstState):
        found = matching_sql(state.names, (), parameters)
        return f"SELECT profile, min(timestamp_us) AS timestamp_us, '' AS message_id FROM ({found}) GROUP BY profile"
    if isinstance(state, EventState):
        return _events_sql(state, now_us, parameters)
    if isinstance(state, ListState):
        return _list_sql(state, now_us, parameters)
    return _writes_sql(state, now_us, parameters)


def _events_sql(state: EventState, now_us: int, parameters: Parameters) -> str:
    """The newest that are kept, and all that do not count yet; some perhaps repeated."""
    matching = matching_sql(state.names, state.where, parameters, from_us=state.from_us, to_us=state.to_us)
    until = now_us if state.delay is None else state.delay.start(now_us)
    past, later = f"FILTER (WHERE timestamp_us <= {until})", f"FILTER (WHERE timestamp_us > {until})"
    if state.keep == 1:  # only its time counts then
        events = f"list_concat([max(timestamp_us) {past}], coalesce(list(timestamp_us) {later}, []))"
        each = f"SELECT profile, {events} AS events FROM ({matching}) GROUP BY profile"
        times = f"SELECT profile, unnest(events) AS timestamp_us FROM ({each})"
        return f"SELECT profile, timestamp_us, '' AS message_id FROM ({times}) WHERE timestamp_us IS NOT NULL"
    # Who has the same time twice there, maybe of the same event, has older ones to tell: all of them are.
    newest = f"SELECT profile, max(timestamp_us, {state.keep}) {past} AS newest FROM matching GROUP BY profile"
    oldest = f"CASE WHEN len(newest) = len(list_distinct(newest)) THEN list_min(newest) ELSE {NEVER} END"
    return (
        f"WITH matching AS MATERIALIZED ({matching}), since AS (SELECT profile, {oldest} AS since_us FROM ({newest}))"
        " SELECT matching.* FROM matching JOIN since USING (profile) WHERE timestamp_us >= since_us"
    )


def _list_sql(state: ListState, now_us: int, parameters: Parameters) -> str:
    """All of the span, and the newest before it; of a list that chooses, what may be chosen, and what comes later."""
    if state.chosen:
        return _chosen_sql(state, now_us, parameters)
    value = "properties AS value" if state.values else "CAST(NULL AS VARCHAR) AS value"
    found = matching_sql(state.names, state.where, parameters, (value,), from_us=state.from_us, to_us=state.to_us)
    if state.span is None:
        return found
    return _newest_and_later(found, state.span.start(now_us))


def _chosen_sql(state: ListState, now_us: int, parameters: Parameters) -> str:
    """The events that come first as far as SQL can tell: columns know which of equal doubles, or times, it is."""
    (kept,) = state.values
    json = f"json_extract({PROPERTIES}, {parameters.bind(json_path(kept.path))}) AS json"
    values = ("properties AS value", json)
    found = matching_sql(state.names, state.where, parameters, values, from_us=state.from_us, to_us=state.to_us)
    if state.chosen in (FIRST, LAST):
        ranked, counts = "timestamp_us", f"{kind_sql('json')} IS NOT NULL"
    else:
        ranked = number_sql("json")
        counts = f"abs({ranked}) <= {LARGEST}" if kept.kind == AMOUNT else f"{ranked} IS NOT NULL"
    order = f"{ranked} {'DESC' if state.chosen in (LAST, GREATEST) else 'ASC'}"
    columns = "profile, timestamp_us, message_id, value"
    counting = f"SELECT {columns}, json FROM ({found}) WHERE {counts}"
    first = f"rank() OVER (PARTITION BY profile ORDER BY {order}) = 1"
    return (
        f"SELECT {columns} FROM ({counting}) WHERE timestamp_us > {now_us} UNION ALL"
        f" SELECT {columns} FROM ({counting}) WHERE timestamp_us <= {now_us} QUALIFY {first}"
    )


def _writes_sql(state: AttributeState, now_us: int, parameters: Parameters) -> str:
    """The last write, and all that come later; of first touches the first, whenever it comes."""
    written = writes_sql(WRITTEN[state.kind], state.path[:1], parameters)
    found = f"SELECT profile, timestamp_us, message_id, CAST(value AS VARCHAR) AS value FROM ({written})"
    return _one(found, "min") if state.kind == FIRST_TOUCH else _newest_and_later(found, now_us)


def _newest_and_later(rows: str, until_us: int) -> str:
    newest = _one(f"SELECT * FROM found WHERE timestamp_us <= {until_us}", "max")
    return f"WITH found AS MATERIALIZED ({rows}) SELECT * FROM found WHERE timestamp_us > {until_us} UNION ALL {newest}"


def _one(rows: str, pick: str) -> str:
    """The first ("min") or last ("max") row of each profile by (time, message id)."""
    row = "{'t': timestamp_us, 'm': message_id, 'v': value}"
    each = f"SELECT profile, {pick}({row}) AS one FROM ({rows}) GROUP BY profile"
    return f"SELECT profile, one.t AS timestamp_us, one.m AS message_id, one.v AS value FROM ({each})"
