"""The value of a computed trait over a set of occurrences, exactly."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from headrace.domain.computed_traits.scalars import EXACT, order_of, scalar_of

MOST_LISTED = 1_000
"""Values in a unique_list; there are more when one more is known."""

Occurrence = tuple[int, str]
"""When an event came, and the canonical text of the value that it has (see `scalars`)."""


def value_of(function: str, found: Sequence[Occurrence]) -> Any:
    """The value that a function other than "count" gives.

    Args:
        function: One of PROPERTY_FUNCTIONS.
        found: Of each event that counts, in any order. Values that are no numbers are passed over by functions of
            numbers.

    Returns:
        A value as JSON knows it, of which a number is the nearest float, infinite when there is none; None when
        nothing counts.
    """
    if function in ("sum", "avg", "min", "max"):
        numbers = [Decimal(text) for _, text in found if is_number(text)]
        return _of_numbers(function, numbers) if numbers else None
    if not found:
        return None
    if function == "first":
        return loaded(min(found, key=_time_and_order)[1])
    if function == "last":
        return loaded(max(found, key=_time_and_order)[1])
    counts = Counter(text for _, text in found)
    if function == "unique_list":
        return [loaded(text) for text in heapq.nsmallest(MOST_LISTED, counts, key=order_of)]
    most = max(counts.values())
    return loaded(min((text for text, count in counts.items() if count == most), key=order_of))


def is_number(text: str) -> bool:
    """Whether a canonical text is that of a number."""
    return text[0] not in '"tf'


def scalar_text(value: Any, function: str) -> str | None:
    """The canonical text of a value of a property; None when it does not count for a function."""
    text = scalar_of(value)
    if text is None or (function in ("sum", "avg", "min", "max") and not is_number(text)):
        return None
    return text


def loaded(text: str) -> Any:
    """The value of a canonical text; of a number the nearest float."""
    return nearest(Decimal(text)) if is_number(text) else json.loads(text)


def nearest(number: Decimal | Fraction) -> float:
    """The float that is nearest to a number; an infinite one when it is beyond their range."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def total_of(numbers: Sequence[Decimal]) -> Decimal:
    """The exact sum."""
    total = Decimal(0)
    for number in numbers:
        total = EXACT.add(total, number)
    return total


def _of_numbers(function: str, numbers: Sequence[Decimal]) -> float:
    if function == "sum":
        return nearest(total_of(numbers))
    if function == "avg":
        return nearest(Fraction(total_of(numbers)) / len(numbers))
    return nearest(min(numbers) if function == "min" else max(numbers))


def _time_and_order(one: Occurrence) -> Any:
    return one[0], order_of(one[1])
