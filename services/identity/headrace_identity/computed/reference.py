"""Computed traits worked out from all events of a person in the plainest way, to check what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.computed_traits import reference
from headrace.domain.computed_traits.definition import Definition


def compute(definition: Definition, events: Iterable[Event], at_us: int) -> Any:
    """The value for a person with these events at a moment: what JSON knows, numbers as fractions; None for none."""
    tracks = ((e.name, e.timestamp_us, _properties(e)) for e in events if e.kind == EventKind.EVENT_KIND_TRACK)
    return reference.value_of(definition, tracks, at_us)


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


def _properties(event: Event) -> dict[str, Any]:
    try:
        properties = json.loads(event.properties or b"{}", parse_constant=_no_constant)
    except ValueError:
        return {}
    return properties if isinstance(properties, dict) else {}


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _digits(number: Fraction) -> str:
    """A fraction that is a decimal number, in digits."""
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(number * 10**places))).rjust(places + 1, "0")
    whole = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    return f"-{whole}" if number < 0 else whole
