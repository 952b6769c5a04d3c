"""Putting items together and taking batches apart."""

from __future__ import annotations

from headrace_sync.batching import chunks, halves
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers()), st.integers(1, 20))
def test_chunks_keep_everything_in_order(items: list[int], size: int) -> None:
    parts = chunks(items, size)
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)
    assert all(len(part) == size for part in parts[:-1])


@given(st.lists(st.integers(), min_size=1))
def test_halves_find_any_single_item_in_few_steps(items: list[int]) -> None:
    steps = 0
    while len(items) > 1:
        first, second = halves(items)
        assert [*first, *second] == list(items)
        items = list(second)
        steps += 1
    assert steps <= 10
    assert halves(items) == [items]
