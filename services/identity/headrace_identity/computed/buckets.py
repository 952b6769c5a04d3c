"""Buckets: what is kept of the events of one part, for all computed traits of its workspace.

A trait without a window has one bucket per part, for ever. A trait with a window has one per part and UTC day, so that
whole days can be united when it is read. A bucket holds a summary per trait, not the events: when a window begins, or
the present lies, between two of its events, the events of that bucket are read from the log instead, where they are
stored in the same transaction. The same is done for a summary that became too large to be kept. So reading is exact at
every moment, buckets stay small, and nothing has to run for time to pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace.domain.times import DAY_US
from headrace_identity.computed.summaries import Function
from headrace_identity.documents import SEPARATOR

EVER: Day = None
"""The bucket of traits without a window."""

MARGIN_US = DAY_US
"""How long a bucket is kept after the last moment that can need it: clocks differ."""

Day = int | None
"""Number of a UTC day since 1970; None for the bucket that holds events of any time."""

LAST_DAY = 2_932_896
"""9999-12-31, the last one that a date can be made of."""


class Kept(NamedTuple):
    """What a bucket holds of one trait.

    Attributes:
        oldest_us: Time of the oldest event in it.
        newest_us: Time of the newest event in it.
        summary: Their summary; None when it was too large to be kept.
    """

    oldest_us: int
    newest_us: int
    summary: Any | None


class BucketKey(NamedTuple):
    """A part's bucket."""

    part: str
    day: Day


def day_for(within_us: int | None, time_us: int) -> Day:
    """The day of the bucket that an event of this time belongs to."""
    return EVER if within_us is None else time_us // DAY_US


def unite(function: Function, one: Kept | None, other: Kept) -> Kept:
    """What is kept of both; what was too large once stays so."""
    if one is None:
        return other
    oldest_us, newest_us = min(one.oldest_us, other.oldest_us), max(one.newest_us, other.newest_us)
    if one.summary is None or other.summary is None:
        return Kept(oldest_us, newest_us, None)
    return Kept(oldest_us, newest_us, function.unite(one.summary, other.summary))


def stored(function: Function, kept: Kept) -> list[Any]:
    """The form that BSON holds."""
    summary = None if kept.summary is None else function.store(kept.summary)
    return [kept.oldest_us, kept.newest_us, summary]


def loaded(function: Function, form: list[Any]) -> Kept:
    """The reverse of `stored`."""
    oldest_us, newest_us, summary = form
    return Kept(oldest_us, newest_us, None if summary is None else function.load(summary))


def needed_until_us(within_us: int, day: int) -> int:
    """The last moment at which a day's bucket can matter to a window of this length, with a margin."""
    return (day + 1) * DAY_US + within_us + MARGIN_US


class Reading(NamedTuple):
    """What to do with a bucket.

    Attributes:
        whole: All of its events count: its summary does.
        events: (after_us, until_us], the times of those events of it that have to be read from the log; None for none.
    """

    whole: bool
    events: tuple[int, int] | None = None


_NOTHING = Reading(whole=False)
_WHOLE = Reading(whole=True)


def reading_of(kept: Kept, within_us: int | None, now_us: int) -> Reading:
    """How a trait is read from a bucket at a moment, `within_us` being its window."""
    after_us = kept.oldest_us - 1 if within_us is None else now_us - within_us
    if kept.oldest_us > now_us or kept.newest_us <= after_us:
        return _NOTHING
    if kept.oldest_us > after_us and kept.newest_us <= now_us and kept.summary is not None:
        return _WHOLE
    # The bounds are those of the bucket's events, so no event of another bucket lies between them.
    return Reading(whole=False, events=(max(after_us, kept.oldest_us - 1), min(now_us, kept.newest_us)))


def part_key(workspace_id: str, part: str) -> str:
    """What all buckets of a part have in common."""
    return f"{workspace_id}{SEPARATOR}{part}"


def bucket_key(workspace_id: str, key: BucketKey) -> str:
    """Database id of a bucket."""
    return f"{workspace_id}{SEPARATOR}{key.part}{SEPARATOR}{'' if key.day is EVER else key.day}"


def part_of_key(key: str) -> str:
    """The part in a `part_key`; workspace ids contain no separator."""
    return key[key.index(SEPARATOR) + 1 :]
