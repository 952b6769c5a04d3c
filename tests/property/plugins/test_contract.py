"""The contract of answers, against a naive reading of it: every item once, or alone in several requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.connector import wire
from headrace.plugins.contract import ContractBroken, check_built
from headrace_sdk import Note, Request, Skip

PLACES = st.integers(-1, 4)


@given(
    st.integers(0, 4),
    st.lists(st.lists(PLACES, max_size=4).map(tuple), max_size=3),
    st.lists(PLACES, max_size=3),
    st.lists(PLACES, max_size=1),
)
def test_every_item_once(size: int, requests: list[tuple[int, ...]], skipped: list[int], noted: list[int]) -> None:
    built = wire.BuiltBatch(
        requests=tuple(Request(method="POST", url="https://a.example/", items=items) for items in requests),
        skipped=tuple(Skip(item=item, reason="r") for item in skipped),
        notes=tuple(Note(item=item, reason="r") for item in noted),
    )
    different = [items for place, items in enumerate(requests) if len(items) != 1 or items not in requests[:place]]
    everything = [item for items in different for item in items] + skipped
    fine = sorted(everything) == list(range(size)) and all(requests) and all(0 <= item < size for item in noted)
    try:
        check_built(size, built)
    except ContractBroken:
        assert not fine
    else:
        assert fine
