"""Why somebody is in or out of an audience: each condition, whether it holds, what counts, and when it changes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from headrace.domain.amounts import LARGEST
from headrace.domain.consent import DENIED, GRANTED
from headrace.domain.predicates_reference import at_path
from headrace.domain.times import format_time_us
from headrace_audience.language.definition import (
    Aggregate,
    All,
    Any_,
    AudienceMember,
    ComputedTest,
    ComputedValue,
    Condition,
    ConsentTest,
    DatedCount,
    Definition,
    EventCount,
    FirstTime,
    IdentifierExists,
    InOrder,
    LastTime,
    Members,
    Not,
    Regularly,
    Restarted,
    TouchTest,
    TraitTest,
)
from headrace_audience.language.text.printing import condition_text
from headrace_audience.offline.facts import Fact
from headrace_audience.offline.fewest import fewest
from headrace_audience.offline.reference import Reference
from headrace_audience.offline.reference_events import as_compared
from headrace_audience.offline.sentences import missing, sentence, summary

MAX_EVENTS = 100
"""So many of the newest events that count are listed per condition."""


Changes = Callable[[Condition], int | None]
"""When the truth of a condition changes next for the person, in microseconds; None: never."""


def explain(
    reference: Reference,
    definition: Definition,
    profile: str,
    at_us: int,
    changes: Changes | None = None,
    *,
    raw: Mapping[str, Any],
    tells_time: bool = True,
) -> dict[str, Any]:
    """Explain a membership.

    Args:
        reference: Knows the events.
        definition: The audience.
        profile: The person.
        at_us: The moment, in microseconds.
        changes: When conditions change next, see `changes`; by default the reference is asked, which takes the square
            of the events.
        raw: The condition of the audience as JSON, for the texts.
        tells_time: Whether the summary says that time alone changes nothing when it does not.

    Returns:
        `{"profile", "member", "changes_at", "summary", "missing", "fewer_possible", "condition"}`; "missing" says of
        the fewest conditions whose change is enough for the membership to change what is wanted of each;
        "fewer_possible" whether the definition is too large to be sure that they are the fewest (see `fewest`). A
        condition is `{"text", "kind", "holds", "changes_at", "sentence"}` (see `sentences`) with
        "parts" for all, any and not; "counted" and "events" (the newest that count) for events, with "property" and
        "values" for what is computed of them, or "computed" and "value" of a computed trait; "events" (the newest of
        these names) for when they came; "trait", "consent" or "touch" with "set_by" and "value"; "namespace" or
        "audience" for the others. Times are ISO 8601 text or null (never).
    """
    if changes is None:
        changes = partial(_changes_at, reference, profile, at_us)
    found = _explain(reference, definition.where, raw, profile, at_us, changes)
    enough = fewest(found)
    return {
        "profile": profile,
        "member": found["holds"],
        "changes_at": found["changes_at"],
        "summary": summary(found, enough, tells_time=tells_time),
        "missing": missing(enough),
        "fewer_possible": not enough.is_certain,
        "condition": found,
    }


def _explain(
    reference: Reference, condition: Condition, raw: Mapping[str, Any], profile: str, at_us: int, changes: Changes
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": condition_text(raw),
        "kind": _KINDS[type(condition)],
        "holds": reference.holds(condition, profile, at_us),
        "changes_at": _text(changes(condition)),
    }
    if isinstance(condition, All | Any_):
        pairs = zip(condition.parts, raw[found["kind"]], strict=True)
        found["parts"] = [_explain(reference, part, of, profile, at_us, changes) for part, of in pairs]
    elif isinstance(condition, Not):
        found["parts"] = [_explain(reference, condition.part, raw["not"], profile, at_us, changes)]
    elif isinstance(condition, EventCount | DatedCount | Aggregate | ComputedValue):
        counted = reference.counted(condition, profile, at_us)
        found["names"] = list(condition.names)
        found["counted"] = len(counted)
        found["events"] = _events(counted)
        if isinstance(condition, Aggregate):
            found["property"] = ".".join(condition.path)
            values = [at_path(fact.properties, condition.path) for fact in counted]
            found["values"] = values[: -MAX_EVENTS - 1 : -1]
            found["passed_over"] = sum(not _counts(condition.function, value) for value in values)
            found["value"] = _aggregated(condition.function, values)
        if isinstance(condition, ComputedValue):
            found["computed"] = condition.trait_id
            found["value"] = _as_json(reference.computed_value(condition, profile, at_us))
    elif isinstance(condition, TraitTest):
        found["trait"] = ".".join(condition.path)
        writer = reference.writer(condition.path[0], profile, at_us)
        found["set_by"] = _events([writer])[0] if writer else None
        found["value"] = writer.traits[condition.path[0]] if writer else None
    elif isinstance(condition, ConsentTest):
        found["consent"] = condition.purpose
        said = reference.statement(condition.purpose, profile, at_us)
        found["set_by"] = _events([said])[0] if said else None
        found["value"] = (GRANTED if said.consents[condition.purpose] else DENIED) if said else None
    elif isinstance(condition, TouchTest):
        found["touch"] = ".".join(condition.path)
        touch = reference.touch(condition, profile, at_us)
        found["set_by"] = _events([touch])[0] if touch else None
        found["value"] = at_path(touch.touch, condition.path) if touch else None
    elif isinstance(condition, IdentifierExists):
        found["namespace"] = condition.namespace
    elif isinstance(condition, AudienceMember):
        found["audience"] = condition.audience_id
    elif isinstance(condition, InOrder):
        found["names"] = sorted({name for step in condition.steps for name in step.names})
        found["events"] = _events(reference.named(found["names"], profile, at_us))
    else:
        assert not isinstance(condition, Members)  # groups are not explained condition by condition
        assert not isinstance(condition, ComputedTest)  # `language.computed.bind` comes first
        found["names"] = list(condition.names)
        named = reference.named(condition.names, profile, at_us)
        found["events"] = _events(named)
        if isinstance(condition, FirstTime):
            found["first"] = format_time_us(named[0].timestamp_us) if named else None
    found["sentence"] = sentence(condition, found)
    return found


def _counts(function: str, value: Any) -> bool:
    """Whether an aggregate takes a value."""
    if function == "distinct":
        return isinstance(value, str | int | float)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _aggregated(function: str, values: Sequence[Any]) -> float | None:
    """What becomes of the values of a property; None when none counts. For people: conditions use exact amounts."""
    if function == "distinct":
        return len({(type(v) in (int, float), v) for v in values if _counts(function, v)})
    numbers = [float(v) for v in values if _counts(function, v)]
    if function == "sum":
        return round(math.fsum(numbers), 6)
    if not numbers:
        return None
    if function == "avg":
        return round(math.fsum(numbers) / len(numbers), 6)
    return min(numbers) if function == "min" else max(numbers)


def _as_json(value: Any) -> Any:
    """A value of a computed trait as JSON: whole numbers as such."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, Fraction) and (value.denominator == 1 or abs(value) > sys.float_info.max):
        return int(value)
    return as_compared(value)


def _events(facts: Sequence[Fact]) -> list[dict[str, str]]:
    return [
        {"message_id": fact.message_id, "timestamp": format_time_us(fact.timestamp_us)}
        for fact in reversed(facts[-MAX_EVENTS:])
    ]


def _changes_at(reference: Reference, profile: str, at_us: int, condition: Condition) -> int | None:
    return reference.next_change(Definition("dynamic", condition), profile, at_us)


def _text(moment: int | None) -> str | None:
    return None if moment is None else format_time_us(moment)


_KINDS: dict[type[Condition], str] = {
    All: "all",
    Any_: "any",
    Not: "not",
    EventCount: "event",
    Aggregate: "event",
    DatedCount: "event",
    FirstTime: "first_time",
    LastTime: "last_time",
    Restarted: "restarted",
    Regularly: "regularly",
    InOrder: "sequence",
    ConsentTest: "consent",
    TraitTest: "trait",
    TouchTest: "touch",
    IdentifierExists: "identifier",
    AudienceMember: "audience",
    ComputedValue: "computed",
}
