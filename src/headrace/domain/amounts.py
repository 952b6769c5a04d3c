"""Numbers that are added up: exact to six decimals, so that the order of adding them cannot matter.

An amount is a whole number of millionths: a JSON number times a million, both as IEEE 754 doubles, rounded half to
even. Every engine of queries can do the same, so all of them find the same sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

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


class TotalTest(Protocol):
    """Says whether a sum of amounts, divided by how many they are, passes."""

    def __call__(self, total: int, count: int = 1) -> bool:
        """Test a total of so many amounts."""
        ...


def compile_total(test: Test) -> TotalTest:
    """The comparison with numbers that a test makes. Raises ValueError when it makes none."""
    if test.op not in _COMPARISONS:
        raise ValueError(f"{test.op} does not compare numbers")
    compares = _COMPARISONS[test.op]
    low, high = threshold(test, 0), threshold(test, -1)
    return lambda total, count=1: compares(total, low * count, high * count)


_COMPARISONS: Mapping[str, Callable[[int, int, int], bool]] = {
    "eq": lambda total, low, _: total == low,
    "neq": lambda total, low, _: total != low,
    "gt": lambda total, low, _: total > low,
    "gte": lambda total, low, _: total >= low,
    "lt": lambda total, low, _: total < low,
    "lte": lambda total, low, _: total <= low,
    "between": lambda total, low, high: low <= total <= high,
}


def threshold(test: Test, place: int) -> int:
    """An operand of a comparison, as an amount; one of any size."""
    return round(float(test.values[place]) * SCALE)
