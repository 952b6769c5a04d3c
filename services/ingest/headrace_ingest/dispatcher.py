"""Sends durable segments to the stream of their partition, as long as Redis takes them.

Nothing depends on it: what it does not send, because Redis is away or a stream is full, stays in the log, and the
sweeper sends it later. So it never waits, never retries, and holds little.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from headrace.storage.mongo.log import Segment
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from headrace.telemetry import spans
from headrace.telemetry.logs import get_logger
from headrace_ingest import metrics

log = get_logger(__name__)

SENT = "headrace:events:sent"
"""Hash: segment id to "partition:entry id" of the segments that were sent and may still wait on their stream."""

_PAUSE_S = 1.0
_MAX_HELD = 2_000


class Streams:
    """The events streams: sending segments, how full each is, and the memory of what was sent."""

    def __init__(self, redis: Redis, *, partitions: int, backlog: int) -> None:
        """Send to Redis.

        Args:
            redis: Redis.
            partitions: Number of events streams.
            backlog: Entries that may wait on each.
        """
        self._redis = redis
        self._backlog = backlog
        self._partitions = partitions
        self._lengths = [0] * partitions

    def room(self, partition: int) -> int:
        """Entries that a stream may still take, as last seen."""
        return self._backlog - self._lengths[partition] if partition < self._partitions else 0

    def full(self) -> list[int]:
        """Partitions whose stream takes no more."""
        return [q for q in range(self._partitions) if self.room(q) <= 0]

    async def look(self) -> dict[str, str]:
        """Look how full each stream is; returns what was sent and may still wait: segment id to place."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(self._partitions):
            pipeline.xlen(names.events(partition))
        pipeline.hgetall(SENT)
        *lengths, sent = await pipeline.execute()
        self._lengths = [int(n) for n in lengths]
        return {k.decode(): v.decode() for k, v in sent.items()}

    async def send(self, segments: Sequence[Segment]) -> None:
        """Append segments to their streams, then remember that they were sent.

        A crash between the two sends them again, which is harmless.

        Raises:
            redis.exceptions.RedisError: Some or none were appended.
        """
        if not segments:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for segment in segments:
            pipeline.xadd(names.events(segment.partition), {b"b": segment.payload})
        touched = sorted({segment.partition for segment in segments})
        for partition in touched:
            pipeline.xlen(names.events(partition))
        answers: list[Any] = await pipeline.execute()
        entries, lengths = answers[: len(segments)], answers[len(segments) :]
        for partition, length in zip(touched, lengths, strict=True):
            self._lengths[partition] = int(length)
        await self._redis.hset(
            SENT,
            mapping={
                segment.id: f"{segment.partition}:{entry.decode()}"
                for segment, entry in zip(segments, entries, strict=True)
            },
        )

    async def missing(self, sent: dict[str, str]) -> list[str]:
        """Those segments among `sent` whose entry is no longer on its stream."""
        if not sent:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for place in sent.values():
            partition, _, entry = place.partition(":")
            pipeline.xrange(names.events(int(partition)), entry, entry)
        answers = await pipeline.execute()
        return [segment_id for segment_id, found in zip(sent, answers, strict=True) if not found]

    async def forget(self, segment_ids: Sequence[str]) -> None:
        """Forget that these were sent: they are finished, or must be sent again."""
        if segment_ids:
            await self._redis.hdel(SENT, *segment_ids)


class Dispatcher:
    """Takes segments from the committer and sends them."""

    def __init__(self, streams: Streams) -> None:
        """Send to these streams."""
        self._streams = streams
        self._held: deque[Segment] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._paused_until = 0.0
        self.left_behind = False
        """True when something was left to the sweeper since it last looked."""

    def offer(self, segments: list[Segment]) -> None:
        """Send these soon, or leave them to the sweeper; never blocks."""
        if len(self._held) + len(segments) > _MAX_HELD or time.monotonic() < self._paused_until:
            self.left_behind = True
            return
        self._held.extend(segments)
        self._arrived.set()

    async def run(self) -> None:
        """Send what comes, until `close`."""
        while not (self._closing and not self._held):
            await self._arrived.wait()
            self._arrived.clear()
            try:
                await self.flush()
            except Exception:
                log.exception("segments could not be sent by a defect: the sweeper sends them later")
                self._leave()

    async def flush(self) -> None:
        """Send what is held."""
        while self._held:
            ready: list[Segment] = []
            room: dict[int, int] = {}
            while self._held and len(ready) < _MAX_HELD:
                segment = self._held.popleft()
                left = room.setdefault(segment.partition, self._streams.room(segment.partition))
                if left > 0:
                    room[segment.partition] = left - 1
                    ready.append(segment)
                else:
                    self.left_behind = True
            try:
                with spans.batch_span("ingest.dispatch", [t for segment in ready for t in segment.traceparents]):
                    await self._streams.send(ready)
                metrics.dispatched(len(ready), "dispatcher")
            except (RedisError, OSError) as error:
                self._leave()
                log.warning("segments could not be sent to Redis: the sweeper sends them later", failure=error)

    def _leave(self) -> None:
        """Leave what is held, and what comes in the next moments, to the sweeper."""
        self._held.clear()
        self._paused_until = time.monotonic() + _PAUSE_S
        self.left_behind = True

    def close(self) -> None:
        """Send what is held, then let `run` return."""
        self._closing = True
        self._arrived.set()
