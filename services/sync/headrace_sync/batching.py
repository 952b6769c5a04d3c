"""Putting items together into batches, and taking batches apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in order, in pieces of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def halves(items: Sequence[T]) -> list[Sequence[T]]:
    """The items in two pieces, or in one when there is only one."""
    if len(items) < 2:
        return [items]
    middle = len(items) // 2
    return [items[:middle], items[middle:]]
