from __future__ import annotations

import pytest
from headrace_sync.lists.schedules import next_run
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.times import DAY_US, HOUR_US, parse_time_us

SCHEDULES = ("6h", "5m", "daily 03:00", "daily 02:30 Europe/Berlin", "weekly mon 23:59 Asia/Kolkata")
moments = st.integers(parse_time_us("2020-01-01T00:00:00Z"), parse_time_us("2040-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("schedule", "last", "due"),
    [
        ("6h", "2026-01-01T01:00:00Z", "2026-01-01T07:00:00Z"),
        ("daily 03:00", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
        ("daily 03:00", "2026-01-01T02:59:59Z", "2026-01-01T03:00:00Z"),
        ("daily 03:00 Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-01T21:30:00Z"),
        ("weekly mon 03:00", "2026-01-01T00:00:00Z", "2026-01-05T03:00:00Z"),
        ("daily 03:00 Europe/Berlin", "2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z"),  # clocks are put forward
    ],
)
def test_when_a_pass_is_due(schedule: str, last: str, due: str) -> None:
    assert next_run(schedule, parse_time_us(last)) == parse_time_us(due)


@pytest.mark.parametrize(
    "schedule", ["", "1s", "100d", "daily", "daily 24:00", "weekly xyz 03:00", "daily 03:00 Nowhere/City", "0 3 * * *"]
)
def test_what_is_no_schedule(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"such as|5 minutes"):
        next_run(schedule, 0)


@given(st.sampled_from(SCHEDULES), moments)
def test_the_next_pass_comes_later_and_in_time(schedule: str, last: int) -> None:
    due = next_run(schedule, last)
    longest = 7 * DAY_US if schedule.startswith("weekly") else DAY_US
    assert last < due <= last + longest + 2 * HOUR_US
    assert next_run(schedule, due) > due
