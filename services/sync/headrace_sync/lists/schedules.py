"""When a list sync with a schedule sends: at intervals, or at a time of the day or week in a time zone. Pure.

6h                            six hours after the last pass began
daily 03:00 Asia/Kolkata      every day; without a time zone in UTC
weekly mon 03:00              every Monday
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from headrace.domain.times import DAY_US, MINUTE_US, SECOND_US, parse_duration_us

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_AT = re.compile(r"(?:daily|weekly (?P<day>[a-z]{3})) (?P<hour>\d{2}):(?P<minute>\d{2})(?: (?P<zone>[\w+/-]+))?")
_LEAST_US = 5 * MINUTE_US
_MOST_US = 90 * DAY_US


def next_run(schedule: str, last_us: int) -> int:
    """When the next pass is due, in microseconds.

    Args:
        schedule: The schedule.
        last_us: When the last pass began.

    Raises:
        ValueError: It is no schedule; the text says what one is.
    """
    found = _AT.fullmatch(schedule)
    if found is None:
        return last_us + _interval_us(schedule)
    hour, minute = int(found["hour"]), int(found["minute"])
    if hour > 23 or minute > 59 or (found["day"] and found["day"] not in _DAYS):
        raise ValueError("names no time of a day, such as 03:00, or no day of the week, such as mon")
    try:
        zone = ZoneInfo(found["zone"] or "UTC")
    except (KeyError, ValueError, OSError):
        raise ValueError("names no time zone, such as Asia/Kolkata") from None
    last = datetime.fromtimestamp(last_us / SECOND_US, UTC).astimezone(zone)
    day = last.date()
    while True:
        due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
        is_day = not found["day"] or _DAYS[day.weekday()] == found["day"]
        # Compared in UTC: where clocks are put back, one time of a day comes twice.
        if is_day and due.astimezone(UTC) > last.astimezone(UTC):
            return int(due.timestamp()) * SECOND_US
        day += timedelta(days=1)


def _interval_us(schedule: str) -> int:
    try:
        interval_us = parse_duration_us(schedule)
    except ValueError:
        raise ValueError("must be an interval such as 6h, or such as daily 03:00 Asia/Kolkata") from None
    if not _LEAST_US <= interval_us <= _MOST_US:
        raise ValueError("must be an interval of 5 minutes to 90 days")
    return interval_us
