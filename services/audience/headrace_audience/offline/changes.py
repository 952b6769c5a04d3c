"""When the conditions of a definition change next for one person, asked of an engine that knows nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_audience.engine.engine import Engine
from headrace_audience.language.definition import All, Any_, Condition, Definition, Not
from headrace_audience.offline.reference import Audiences

_MEMBERS = Definition("static", All(()))


def next_changes(
    profile_id: str,
    events: Iterable[ResolvedEvent],
    definition: Definition,
    known: Audiences,
    at_us: int,
) -> Callable[[Condition], int | None]:
    """Who can say when each condition of a definition changes next: every one is an audience of the engine.

    Args:
        profile_id: The person.
        events: All their events, by this profile.
        definition: The definition.
        known: What the audiences mean that it names.
        at_us: The moment, in microseconds.

    Returns:
        From a condition of the definition to the moment in microseconds; None: never.
    """
    engine = Engine("", 1, at_us, capacity=1)
    for audience_id, meaning in known.items():
        engine.set_audience(audience_id, meaning if isinstance(meaning, Definition) else _MEMBERS)
    ids: dict[Condition, str] = {}
    for number, condition in enumerate(_every(definition.where)):
        ids.setdefault(condition, f"condition {number}")
    for condition, audience_id in ids.items():
        engine.set_audience(audience_id, Definition("dynamic", condition))
    # What came after a moment of the past is no change by time alone, unless its time lies before that moment.
    known_then = (e for e in events if e.event.received_at_us <= at_us or e.event.timestamp_us <= at_us)
    engine.fold(known_then, now_us=at_us)
    for audience_id, meaning in known.items():
        if not isinstance(meaning, Definition) and profile_id in meaning:
            engine.set_membership(audience_id, [profile_id])
    for audience_id in (*known, *ids.values()):
        engine.start_audience(audience_id)
    engine.advance(at_us)
    return lambda condition: engine.next_flip_us(ids[condition], profile_id)


def _every(condition: Condition) -> Iterator[Condition]:
    """A condition and all that it combines."""
    yield condition
    if isinstance(condition, All | Any_):
        for part in condition.parts:
            yield from _every(part)
    elif isinstance(condition, Not):
        yield from _every(condition.part)
