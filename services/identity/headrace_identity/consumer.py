"""From the events streams through the worker to the resolved streams.

A replica has a few lanes; each reads streams of its own, one micro-batch at a time, so events of one person that
came one after the other are resolved in that order while no other replica is quicker. The order of the steps is what
survives a crash: commit, send on, acknowledge, mark the segment done. A crash between any two repeats harmless work.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.api.common.v1.event_pb2 import EventBatch
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Entry, GroupReader, Redis, send
from headrace.telemetry import logs, metrics, spans
from headrace_identity import emitter, parked, store
from headrace_identity.deletion.refusing import Refusals
from headrace_identity.emitter import Resolved
from headrace_identity.resolving.replay import ACTION_NAMES
from headrace_identity.worker import AtStep, Incoming, Worker, no_step

_log = logs.get_logger(__name__)

_BLOCK_MS = 1_000
_MOST_ENTRIES = 250
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0

_seconds = metrics.histogram(
    "headrace_identity_batch_seconds", "Time that a micro-batch took from reading to acknowledging, in seconds."
)
_sizes = metrics.histogram("headrace_identity_batch_events", "Events in a micro-batch.", metrics.SIZE_BUCKETS)
_age = metrics.histogram(
    "headrace_identity_event_age_seconds",
    "Age of the oldest event of a micro-batch when it was sent on, since it was accepted, in seconds.",
)
_failures = metrics.counter(
    "headrace_identity_store_failures", "Micro-batches that wait because a store failed.", without_labels=True
)


@dataclass(frozen=True, slots=True)
class Sending:
    """How resolved events are sent on.

    Attributes:
        partitions: Number of partitions of profiles.
        stream_entries: About how many entries each stream keeps.
    """

    partitions: int
    stream_entries: int


class Lane:
    """Works through some of the events streams, one micro-batch at a time."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        reader: GroupReader,
        worker: Worker,
        sending: Sending,
        *,
        streams: int,
        batch_events: int,
        claim_every_s: float,
        refusals: Refusals | None = None,
        at_step: AtStep = no_step,
    ) -> None:
        """Describe a lane.

        Args:
            db: Database.
            redis: Where resolved events are sent.
            reader: Reads the streams of this lane.
            worker: Resolves and commits.
            sending: How resolved events are sent on.
            streams: Number of streams that the reader reads.
            batch_events: Most events in a micro-batch.
            claim_every_s: How often to look for what other replicas left behind, in seconds.
            refusals: Told what tombstones refused; None where there are none.
            at_step: Called between any two steps; tests end a worker there.
        """
        self._db = db
        self._redis = redis
        self._reader = reader
        self._worker = worker
        self._sending = sending
        self._streams = streams
        self._most_events = batch_events
        self._batch_events = batch_events
        self._claim_every_s = claim_every_s
        self._refusals = refusals
        self._at_step = at_step
        self._events_per_entry = 1.0
        self._claim_at = 0.0
        self._stopping = False
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Work until told to stop or cancelled. A store that fails delays, and changes nothing else."""
        self._stopped.clear()
        try:
            await self._run()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Finish what was read and end; cancelled instead, what was read waits until another replica claims it."""
        self._stopping = True
        await self._stopped.wait()

    async def _run(self) -> None:
        waiting: deque[Entry] = deque()
        pause_s = _FIRST_PAUSE_S
        while waiting or not self._stopping:
            try:
                if not waiting:
                    waiting.extend(await self._read())
                while waiting:
                    # Entries leave the queue only when they are through; after a failure they are tried again.
                    taken = await self._step(waiting)
                    for _ in range(taken):
                        waiting.popleft()
                    pause_s = _FIRST_PAUSE_S
                    self._batch_events = min(self._most_events, 2 * self._batch_events)
            except Exception:
                _failures.add(1)
                # Perhaps the store is there and slow: what does not get through in time may do so in smaller parts.
                self._batch_events = max(1, self._batch_events // 2)
                _log.exception("a micro-batch waits because a store failed", entries=len(waiting))
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - not for secrets
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _read(self) -> list[Entry]:
        count = max(1, min(_MOST_ENTRIES, round(self._batch_events / self._events_per_entry / self._streams)))
        now = time.monotonic()
        if now >= self._claim_at:
            left = await self._reader.claim(count=count)
            if left:
                return left  # and look again at once: there may be more
            self._claim_at = now + self._claim_every_s
        return await self._reader.read(count=count, block_ms=_BLOCK_MS)

    async def _step(self, waiting: Sequence[Entry]) -> int:
        """Process entries from the front, as many as make a micro-batch; returns their number."""
        entries: list[Entry] = []
        batches: list[EventBatch] = []
        events = 0
        for entry in waiting:
            batch = await self._decode(entry)
            if entries and events + len(batch.events) > self._batch_events:
                break
            entries.append(entry)
            batches.append(batch)
            events += len(batch.events)
        self._events_per_entry += (events / len(entries) - self._events_per_entry) / 8
        self._events_per_entry = max(self._events_per_entry, 1.0)
        started = time.perf_counter()
        await self._process(entries, batches)
        _seconds.record(time.perf_counter() - started)
        _sizes.record(events)
        return len(entries)

    async def _decode(self, entry: Entry) -> EventBatch:
        try:
            return EventBatch.FromString(entry.payload)
        except DecodeError as error:
            await parked.park_entry(self._db, entry, error)
            _log.error("a stream entry that is no batch of events was parked", stream=entry.stream, entry=entry.id)
            return EventBatch()

    async def _process(self, entries: Sequence[Entry], batches: Sequence[EventBatch]) -> None:
        by_workspace: dict[str, list[Incoming]] = {}
        for batch in batches:
            incoming = by_workspace.setdefault(batch.workspace_id, [])
            incoming.extend(
                Incoming(event, batch.segment_id, place)
                for place, event in enumerate(batch.events)
                if not log.is_erased(event)
            )
        messages: list[tuple[str, bytes]] = []
        unclean: set[str] = set()
        for workspace_id, events in by_workspace.items():
            # One entry alone may hold more than a micro-batch.
            for start in range(0, len(events), self._batch_events):
                messages += await self._resolve(workspace_id, events[start : start + self._batch_events], unclean)
        await self._at_step("resolved")
        await send(self._redis, messages, max_length=self._sending.stream_entries)
        await self._at_step("sent")
        await self._reader.acknowledge(entries, delete=True)
        await self._at_step("acknowledged")
        finished = dict.fromkeys(b.segment_id for b in batches if b.segment_id and b.segment_id not in unclean)
        await log.mark_done(self._db, finished)
        await self._at_step("done")

    async def _resolve(
        self, workspace_id: str, events: Sequence[Incoming], unclean: set[str]
    ) -> list[tuple[str, bytes]]:
        """Resolve events; segments that still hold something that was refused are told in `unclean`."""
        with spans.batch_span("identity micro-batch", [e.event.traceparent for e in events]):
            outcome = await self._worker.process(workspace_id, events)
            resolved = outcome.resolved
            if outcome.refused and self._refusals is not None:
                refused = [(r.segment_id, r.event.message_id) for r in outcome.refused]
                if not await self._refusals.handle(workspace_id, refused):
                    unclean.update(segment_id for segment_id, _ in refused)
            # Read after the commit: a merge that committed before has been or will be announced to the loser's
            # partition, where nobody would look for these events any more.
            survivors = await store.survivors(self._db, workspace_id, {r.profile_id for r in resolved if r.profile_id})
            contexts = [r.event.traceparent for r in resolved]
            if spans.tracing():
                contexts = spans.event_spans("identity resolve", contexts, [_attributes(r) for r in resolved])
        if resolved:
            oldest_us = min(r.event.received_at_us for r in resolved)
            _age.record(max(0.0, time.time() - oldest_us / 1e6))
        return emitter.messages(workspace_id, resolved, survivors, contexts, self._sending.partitions)


def _attributes(resolved: Resolved) -> dict[str, str | bool | int | float]:
    return {
        "headrace.workspace": resolved.event.workspace_id,
        "headrace.message_id": resolved.event.message_id,
        "headrace.profile": resolved.profile_id,
        "headrace.action": ACTION_NAMES[resolved.decision.action],
        "headrace.rule": resolved.decision.rule,
        "headrace.sequence": resolved.decision.sequence,
    }
