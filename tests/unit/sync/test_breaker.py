"""The breaker of a destination."""

from __future__ import annotations

from headrace_sync.outlets.breaker import Breaker, BreakerState

from headrace.domain.times import SECOND_US


def opened(at_us: int = 0) -> Breaker:
    breaker = Breaker(threshold=3, first_wait_s=1, longest_wait_s=4)
    for _ in range(3):
        assert breaker.admit(at_us) == 0
        breaker.failed(at_us)
    return breaker


def test_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(10):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state(0) is BreakerState.CLOSED
    assert opened().state(0) is BreakerState.OPEN


def test_says_how_long_to_wait() -> None:
    breaker = opened(at_us=5)
    assert breaker.admit(5) == SECOND_US
    assert breaker.wait_us(5 + SECOND_US // 2) == SECOND_US - SECOND_US // 2
    assert breaker.wait_us(5 + SECOND_US) == 0


def test_lets_one_probe_through_at_a_time() -> None:
    breaker = opened()
    assert breaker.state(SECOND_US) is BreakerState.HALF_OPEN
    assert breaker.wait_us(SECOND_US) == breaker.admit(SECOND_US) == 0
    assert breaker.wait_us(SECOND_US) == breaker.admit(SECOND_US) > 0
    breaker.withdrawn()
    assert breaker.admit(SECOND_US) == 0
    breaker.succeeded()
    assert breaker.state(SECOND_US) is BreakerState.CLOSED
    assert breaker.admit(SECOND_US) == breaker.admit(SECOND_US) == 0


def test_failed_probes_double_the_wait_up_to_the_longest() -> None:
    breaker, now = opened(), SECOND_US
    for wait_s in (2, 4, 4):
        assert breaker.admit(now) == 0
        breaker.failed(now)
        assert breaker.wait_us(now) == wait_s * SECOND_US
        now += wait_s * SECOND_US


def test_answers_to_what_was_sent_before_it_opened_say_nothing_new() -> None:
    breaker = opened()
    wait = breaker.wait_us(10)
    for _ in range(5):
        breaker.failed(10)
    assert breaker.wait_us(10) == wait
