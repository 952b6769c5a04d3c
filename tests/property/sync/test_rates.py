"""The rule of rate limits, whenever anybody asks: never more than the limit and 2 %, and never less when all ask."""

from __future__ import annotations

from bisect import bisect_left

from headrace_sync.outlets.rates import Limit, take
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.times import SECOND_US

limits = st.builds(
    Limit, st.just("k"), count=st.integers(1, 300), per_s=st.sampled_from([0.5, 1.0, 10.0, 60.0, 86_400.0])
)


def places(limit: Limit, gaps: list[float], start: int = 10**15) -> list[int]:
    """Moments at which requests go that are asked for with these gaps, in steps of the limit."""
    next_us, now, found = 0, start, []
    for gap in gaps:
        now += int(gap * limit.step_us)
        next_us, wait_us = take(next_us, now, limit)
        found.append(now + wait_us)
    return found


@given(limits, st.lists(st.floats(0, 5), min_size=1, max_size=400))
def test_no_span_holds_more_than_the_limit_and_two_percent(limit: Limit, gaps: list[float]) -> None:
    found = sorted(places(limit, gaps))
    span_us = limit.count * limit.step_us
    most = max(bisect_left(found, moment + span_us) - at for at, moment in enumerate(found))
    assert most <= limit.count + limit.count // 50
    assert span_us - limit.count < limit.per_s * SECOND_US <= span_us


@given(limits)
def test_when_all_ask_nothing_of_the_rate_is_lost(limit: Limit) -> None:
    found = places(limit, [0.0] * (2 * limit.count + 1))
    kept = limit.count // 50
    assert found[kept:] == list(range(found[0], found[0] + (len(found) - kept) * limit.step_us, limit.step_us))


@given(limits, st.floats(0, 1000))
def test_after_a_rest_only_what_is_kept_goes_at_once(limit: Limit, rest: float) -> None:
    found = places(limit, [0.0, rest, *[0.0] * limit.count])[1:]
    at_once = sum(moment == found[0] for moment in found)
    assert at_once <= 1 + limit.count // 50
