"""Times as integers: microseconds since 1970-01-01 UTC, the one form used inside Headrace."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MOMENT_US = 220_000_000_000 * SECOND_US
"""In the year 8941: later than that nothing is asked for, so that windows after it end before the calendar does."""
_UNITS_US = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": WEEK_US}
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")


def now_us() -> int:
    """The clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def parse_time_us(text: str) -> int:
    """Read an ISO 8601 time; without a zone it is UTC.

    Returns microseconds since 1970 UTC. Raises ValueError when the text is no such time.
    """
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds


def format_time_us(moment_us: int) -> str:
    """Write microseconds since 1970 UTC as ISO 8601 with a Z, without trailing zeros of the fraction."""
    text = (_EPOCH + timedelta(microseconds=moment_us)).replace(tzinfo=None).isoformat()
    return f"{text.rstrip('0')}Z" if "." in text else f"{text}Z"


def parse_duration_us(text: str) -> int:
    """Read a duration such as "30s", "5m", "36h", "30d" or "2w" (a day is 24 hours).

    Returns microseconds. Raises ValueError when the text is no such duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a number and one of s, m, h, d, w")
    return int(match[1]) * _UNITS_US[match[2]]
