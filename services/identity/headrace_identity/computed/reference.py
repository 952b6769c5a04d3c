"""Computed traits worked out from all events of a person in the plainest way, to check what is kept.

It shares nothing with what is kept but the definition: no summary, no bucket, no compiled test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.predicates_reference import at_path, passes
from headrace_identity.computed.definition import Definition

LONGEST_LIST = 1_000
LONGEST_TEXT = 500


def compute(definition: Definition, events: Iterable[Event], at_us: int) -> Any:
    """The value for a person with these events at a moment: what JSON knows, numbers as fractions; None for none."""
    counted = [(e, properties) for e in events if (properties := _counted(definition, e, at_us)) is not None]
    if definition.function == "count":
        return Fraction(len(counted)) if counted else None
    found = [(e.timestamp_us, at_path(properties, definition.path)) for e, properties in counted]
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


def same(kept: bytes, computed: Any) -> bool:
    """Whether JSON says the same as a computed value; empty says that there is none."""
    if not kept:
        return computed is None
    value = json.loads(kept, parse_float=Fraction, parse_int=Fraction)
    return type(value) is type(computed) and bool(value == computed)


def as_json(value: Any) -> bytes:
    """A computed value as JSON; empty for none."""
    if value is None:
        return b""
    if isinstance(value, list):
        return b"[" + b",".join(as_json(v) for v in value) + b"]"
    if isinstance(value, Fraction):
        return _digits(value).encode()
    return json.dumps(value, ensure_ascii=False).encode()


def _counted(definition: Definition, event: Event, at_us: int) -> Any | None:
    """The properties of an event that counts."""
    if event.kind != EventKind.EVENT_KIND_TRACK or event.name not in definition.names:
        return None
    if event.timestamp_us > at_us:
        return None
    if definition.within_us is not None and event.timestamp_us <= at_us - definition.within_us:
        return None
    try:
        properties = json.loads(event.properties or b"{}", parse_constant=_no_constant)
    except ValueError:
        properties = {}
    if not isinstance(properties, dict):
        properties = {}
    if not all(passes(p.test, at_path(properties, p.path)) for p in definition.where):
        return None
    return properties


def _no_constant(name: str) -> Any:
    raise ValueError(name)


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


def _digits(number: Fraction) -> str:
    """A fraction that is a decimal number, in digits."""
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(number * 10**places))).rjust(places + 1, "0")
    whole = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    return f"-{whole}" if number < 0 else whole
