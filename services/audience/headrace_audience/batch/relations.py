"""What is read of the relation `events`, whatever the moment, and how what is found is held for each profile."""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headrace.domain.definitions import Predicate
from headrace_audience.batch.values import Parameters, json_path, passes_sql
from headrace_audience.engine.conditions import CONSENT, FIRST_TOUCH, LAST_TOUCH, TRAIT

PROPERTIES = "CASE WHEN json_valid(properties) THEN properties END"
WRITTEN: Mapping[str, str] = {TRAIT: "traits", CONSENT: "consents", FIRST_TOUCH: "touch", LAST_TOUCH: "touch"}
"""The columns of `events` that hold JSON objects of what events write, by kind."""


def named_sql(names: Collection[str], parameters: Parameters) -> str:
    """Whether a row is a track event of one of these names."""
    if len(names) == 1:
        return f"kind = 'track' AND name = {parameters.bind(next(iter(names)))}"
    return f"kind = 'track' AND list_contains({parameters.bind(list(names))}, name)"


def matching_sql(
    names: Sequence[str],
    where: Sequence[Predicate],
    parameters: Parameters,
    values: Sequence[str] = (),
    *,
    from_us: int | None = None,
    to_us: int | None = None,
) -> str:
    """The events of these names that pass all predicates: profile, timestamp_us, message_id; some perhaps repeated.

    Beside them `values`: further columns, as expressions over the relation. Only those with times in [from_us, to_us].
    """
    tests = [named_sql(names, parameters)]
    if from_us is not None:
        tests.append(f"timestamp_us >= {from_us}")
    if to_us is not None:
        tests.append(f"timestamp_us <= {to_us}")
    columns = ", ".join(["profile, timestamp_us, message_id", *values])
    named = f"FROM events WHERE {' AND '.join(tests)}"
    if not where:
        return f"SELECT {columns} {named}"
    tested = [
        f"json_extract({PROPERTIES}, {parameters.bind(json_path(p.path))}) AS tested{i}" for i, p in enumerate(where)
    ]
    passes = [passes_sql(p.test, f"tested{i}", parameters) for i, p in enumerate(where)]
    return f"SELECT {columns} FROM (SELECT *, {', '.join(tested)} {named}) WHERE {' AND '.join(passes)}"


def writes_sql(column: str, names: Collection[str], parameters: Parameters, relation: str = "events") -> str:
    """What a column of JSON objects says of some names, in one scan, whatever their number.

    Returns:
        A select of profile (of `mentions`: group_id), timestamp_us, message_id, name, value (JSON, which may be null).
    """
    whose = "profile" if relation == "events" else "group_id"
    paths = parameters.bind([json_path([name]) for name in names])
    value = f"unnest(json_extract(CASE WHEN json_valid({column}) THEN {column} END, {paths})) AS value"
    return (
        f"SELECT * FROM (SELECT {whose}, timestamp_us, message_id, unnest({parameters.bind(list(names))}) AS name,"
        f" {value} FROM {relation} WHERE {column} IS NOT NULL) WHERE value IS NOT NULL"
    )


def newest_sql(writes: str, kind: str, keys: str) -> str:
    """The value of each name that was written last; of first touches the first.

    Args:
        writes: What stands after FROM: keys, timestamp_us, message_id, name, value.
        kind: What is written.
        keys: Whose values these are: columns, with commas between them.

    Returns:
        A select of the keys, name and value.
    """
    pick = "arg_min" if kind == FIRST_TOUCH else "arg_max"
    return (
        f"SELECT {keys}, name, {pick}(value, row(timestamp_us, message_id)) AS value FROM {writes}"
        f" GROUP BY {keys}, name"
    )


def identifiers_sql(namespaces: Collection[str], parameters: Parameters) -> str:
    """When identifiers of namespaces were first seen: profile, name (of the namespace), value (the time)."""
    wanted = parameters.bind(list(namespaces))
    each = (
        f"SELECT profile, timestamp_us, unnest(namespaces) AS name FROM events WHERE list_has_any(namespaces, {wanted})"
    )
    return (
        f"SELECT profile, name, min(timestamp_us) AS value FROM ({each}) WHERE list_contains({wanted}, name)"
        " GROUP BY profile, name"
    )


def held_sql(rows: str, keys: str) -> str:
    """Values by name of each key: all in one column, so that one join brings them, whatever their number.

    Args:
        rows: A select of the keys, name and value, with no name twice for the same keys.
        keys: Columns, with commas between them.

    Returns:
        A select of the keys and `held`; held_value() reads it.
    """
    return f"SELECT {keys}, map_from_entries(list(row(name, value))) AS held FROM ({rows}) GROUP BY {keys}"


def held_value(table: str, name: str, parameters: Parameters) -> str:
    """The value of a name in a table of held_sql(), or NULL."""
    return f"map_extract({table}.held, {parameters.bind(name)})[1]"
