"""Values of properties that computed traits count: numbers, texts, true and false, each in one form.

A value is held as its canonical JSON text, so that equal values are equal texts: 1, 1.0 and 1e0 are one value. Numbers
are decimal numbers: an integer counts as it is, any other number as the shortest decimal that reads back as the same
float, which is what was written, up to 15 digits. So sums are exact, and depend on no order.
"""

from __future__ import annotations

import json
import math
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any

LONGEST_TEXT = 500
"""Longer texts do not count, in characters: what is kept per person must stay small."""

_PLAIN_DIGITS = 30
# Floats reach from 10^-324 to 10^308 with 17 digits; a sum of any number of them that can be stored has fewer digits.
EXACT = Context(prec=1_000, Emin=-10_000, Emax=10_000, traps=[Inexact, InvalidOperation, Overflow])
"""Arithmetic that is never rounded."""

ORDER = tuple[int, Any]
"""Sort key of a value: false, true, numbers by size, texts by code points."""


def number_of(value: Any) -> Decimal | None:
    """The number that a JSON value is; None when it is none, or none that a float can be near to."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        near = float(value)
    except OverflowError:
        return None
    if not math.isfinite(near):
        return None
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def number_text(number: Decimal) -> str:
    """The canonical JSON text of a number, never rounded."""
    if not number:
        return "0"
    number = number.normalize(EXACT)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # it is finite
    if exponent >= -_PLAIN_DIGITS and number.adjusted() <= _PLAIN_DIGITS:
        return f"{number:f}"
    return str(number)


def scalar_of(value: Any) -> str | None:
    """The canonical JSON text of a value; None when it is missing or none that counts."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT or any("\ud800" <= c <= "\udfff" for c in value):
            return None
        return json.dumps(value, ensure_ascii=False)
    number = number_of(value)
    return None if number is None else number_text(number)


def order_of(text: str) -> ORDER:
    """The sort key of a value in its canonical form."""
    if text[0] == '"':
        return (3, json.loads(text))
    if text == "false":
        return (0, 0)
    if text == "true":
        return (1, 0)
    return (2, Decimal(text))
