"""Spans of time: durations, and days of the calendar with daylight saving."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import numpy as np
import pytest
from headrace_audience.language.spans import Calendar, Fixed, Span
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.times import DAY_US, HOUR_US, parse_time_us

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo", "America/Santiago", "Asia/Beirut", "Pacific/Apia")


def at(text: str) -> int:
    return parse_time_us(text)


@pytest.mark.parametrize(
    ("days", "event", "passes"),
    [
        # Clocks go forward on 2026-03-29 and back on 2026-10-25: days of 23 and of 25 hours.
        (1, "2026-03-29T00:30:00+01:00", "2026-03-30T00:00:00+02:00"),
        (1, "2026-10-25T00:30:00+02:00", "2026-10-26T00:00:00+01:00"),
        (2, "2026-03-28T23:59:59+01:00", "2026-03-30T00:00:00+02:00"),
        (30, "2026-10-01T12:00:00+02:00", "2026-10-31T00:00:00+01:00"),
        (1, "2026-06-15T00:00:00+02:00", "2026-06-16T00:00:00+02:00"),
    ],
)
def test_calendar_days_end_at_midnights(days: int, event: str, passes: str) -> None:
    assert Calendar(days, "Europe/Berlin").passes(at(event)) == at(passes)


def test_one_day_is_today() -> None:
    today = Calendar(1, "Asia/Kolkata")
    assert today.start(at("2026-05-05T00:00:00+05:30")) == at("2026-05-05T00:00:00+05:30") - 1
    assert today.start(at("2026-05-05T23:59:59+05:30")) == at("2026-05-05T00:00:00+05:30") - 1


def test_a_day_whose_midnight_is_skipped_begins_when_it_begins() -> None:
    # In Beirut the clock went from 2022-03-27 00:00 to 01:00.
    assert Calendar(1, "Asia/Beirut").passes(at("2022-03-26T20:00:00+02:00")) == at("2022-03-26T22:00:00Z")


@settings(max_examples=60, deadline=None)
@given(zone=st.sampled_from(ZONES), days=st.integers(1, 40), seed=st.integers(0, 2**32), calendar=st.booleans())
def test_both_ways_of_asking_agree_and_so_do_arrays(zone: str, days: int, seed: int, calendar: bool) -> None:
    span: Span = Calendar(days, zone) if calendar else Fixed(days * HOUR_US)
    r = Random(seed)
    times = [r.randrange(-30_000, 80_000) * DAY_US + r.choice((0, -1, r.randrange(DAY_US))) for _ in range(30)]
    times += [r.randrange(20_000) * DAY_US + r.randrange(24) * HOUR_US + r.choice((0, -1)) for _ in range(30)]
    nows = [time + r.randrange(-1, days + 2) * DAY_US + r.choice((0, -1, HOUR_US)) for time in times]
    within = [time > span.start(now) for time, now in zip(times, nows, strict=True)]
    assert within == [now < span.passes(time) for time, now in zip(times, nows, strict=True)]
    assert span.start(np.array(nows, np.int64)).tolist() == [span.start(now) for now in nows]
    assert span.passes(np.array(times, np.int64)).tolist() == [span.passes(time) for time in times]


def test_moments_that_no_calendar_holds() -> None:
    for moment in (2**61, -(2**61), (datetime.max - datetime(1970, 1, 1)) // timedelta(microseconds=1)):
        span = Calendar(3, "Europe/Berlin")
        assert span.start(moment) < moment < span.passes(moment)
