"""Summaries: what is kept of a set of events, so that a computed trait can be read without them.

A summary is made of single values, summaries of disjoint sets of events are united, and none of it depends on order.
"Disjoint" is enough, because an event is added in the transaction that stores it, and so exactly once.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from headrace.domain.computed_traits.scalars import EXACT, number_of, number_text, order_of, scalar_of
from headrace.domain.computed_traits.values import MOST_LISTED

LARGEST_STORED = 64 * 1024
"""Characters of values in a stored summary. One that would be larger is not stored: the events are read instead."""

MOST_COUNTED = 2_000
"""Different values in a stored summary of most_frequent, for the same reason."""


class Result(NamedTuple):
    """The value of a computed trait: JSON, and whether a list was cut."""

    value: bytes
    truncated: bool = False


class Function(Protocol):
    """How one function summarises. Summaries are of its own type; `unite` may change and return its first argument."""

    def of(self, value: Any, time_us: int) -> Any | None:
        """The summary of one event by the value of its property; None when the value does not count."""

    def unite(self, one: Any, other: Any) -> Any:
        """The summary of both."""

    def store(self, summary: Any) -> Any | None:
        """A form that BSON can hold; None when it is too large to be kept."""

    def load(self, stored: Any) -> Any:
        """The reverse of `store`."""

    def result(self, summary: Any) -> Result:
        """The value."""


class _Count:
    def of(self, value: Any, time_us: int) -> int:
        return 1

    def unite(self, one: int, other: int) -> int:
        return one + other

    def store(self, summary: int) -> int:
        return summary

    def load(self, stored: int) -> int:
        return stored

    def result(self, summary: int) -> Result:
        return Result(b"%d" % summary)


class _Sum:
    def of(self, value: Any, time_us: int) -> Decimal | None:
        return number_of(value)

    def unite(self, one: Decimal, other: Decimal) -> Decimal:
        return EXACT.add(one, other)

    def store(self, summary: Decimal) -> str:
        return number_text(summary)

    def load(self, stored: str) -> Decimal:
        return Decimal(stored)

    def result(self, summary: Decimal) -> Result:
        return Result(number_text(summary).encode())


class _Average:
    """(count, sum); the quotient is rounded once, to the nearest float."""

    def of(self, value: Any, time_us: int) -> tuple[int, Decimal] | None:
        number = number_of(value)
        return None if number is None else (1, number)

    def unite(self, one: tuple[int, Decimal], other: tuple[int, Decimal]) -> tuple[int, Decimal]:
        return one[0] + other[0], EXACT.add(one[1], other[1])

    def store(self, summary: tuple[int, Decimal]) -> list[Any]:
        return [summary[0], number_text(summary[1])]

    def load(self, stored: list[Any]) -> tuple[int, Decimal]:
        return stored[0], Decimal(stored[1])

    def result(self, summary: tuple[int, Decimal]) -> Result:
        number = number_of(float(Fraction(summary[1]) / summary[0]))
        assert number is not None  # an average of floats lies between them
        return Result(number_text(number).encode())


class _Least(_Sum):
    def unite(self, one: Decimal, other: Decimal) -> Decimal:
        return min(one, other)


class _Greatest(_Sum):
    def unite(self, one: Decimal, other: Decimal) -> Decimal:
        return max(one, other)


class _First:
    """(event time, value); of the same time the least value."""

    def of(self, value: Any, time_us: int) -> tuple[int, str] | None:
        text = scalar_of(value)
        return None if text is None else (time_us, text)

    def unite(self, one: tuple[int, str], other: tuple[int, str]) -> tuple[int, str]:
        return min(one, other, key=_time_and_order)

    def store(self, summary: tuple[int, str]) -> list[Any]:
        return list(summary)

    def load(self, stored: list[Any]) -> tuple[int, str]:
        return stored[0], stored[1]

    def result(self, summary: tuple[int, str]) -> Result:
        return Result(summary[1].encode())


class _Last(_First):
    """(event time, value); of the same time the greatest value."""

    def unite(self, one: tuple[int, str], other: tuple[int, str]) -> tuple[int, str]:
        return max(one, other, key=_time_and_order)


def _time_and_order(summary: tuple[int, str]) -> Any:
    return summary[0], order_of(summary[1])


class _MostFrequent:
    """Count by value."""

    def of(self, value: Any, time_us: int) -> dict[str, int] | None:
        text = scalar_of(value)
        return None if text is None else {text: 1}

    def unite(self, one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
        for text, count in other.items():
            one[text] = one.get(text, 0) + count
        return one

    def store(self, summary: dict[str, int]) -> list[Any] | None:
        if len(summary) > MOST_COUNTED or sum(map(len, summary)) > LARGEST_STORED:
            return None
        return [list(summary), list(summary.values())]

    def load(self, stored: list[Any]) -> dict[str, int]:
        return dict(zip(stored[0], stored[1], strict=True))

    def result(self, summary: dict[str, int]) -> Result:
        most = max(summary.values())
        return Result(min((text for text, count in summary.items() if count == most), key=order_of).encode())


class _UniqueList:
    """The least values, one more than are listed, so that it is known whether there are more."""

    def of(self, value: Any, time_us: int) -> set[str] | None:
        text = scalar_of(value)
        return None if text is None else {text}

    def unite(self, one: set[str], other: set[str]) -> set[str]:
        one |= other
        if len(one) > 2 * MOST_LISTED:  # not at each value: sorting is what costs
            return set(heapq.nsmallest(MOST_LISTED + 1, one, key=order_of))
        return one

    def store(self, summary: set[str]) -> list[str] | None:
        least = heapq.nsmallest(MOST_LISTED + 1, summary, key=order_of)
        return None if sum(map(len, least)) > LARGEST_STORED else least

    def load(self, stored: list[str]) -> set[str]:
        return set(stored)

    def result(self, summary: set[str]) -> Result:
        texts = sorted(summary, key=order_of)
        return Result(f"[{','.join(texts[:MOST_LISTED])}]".encode(), len(texts) > MOST_LISTED)


FUNCTIONS: Mapping[str, Function] = {
    "count": _Count(),
    "sum": _Sum(),
    "avg": _Average(),
    "min": _Least(),
    "max": _Greatest(),
    "first": _First(),
    "last": _Last(),
    "most_frequent": _MostFrequent(),
    "unique_list": _UniqueList(),
}
"""By the name in definitions."""
