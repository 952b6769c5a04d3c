"""What the reference evaluator makes of a person's events: in the plainest way, event by event."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from collections.abc import Sequence as List
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

from headrace.domain.computed_traits import reference as computed_reference
from headrace.domain.computed_traits.definition import Definition as ComputedDefinition
from headrace.domain.definitions import Predicate
from headrace.domain.predicates_reference import at_path, moment, passes
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    DatedCount,
    EventCount,
    FirstTime,
    InOrder,
    LastTime,
    Leaf,
    Regularly,
    Restarted,
    Step,
    TraitTest,
    Window,
)
from headrace_audience.language.spans import Calendar, Fixed, Span
from headrace_audience.offline.facts import Fact

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def matches(fact: Fact, names: List[str], where: List[Predicate]) -> bool:
    """Whether a fact is one of these events."""
    return (
        fact.kind == "track"
        and fact.name in names
        and all(passes(predicate.test, at_path(fact.properties, predicate.path)) for predicate in where)
    )


def is_near(fact: Fact, predicate: Predicate, at_us: int) -> bool:
    """Whether the time that a property says is in the last, or the next, so many microseconds."""
    said = moment(at_path(fact.properties, predicate.path))
    if said is None:
        return False
    span_us = int(float(predicate.test.values[0]))
    return at_us - span_us < said <= at_us if predicate.test.op == "in_last" else at_us < said <= at_us + span_us


def in_window(window: Window, time_us: int, at_us: int) -> bool:
    """Whether an event at a time, which is past, lies in a window at a moment."""
    if window.within is not None and not _is_within(window.within, time_us, at_us):
        return False
    if window.older_than is not None and _is_within(window.older_than, time_us, at_us):
        return False
    if window.from_us is not None and time_us < window.from_us:
        return False
    return window.to_us is None or time_us <= window.to_us


def _is_within(span: Span, time_us: int, at_us: int) -> bool:
    if isinstance(span, Calendar):
        return (_date(span, at_us) - _date(span, time_us)).days < span.days
    return time_us > at_us - span.us


def _date(span: Calendar, at_us: int) -> date:
    """The date of a moment in the zone; when clocks go back over midnight it stays that of the day that has begun."""
    zone, at = ZoneInfo(span.zone), _EPOCH + timedelta(microseconds=at_us)
    today = at.astimezone(zone).date()
    if today == date.max:
        return today
    tomorrow = today + timedelta(days=1)
    has_begun = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).astimezone(UTC) <= at
    return tomorrow if has_begun else today


def _left(span: Span, time_us: int) -> int:
    """The moment from which an event counts no more."""
    if not isinstance(span, Calendar):
        return time_us + span.us
    try:
        after = _date(span, time_us) + timedelta(days=span.days)
        begins = datetime(after.year, after.month, after.day, tzinfo=ZoneInfo(span.zone)).astimezone(UTC)
    except OverflowError:  # years that no calendar holds
        return span.passes(time_us)
    return (begins - _EPOCH) // timedelta(microseconds=1)


def aggregate_holds(condition: Aggregate, found: List[object]) -> bool:
    """Whether the values of a property, of the events that count, give what is wanted."""
    if condition.function == "distinct":
        different = {
            (isinstance(v, str), isinstance(v, bool), v)
            for v in found
            if isinstance(v, str | bool) or (isinstance(v, int | float) and abs(v) <= sys.float_info.max)
        }
        return passes(condition.test, len(different))
    amounts = [
        (Decimal(float(v) * 1e6)).quantize(Decimal(1), ROUND_HALF_EVEN)
        for v in found
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 9_000_000_000_000
    ]
    if condition.function == "sum":
        return _compare(condition, sum(amounts, Decimal(0)), 1)
    if not amounts:
        return condition.test.op == "neq"
    if condition.function == "avg":
        return _compare(condition, sum(amounts, Decimal(0)), len(amounts))
    return _compare(condition, min(amounts) if condition.function == "min" else max(amounts), 1)


def computed_value(condition: ComputedValue, past: List[Fact], at_us: int) -> Any:
    """The value of a computed trait, numbers as fractions; None for none."""
    window, within_us = condition.window, None
    if window.within is not None:
        assert isinstance(window.within, Fixed)  # windows of computed traits are durations
        within_us = window.within.us
    trait = ComputedDefinition(condition.names, condition.where, within_us, condition.function, condition.path)
    tracks = [(fact.name, fact.timestamp_us, fact.properties) for fact in past if fact.kind == "track"]
    return computed_reference.value_of(trait, tracks, at_us)


def as_compared(value: Any) -> Any:
    """A value of a computed trait as tests compare it: fractions as the nearest doubles."""
    if isinstance(value, list):
        return [as_compared(item) for item in value]
    if not isinstance(value, Fraction):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _compare(condition: Aggregate, total: Decimal, count: int) -> bool:
    wanted = [Decimal(float(v) * 1e6).quantize(Decimal(1), ROUND_HALF_EVEN) * count for v in condition.test.values]
    low, high = wanted[0], wanted[-1]
    return {
        "eq": total == low,
        "neq": total != low,
        "gt": total > low,
        "gte": total >= low,
        "lt": total < low,
        "lte": total <= low,
        "between": low <= total <= high,
    }[condition.test.op]


def occurrences_hold(condition: FirstTime | LastTime | Restarted | Regularly, past: List[Fact], at_us: int) -> bool:
    """Whether a condition on when events came holds; `past` is all events up to the moment, in order."""
    times = [fact.timestamp_us for fact in past if matches(fact, condition.names, ())]
    if isinstance(condition, FirstTime):
        return bool(times) and in_window(condition.window, times[0], at_us)
    if isinstance(condition, LastTime):
        of_name = [fact for fact in past if matches(fact, condition.names, ())]
        if not of_name:
            return False
        last = of_name[-1]
        return matches(last, condition.names, condition.where) and in_window(condition.window, last.timestamp_us, at_us)
    if isinstance(condition, Restarted):
        active = [t for t in times if _is_within(condition.active_within, t, at_us)]
        older = [t for t in times if not _is_within(condition.gone_since, t, at_us)]
        return bool(active) and bool(older) and len(active) + len(older) == len(times)
    right = 0
    for i in range(condition.periods):
        end = at_us - i * condition.period_us
        count = sum(1 for t in times if end - condition.period_us < t <= end)
        right += condition.accept[min(count, len(condition.accept) - 1)]
    return right >= condition.at_least


def sequence_holds(condition: InOrder, past: List[Fact], at_us: int) -> bool:
    """Whether any choice of events, one for each step that must come, is such a sequence."""
    positive = [step for step in condition.steps if not step.negated]
    choices = [
        [
            (place, fact)
            for place, fact in enumerate(past)
            if matches(fact, step.names, step.where) and in_window(condition.window, fact.timestamp_us, at_us)
        ]
        for step in positive
    ]
    return any(_is_sequence(condition.steps, list(chosen), past, at_us) for chosen in product(*choices))


def _is_sequence(steps: List[Step], chosen: list[tuple[int, Fact]], past: List[Fact], at_us: int) -> bool:
    left = chosen.copy()
    before_place, before = left.pop(0)
    for number, step in enumerate(steps[1:], start=1):
        if not step.negated:
            place, fact = left.pop(0)
            if place <= before_place or not _follows(step, before, fact):
                return False
            before_place, before = place, fact
            continue
        end = left[0][0] if left else len(past)
        if any(matches(f, step.names, step.where) and _follows(step, before, f) for f in past[before_place + 1 : end]):
            return False
        is_last = number == len(steps) - 1
        if is_last and step.within_us is not None and at_us < before.timestamp_us + step.within_us:
            return False
    return True


def _follows(step: Step, before: Fact, fact: Fact) -> bool:
    if step.within_us is not None and fact.timestamp_us > before.timestamp_us + step.within_us:
        return False
    for path in step.same:
        one, two = at_path(before.properties, path), at_path(fact.properties, path)
        if not isinstance(one, str | bool | int | float) or isinstance(one, str | bool) is not isinstance(
            two, str | bool
        ):
            return False
        if isinstance(one, str) is not isinstance(two, str) or one != two:
            return False
    return True


def moments_after(leaf: Leaf, fact: Fact) -> Iterator[int]:
    """Moments at which an event may change the truth of a condition, beside that of the event."""
    time = fact.timestamp_us
    if isinstance(leaf, DatedCount):
        for predicate in leaf.dated:
            told = moment(at_path(fact.properties, predicate.path))
            if told is not None:
                near_us = int(float(predicate.test.values[0]))
                yield from (told - near_us, told, told + near_us)
    if isinstance(leaf, EventCount | DatedCount | Aggregate | ComputedValue | FirstTime | LastTime | InOrder):
        spans = [span for span in (leaf.window.within, leaf.window.older_than) if span is not None]
        yield from (_left(span, time) for span in spans)
        if isinstance(leaf, InOrder):
            yield from (time + step.within_us for step in leaf.steps if step.within_us is not None)
    elif isinstance(leaf, Restarted):
        yield from (_left(leaf.active_within, time), _left(leaf.gone_since, time))
    elif isinstance(leaf, Regularly):
        yield from (time + i * leaf.period_us for i in range(1, leaf.periods + 1))
    elif isinstance(leaf, TraitTest) and leaf.test.op in ("in_last", "in_next"):
        said = moment(at_path(fact.traits, leaf.path))
        if said is not None:
            span_us = int(float(leaf.test.values[0]))
            yield from (said - span_us, said, said + span_us)
