"""Waits before the next try."""

from __future__ import annotations

import pytest
from headrace_sync.outlets.backoff import delay_us, is_out_of_time

from headrace.domain.times import SECOND_US


@pytest.mark.parametrize(("attempts", "longest_s"), [(1, 2), (2, 4), (3, 8), (9, 512), (10, 600), (10_000, 600)])
def test_doubles_up_to_the_cap(attempts: int, longest_s: int) -> None:
    almost = delay_us(attempts, base_s=2, cap_s=600, draw=0.999_999)
    assert longest_s * SECOND_US * 0.99 < almost <= longest_s * SECOND_US


def test_full_jitter_begins_at_nothing() -> None:
    assert delay_us(5, base_s=2, cap_s=600, draw=0.0) == 0


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.99])
def test_what_the_vendor_asks_is_never_undercut(draw: float) -> None:
    asked = delay_us(1, base_s=2, cap_s=10, draw=draw, asked_s=120)
    assert 120 * SECOND_US <= asked <= 123 * SECOND_US


def test_asked_for_nothing_is_nothing() -> None:
    assert delay_us(7, base_s=2, cap_s=600, draw=0.9, asked_s=0) == 0


def test_out_of_time_at_the_very_moment() -> None:
    assert not is_out_of_time(10 * SECOND_US - 1, 0, 10)
    assert is_out_of_time(10 * SECOND_US, 0, 10)
