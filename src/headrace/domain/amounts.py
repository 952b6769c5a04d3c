"""Numbers that are added up: exact to six decimals, so that the order of adding them cannot matter.

An amount is a whole number of millionths: a JSON number times a million, both as IEEE 754 doubles, rounded half to
even. Every engine of queries can do the same, so all of them find the same sum.
"""

from __future__ import annotations

from headrace.domain.definitions import Test

SCALE = 1_000_000
LARGEST = 9_000_000_000_000
"""Numbers beyond it are no amounts: as millionths they would not fit 64 bits."""


def amount_of(value: object) -> int | None:
    """The amount that a JSON value is; None when it is no number, or one that is too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -LARGEST <= value <= LARGEST:  # also False for a NaN
        return None
    return round(float(value) * SCALE)


def total_passes(test: Test, total: int, count: int = 1) -> bool:
    """Whether a sum of amounts, divided by how many they are, passes a comparison with numbers."""
    low, high = (threshold(test, place) * count for place in (0, -1))
    match test.op:
        case "eq":
            return total == low
        case "neq":
            return total != low
        case "gt":
            return total > low
        case "gte":
            return total >= low
        case "lt":
            return total < low
        case "lte":
            return total <= low
        case "between":
            return low <= total <= high
    raise ValueError(f"{test.op} does not compare numbers")


def threshold(test: Test, place: int) -> int:
    """An operand of a comparison, as an amount; one of any size."""
    return round(float(test.values[place]) * SCALE)
