"""Sends segments that are in the log, not finished, and not on their stream.

That happens when Redis was away or full, when it lost its memory, or when a process died between the commit and the
dispatch. Looking is cheap: segment ids are ordered by time, so one position says up to where all is finished.

The clocks of the replicas must agree within `SETTLE_US`: an id that is older has been written, or never will be.
"""

from __future__ import annotations

import asyncio
import time

from redis.exceptions import RedisError

from headrace.domain.ids import time_ordered_floor, time_ordered_us
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.log import stored_segments
from headrace.storage.streams.client import Redis
from headrace.telemetry.logs import get_logger
from headrace_ingest import metrics
from headrace_ingest.dispatcher import Dispatcher, Streams
from headrace_ingest.store import expire_segments, read_mark, waiting_segments, write_mark

log = get_logger(__name__)

SETTLE_US = 10 * SECOND_US
"""How long after its id was made a segment may still appear in the log."""

_MARK = "sweeper"
_LOCK = "headrace:ingest:sweeper"
_LOCK_MS = 10_000
_PAGE = 5_000
_MAX_PAGES = 10
_SEND = 200
_EXPIRE_EVERY_S = 600.0
_CALM = 4
"""How many times longer the pause is when everything is on its stream."""


class Sweeper:
    """Keeps the streams fed from the log."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        streams: Streams,
        dispatcher: Dispatcher,
        *,
        name: str,
        every_s: float,
        grace_s: float,
        keep_days: float,
    ) -> None:
        """Watch a log.

        Args:
            db: Database.
            redis: Redis, for the lock that lets one replica sweep at a time.
            streams: The events streams.
            dispatcher: Says when it left something.
            name: Name of this replica.
            every_s: How often to look, in seconds.
            grace_s: How long the dispatcher has, in seconds.
            keep_days: How long finished segments are kept, in days.
        """
        self._db = db
        self._redis = redis
        self._streams = streams
        self._dispatcher = dispatcher
        self._name = name
        self._every_s = every_s
        self._grace_us = int(grace_s * SECOND_US)
        self._keep_us = int(keep_days * 86_400 * SECOND_US)
        self._floor = ""
        self._suspects: set[str] = set()
        self._oldest_us = 0
        self._expired_at = float("-inf")

    @property
    def undispatched_age_s(self) -> float:
        """Age of the oldest segment that is on no stream, in seconds; 0 for none."""
        return max(now_us() - self._oldest_us, 0) / SECOND_US if self._oldest_us else 0.0

    async def run(self) -> None:
        """Look again and again; a store that is away ends nothing."""
        while True:
            more = await self.sweep()
            await self._expire()
            if not more:
                calm = not self._oldest_us and not self._suspects and not self._dispatcher.left_behind
                await asyncio.sleep(self._every_s * (_CALM if calm else 1))

    async def sweep(self) -> bool:
        """Look once; returns True when there is more to send right away."""
        try:
            if not await self._lock():
                return False
        except (RedisError, OSError):
            await self._look_without_redis()
            return False
        try:
            return await self._sweep()
        except (RedisError, OSError) as error:
            log.warning("the sweeper could not reach Redis: it looks again", failure=error)
            return False
        finally:
            await self._release()

    async def _sweep(self) -> bool:
        sent = await self._streams.look()
        self._dispatcher.left_behind = False
        before = time_ordered_floor(now_us() - self._grace_us)
        page, last = await self._first_unfinished(before)
        self._oldest_us = _time_of(next((s for s, _ in page if s not in sent), ""))
        full = self._streams.full()
        if full:  # a full stream's many segments must not hide what others could take
            page, last = await waiting_segments(self._db, self._floor, before, _PAGE, full)
        wanted: list[str] = []
        waiting: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            waiting |= {segment_id: sent[segment_id] for segment_id, _ in page if segment_id in sent}
            wanted += [segment_id for segment_id, _ in page if segment_id not in sent]
            if not last or len(wanted) >= _SEND:
                break
            page, last = await waiting_segments(self._db, last, before, _PAGE, full)
        lost = await self._lost(waiting)
        looked_to = last or before
        await self._streams.forget(
            [s for s, place in sent.items() if s not in waiting and s <= looked_to and _partition(place) not in full]
        )
        return await self._send(wanted + lost)

    async def _first_unfinished(self, before: str) -> tuple[list[tuple[str, int]], str]:
        """The first page of the log with something unfinished; remembers that all before it is finished."""
        position = max(self._floor, await read_mark(self._db, _MARK))
        for _ in range(_MAX_PAGES):
            page, last = await waiting_segments(self._db, position, before, _PAGE)
            if page or not last:
                break
            position = last
        finished_to = _before(page[0][0]) if page else last or before
        floor = min(finished_to, time_ordered_floor(now_us() - SETTLE_US))
        if floor > self._floor:
            self._floor = floor
            await write_mark(self._db, _MARK, floor)
        return page, last

    async def _lost(self, waiting: dict[str, str]) -> list[str]:
        """Segments that were sent but are on no stream in two looks, and still are not finished."""
        missing = set(await self._streams.missing(waiting))
        lost = sorted(missing & self._suspects)
        self._suspects = missing
        return lost

    async def _send(self, segment_ids: list[str]) -> bool:
        """Send the oldest segments for which there is room."""
        count = 0
        for start in range(0, min(len(segment_ids), 10 * _SEND), _SEND):
            segments = await stored_segments(self._db, segment_ids[start : start + _SEND])
            taken: dict[int, int] = {}
            ready = []
            for segment in segments:
                count_there = taken.get(segment.partition, 0)
                if count_there < self._streams.room(segment.partition):
                    taken[segment.partition] = count_there + 1
                    ready.append(segment)
            await self._streams.send(ready)
            count += len(ready)
        metrics.dispatched(count, "sweeper")
        if count:
            log.info("segments were sent to their streams from the log", segments=count)
        return count >= _SEND

    async def _look_without_redis(self) -> None:
        """With Redis away nothing can be sent; the age of what waits is still known."""
        floor = max(self._floor, await read_mark(self._db, _MARK))
        page, _ = await waiting_segments(self._db, floor, time_ordered_floor(now_us()), 1_000)
        self._oldest_us = _time_of(page[0][0]) if page else 0

    async def _lock(self) -> bool:
        """Take the lock, or keep one that could not be released when Redis went away."""
        if await self._redis.set(_LOCK, self._name, nx=True, px=_LOCK_MS):
            return True
        return bool(await self._redis.get(_LOCK) == self._name.encode())

    async def _release(self) -> None:
        try:
            if await self._redis.get(_LOCK) == self._name.encode():
                await self._redis.delete(_LOCK)
        except (RedisError, OSError):
            log.debug("the sweeper's lock ends by itself")

    async def _expire(self) -> None:
        if time.monotonic() - self._expired_at < _EXPIRE_EVERY_S:
            return
        self._expired_at = time.monotonic()
        removed = await expire_segments(self._db, time_ordered_floor(now_us() - self._keep_us))
        if removed:
            log.info("old finished segments were removed", segments=removed)


def _time_of(segment_id: str) -> int:
    """When a segment's id was made, in microseconds; 0 for none."""
    return time_ordered_us(segment_id) if segment_id else 0


def _partition(place: str) -> int:
    return int(place.partition(":")[0])


def _before(segment_id: str) -> str:
    """A position just before a segment: the highest id that is below it."""
    value = int(segment_id, 16) - 1
    return f"{value:032x}"
