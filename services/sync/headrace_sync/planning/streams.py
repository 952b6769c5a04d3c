"""What Redis says of the streams that this service reads: how far its group is, and how old what waits is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, id_order
from headrace.telemetry import logs, metrics
from headrace.telemetry.metrics import Reading
from headrace_sync.planning.positions import StreamState

log = logs.get_logger(__name__)

_EVERY_S = 5.0


async def read_states(redis: Redis, streams: Sequence[str]) -> dict[str, StreamState | None]:
    """The state of each stream; None when the stream or the group is not there."""
    pipeline = redis.pipeline(transaction=False)
    for stream in streams:
        pipeline.xinfo_stream(stream)
        pipeline.xinfo_groups(stream)
        pipeline.xpending(stream, names.SYNC_GROUP)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    found: dict[str, StreamState | None] = {}
    for place, stream in enumerate(streams):
        about, groups, pending = answers[3 * place : 3 * place + 3]
        failures = [a for a in (about, groups, pending) if isinstance(a, Exception)]
        for failure in failures:
            if not isinstance(failure, ResponseError):
                raise failure
        group = None if failures else next((g for g in groups if _text(g["name"]) == names.SYNC_GROUP), None)
        if group is None:
            found[stream] = None
            continue
        first = about["first-entry"]
        found[stream] = StreamState(
            length=int(about["length"]),
            first_id=_text(first[0]) if first else "",
            last_id=_text(about["last-generated-id"]),
            delivered_id=_text(group["last-delivered-id"]),
            oldest_pending_id=_text(pending["min"]) if pending["pending"] else "",
        )
    return found


class Lag:
    """Measures how old the oldest entry is that is not through, of `resolved` and of `changes`."""

    def __init__(self, redis: Redis, partitions: int) -> None:
        """Look at all partitions; `run` starts it."""
        self._redis = redis
        self._streams = {"resolved": [names.resolved(p) for p in range(partitions)], "changes": [names.CHANGES]}
        self._oldest_s: dict[str, float] = {}
        metrics.gauge_callback(
            "headrace_sync_oldest_seconds",
            "Age of the oldest entry that waits to be planned, by stream, in seconds.",
            self.readings,
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.look()
            except (RedisError, OSError) as error:
                log.warning("the streams cannot be measured", error=error)
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Measure once."""
        clock: Any = await self._redis.time()
        now_ms = clock[0] * 1000 + clock[1] // 1000
        for name, streams in self._streams.items():
            waiting = await self._oldest_ids(streams)
            oldest_ms = min((id_order(id)[0] for id in waiting), default=now_ms)
            self._oldest_s[name] = max(0, now_ms - oldest_ms) / 1000

    def readings(self) -> Iterable[Reading]:
        """(seconds, labels) of each stream, as of the last look."""
        return [(age, {"stream": name}) for name, age in self._oldest_s.items()]

    async def _oldest_ids(self, streams: Sequence[str]) -> list[str]:
        """Ids of the oldest entries that wait, one of each stream that has any."""
        states = {s: state for s, state in (await read_states(self._redis, streams)).items() if state is not None}
        waiting = [state.oldest_pending_id for state in states.values() if state.oldest_pending_id]
        pipeline = self._redis.pipeline(transaction=False)
        for stream, state in states.items():
            if not state.oldest_pending_id and id_order(state.delivered_id) < id_order(state.last_id):
                pipeline.xrange(stream, min=f"({state.delivered_id}", count=1)
        answers: list[Any] = await pipeline.execute()
        return waiting + [_text(entries[0][0]) for entries in answers if entries]


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
