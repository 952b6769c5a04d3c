"""The value of a computed trait worked out in the plainest way, to check what is kept and what is quick.

It shares nothing with those but the definition: no summary, no canonical text, no compiled test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from headrace.domain.computed_traits.definition import Definition
from headrace.domain.predicates_reference import at_path, passes

LONGEST_LIST = 1_000
LONGEST_TEXT = 500

Event = tuple[str, int, Mapping[str, Any]]
"""Name, event time in microseconds, and properties of a track event."""


def value_of(definition: Definition, events: Iterable[Event], at_us: int) -> Any:
    """The value for a person with these track events at a moment.

    Returns:
        What JSON knows, numbers as fractions; None for no value.
    """
    counted = [event for event in events if _counts(definition, event, at_us)]
    if definition.function == "count":
        return Fraction(len(counted)) if counted else None
    found = [(time_us, at_path(properties, definition.path)) for _, time_us, properties in counted]
    if definition.function in ("sum", "avg", "min", "max"):
        numbers = [n for _, value in found if (n := _number(value)) is not None]
        return _of_numbers(definition.function, numbers) if numbers else None
    valued = [(time_us, v) for time_us, value in found if (v := _scalar(value)) is not None]
    if not valued:
        return None
    if definition.function == "first":
        earliest = min(time_us for time_us, _ in valued)
        return min((v for time_us, v in valued if time_us == earliest), key=_order)
    if definition.function == "last":
        latest = max(time_us for time_us, _ in valued)
        return max((v for time_us, v in valued if time_us == latest), key=_order)
    different = sorted({_order(v): v for _, v in valued}.values(), key=_order)
    if definition.function == "unique_list":
        return different[:LONGEST_LIST]
    counts = [sum(1 for _, other in valued if _order(other) == _order(v)) for v in different]
    return different[counts.index(max(counts))]


def _counts(definition: Definition, event: Event, at_us: int) -> bool:
    name, time_us, properties = event
    if name not in definition.names or time_us > at_us:
        return False
    if definition.within_us is not None and time_us <= at_us - definition.within_us:
        return False
    return all(passes(p.test, at_path(properties, p.path)) for p in definition.where)


def _number(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        float(value)
        return Fraction(str(value))
    except (OverflowError, ValueError):
        return None


def _of_numbers(function: str, numbers: list[Fraction]) -> Fraction:
    if function == "sum":
        return sum(numbers, Fraction(0))
    if function == "avg":
        return Fraction(repr(float(sum(numbers, Fraction(0)) / len(numbers))))
    return min(numbers) if function == "min" else max(numbers)


def _scalar(value: Any) -> Any | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        surrogate = any("\ud800" <= c <= "\udfff" for c in value)
        return None if len(value) > LONGEST_TEXT or surrogate else value
    return _number(value)


def _order(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return (int(value), 0)
    return (3, value) if isinstance(value, str) else (2, value)
