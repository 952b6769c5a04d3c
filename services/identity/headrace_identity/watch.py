"""Watches what waits for identity: the numbers that it is scaled on, and whether the stores answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, edges, id_order
from headrace.telemetry import logs, metrics
from headrace.telemetry.metrics import Reading

_log = logs.get_logger(__name__)

_EVERY_S = 2.0


class Watch:
    """Looks at the streams and the stores every two seconds."""

    def __init__(self, db: Database, redis: Redis, event_partitions: int) -> None:
        """Watch the events streams of a Redis and the database's server."""
        self._db = db
        self._redis = redis
        self._streams = [names.events(q) for q in range(event_partitions)]
        self._oldest_s: dict[str, float] = {}
        self._entries: dict[str, int] = {}
        self._answers = True
        metrics.gauge_callback(
            "headrace_identity_oldest_seconds", "Age of the oldest entry that waits, by stream, in seconds.", self._ages
        )
        metrics.gauge_callback(
            "headrace_identity_waiting_entries", "Entries that wait or are being worked on, by stream.", self._lengths
        )

    @property
    def ready(self) -> bool:
        """Whether the database answered when it was last asked: without it no call can be answered."""
        return self._answers

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._ask_database()
            await self._look()
            await asyncio.sleep(_EVERY_S)

    async def _ask_database(self) -> None:
        try:
            await self._db.command("ping")
        except Exception:
            if self._answers:
                _log.exception("the database does not answer")
            self._answers = False
        else:
            self._answers = True

    async def _look(self) -> None:
        try:
            firsts = await edges(self._redis, self._streams)
            lengths = [await self._redis.xlen(stream) for stream in self._streams]
        except Exception:
            _log.exception("the streams cannot be watched")
            return
        now_ms = time.time() * 1000
        # Acknowledged entries are deleted, so the first entry of a stream is the oldest that is not through.
        self._oldest_s = {
            s: max(0.0, now_ms - id_order(first)[0]) / 1000 if first else 0.0 for s, (first, _) in firsts.items()
        }
        self._entries = dict(zip(self._streams, lengths, strict=True))

    def _ages(self) -> Iterable[Reading]:
        return [(age, {"stream": stream}) for stream, age in self._oldest_s.items()]

    def _lengths(self) -> Iterable[Reading]:
        return [(length, {"stream": stream}) for stream, length in self._entries.items()]
