"""Spans of time that reach back from a moment: so many hours, or so many days of a calendar.

Of both it can be asked in two ways whether an event still counts: an event at `t` is within a span at `now` when
`t > span.start(now)`, and that is the same as `now < span.passes(t)`. All work on whole numbers and on arrays of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from headrace.domain.definitions import Test

Times = npt.NDArray[np.int64]
T = TypeVar("T", int, Times)

DAY_US = 24 * 3600 * 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = date(1970, 1, 1).toordinal()
_EARLIEST, _LATEST = date(1970, 1, 1), date(2120, 1, 1)
"""Between these the days of a zone are looked up in a table, others are computed one by one."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """So many microseconds."""

    us: int

    def start(self, now: T) -> T:
        """The moment after which an event counts at `now`."""
        return now - self.us

    def passes(self, time: T) -> T:
        """The moment from which an event of that time counts no more."""
        return time + self.us


@dataclass(frozen=True, slots=True)
class Calendar:
    """So many days of the calendar of a time zone, today included: it begins at a midnight.

    Days of 23 and 25 hours count as one. A day whose midnight is skipped by daylight saving begins when it begins, one
    whose midnight comes twice at the first, and one that has begun does not end when clocks go back over its midnight.
    """

    days: int
    zone: str

    def start(self, now: T) -> T:
        """The moment after which an event counts at `now`."""
        return self._shifted(now, 1 - self.days) - 1

    def passes(self, time: T) -> T:
        """The moment from which an event of that time counts no more: the midnight after its last day."""
        return self._shifted(time, self.days)

    def _shifted(self, moments: T, days: int) -> T:
        """The beginning of the day that is so many days after that of each moment."""
        if isinstance(moments, int):
            return _midnight(self.zone, _day(self.zone, moments) + days)
        table = _midnights(self.zone)
        day = np.searchsorted(table, moments, side="right") - 1
        wanted = day + days
        inside = (day >= 0) & (day < len(table) - 1) & (wanted >= 0) & (wanted < len(table))
        found = table[np.where(inside, wanted, 0)]
        for place in np.flatnonzero(~inside).tolist():
            found[place] = self._shifted(int(moments[place]), days)
        return found


Span = Fixed | Calendar


def near_spans(test: Test) -> tuple[int, int]:
    """From when and until when, seen from a time, it passes "in_last" or "in_next", in microseconds."""
    span = int(float(test.values[0]))
    return (0, span) if test.op == "in_last" else (-span, 0)


def _day(zone: str, moment: int) -> int:
    """Number of the day in which a moment lies, the last that has begun, 0 being 1970-01-01."""
    try:
        local = (_EPOCH + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone))
    except OverflowError:  # years that no calendar holds
        return moment // DAY_US
    day = local.date().toordinal() - _FIRST_DAY
    return day + 1 if _midnight(zone, day + 1) <= moment else day


def _midnight(zone: str, day: int) -> int:
    """The moment at which a day begins."""
    try:
        begins = datetime.combine(date.fromordinal(day + _FIRST_DAY), datetime.min.time(), ZoneInfo(zone))
        return (begins.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return day * DAY_US


@lru_cache(maxsize=64)
def _midnights(zone: str) -> Times:
    """When the days from _EARLIEST on begin."""
    days = range(_EARLIEST.toordinal() - _FIRST_DAY, _LATEST.toordinal() - _FIRST_DAY)
    return np.array([_midnight(zone, day) for day in days], np.int64)
