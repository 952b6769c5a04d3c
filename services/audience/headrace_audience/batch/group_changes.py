"""When time alone changes what holds of one group: what the group's people did is looked at apart, moment by moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from headrace_audience.batch.groups import GroupFacts
from headrace_audience.batch.queries import group_facts, next_moment
from headrace_audience.batch.statement import Audiences
from headrace_audience.language.definition import All, Any_, Condition, Definition, Not

MOST_MOMENTS = 30
"""So many moments are looked at at which anything may change: of a large group there are thousands."""
MOST_EVENTS = 20_000
"""Of groups whose people have more events nothing is told."""


@dataclass(frozen=True)
class GroupChanges:
    """When conditions change next if no event comes."""

    moments: Mapping[Condition, int]
    """In microseconds, by condition."""
    complete: bool
    """Whether a condition without a moment never changes; else it may change later than was looked."""


def group_changes(
    connection: duckdb.DuckDBPyConnection,
    definition: Definition,
    group_id: str,
    now_us: int,
    audiences: Audiences | None,
    facts: GroupFacts,
) -> GroupChanges:
    """When each condition of an audience of groups changes for one group.

    Args:
        connection: Knows the relations `events` and `mentions`.
        definition: The audience.
        group_id: The group.
        now_us: The moment after which to look, in microseconds.
        audiences: As in queries.evaluate().
        facts: What holds at that moment, see queries.group_facts().
    """
    mentions = connection.sql("SELECT * FROM mentions WHERE group_id = ?", params=[group_id]).to_arrow_table()
    people = "SELECT profile FROM mentions WHERE group_id = ?"
    own = f"SELECT * FROM events WHERE profile IN ({people}) LIMIT {MOST_EVENTS + 1}"  # noqa: S608  # constants
    events = connection.sql(own, params=[group_id]).to_arrow_table()
    if events.num_rows > MOST_EVENTS:
        return GroupChanges({}, complete=False)
    with duckdb.connect(config={"threads": 1}) as alone:
        alone.register("events", events)
        alone.register("mentions", mentions)
        now = dict(_truths(definition.where, facts))
        found: dict[Condition, int] = {}
        moment = now_us
        for _ in range(MOST_MOMENTS):
            following = next_moment(alone, definition, moment, audiences)
            if following is None:
                return GroupChanges(found, complete=True)
            moment = following
            later = group_facts(alone, definition, group_id, moment, audiences)
            assert later is not None  # the same events name the group at every moment
            for condition, holds in _truths(definition.where, later):
                if holds is not now[condition]:
                    found.setdefault(condition, moment)
    return GroupChanges(found, complete=False)


def group_holds(condition: Condition, facts: GroupFacts) -> bool:
    """Whether a condition holds of a group, by what holds of those that it combines."""
    *_, (_, holds) = _truths(condition, facts)
    return holds


def _truths(condition: Condition, facts: GroupFacts) -> Iterator[tuple[Condition, bool]]:
    """Whether a condition holds, and each that it combines; the whole comes last."""
    if isinstance(condition, Not):
        inner = list(_truths(condition.part, facts))
        yield from inner
        yield condition, not inner[-1][1]
    elif isinstance(condition, All | Any_):
        parts = [list(_truths(part, facts)) for part in condition.parts]
        for part in parts:
            yield from part
        combined = all if isinstance(condition, All) else any
        yield condition, combined(part[-1][1] for part in parts)
    else:
        yield condition, bool(facts[condition].holds)
