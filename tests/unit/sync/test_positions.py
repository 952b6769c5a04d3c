"""The plan mark, and gaps in streams."""

from __future__ import annotations

import pytest
from headrace_sync.planning.positions import TRIMMED_FROM, StreamState, has_gap, mark_us, planned_until_ms


def state(
    *, length: int = 10, first: str = "100-0", last: str = "900-0", delivered: str = "900-0", pending: str = ""
) -> StreamState:
    return StreamState(length, first, last, delivered, pending)


@pytest.mark.parametrize(
    ("given", "planned_ms"),
    [
        (state(), 5_000),
        (state(length=0, first="", last="0-0", delivered="0-0"), 5_000),
        (state(delivered="700-3"), 700),
        (state(pending="300-1"), 300),
        (state(delivered="0-0"), 0),
    ],
)
def test_what_was_sent_before_the_mark_is_planned(given: StreamState, planned_ms: int) -> None:
    assert planned_until_ms(given, 5_000) == planned_ms


def test_the_mark_is_that_of_the_partition_that_lags_most() -> None:
    assert mark_us([state(), state(delivered="700-0"), state(pending="300-0")], 5_000) == 300_000
    assert mark_us([], 5_000) == 5_000_000


def test_gaps() -> None:
    long = TRIMMED_FROM
    assert not has_gap(state(length=long))
    assert not has_gap(state(length=long, delivered="100-0"))
    assert has_gap(state(length=long, delivered="99-7"))
    assert has_gap(state(length=long, pending="50-0"))
    assert not has_gap(state(length=3, delivered="0-0"))  # nothing was trimmed from so short a stream
