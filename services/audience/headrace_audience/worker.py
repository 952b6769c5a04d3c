"""The worker of a replica: takes partitions, keeps their audiences exact, gives them back.

One loop does everything that changes an engine, one step after the other: take and leave partitions, follow the
catalog, read the streams of all partitions in one call, fold, move the clock, write the flips, start what is complete,
store snapshots. Beside it run only tasks that bring history, which share the engines by a lock.

What a step has read is folded, its flips are written, and only then a snapshot may cover it. When a step fails in the
middle the loop starts again from snapshots and streams, which end in the same state.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.definitions import DefinitionError
from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs, metrics
from headrace_audience import gauges, merges, reassignments, recording, refreshing, streaming
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.backfill import Backfill
from headrace_audience.catalog import Catalog
from headrace_audience.engine.engine import SnapshotError
from headrace_audience.erasure import ErasureOrders
from headrace_audience.evaluation import Evaluation
from headrace_audience.flips import LANES, ROWS_PER_TRANSACTION, FencedError, FlipWriter
from headrace_audience.held import Held
from headrace_audience.incarnation import incarnation
from headrace_audience.language.definition import check_references
from headrace_audience.leases import Leases
from headrace_audience.passing import Passing
from headrace_audience.recovery import LogReplay
from headrace_audience.repairs import RepairOrders
from headrace_audience.settings import Settings
from headrace_audience.snapshots import Snapshot, SnapshotStore
from headrace_audience.store import members_in
from headrace_audience.threads import in_thread, to_the_end
from headrace_audience.tracing import EvaluationSpans, evaluated
from headrace_audience.versions import Limits

log = logs.get_logger(__name__)

FLIPS_PER_STEP = LANES * ROWS_PER_TRANSACTION
IN_THREAD = 500
"""Events from which on folding is done in a thread, so that calls are answered meanwhile."""
BLOCK_MS = 200
REDIS_CHECK_S = 2.0
CATALOG_S = 1.0
PAUSE_S = 0.5
LEAVE_S = 5.0
"""How long flips are still written at the end; the next owner finds the rest by comparing."""

_events = metrics.counter("headrace_audience_events", "Resolved events folded.")
_latency = metrics.histogram(
    "headrace_audience_event_seconds", "Time in seconds from the accepting of an event to its memberships."
)


class Worker:
    """Computes the audiences of the partitions whose leases this replica holds."""

    def __init__(
        self,
        client: Client,
        db: Database,
        redis: Redis,
        leases: Leases,
        reader: ArchiveReader,
        settings: Settings,
    ) -> None:
        """Work on partitions.

        Args:
            client: MongoDB client of the database.
            db: Database.
            redis: Streams.
            leases: Leases on partitions, kept alive by somebody else.
            reader: Archive and log.
            settings: Settings of the service.
        """
        self._client = client
        self._db = db
        self._redis = redis
        self._leases = leases
        self._reader = reader
        self._settings = settings
        self._limits = Limits(settings.audience_confirm_share, settings.audience_confirm_members)
        self._catalog = Catalog(db)
        self._snapshots = SnapshotStore(db)
        self._lock = asyncio.Lock()
        self._backfill = Backfill(db, reader, self._lock, self._partition_of)
        self._replay = LogReplay(db, reader, self._lock, self._partition_of, settings)
        self._erasures = ErasureOrders(db, self._lock, settings.partitions)
        self._repairs = RepairOrders(db, redis, reader, self._lock, settings.partitions)
        self._wake = asyncio.Event()
        self._age_s = 0.0
        self._clear()
        gauges.register(lambda: len(self._held), lambda: self._age_s, lambda: list(self._evaluations.values()))

    def _clear(self) -> None:
        self._evaluations: dict[str, Evaluation] = {}
        self._held: dict[int, Held] = {}
        self._writer = FlipWriter(self._client, self._db, self._redis, self._settings.partitions)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._incarnation = ""
        self._catalog_at = 0.0
        self._checked_at = 0.0
        self._swept_at = 0.0
        self._passing = Passing()
        self._halfway = False
        """True while a failure would leave an evaluation that knows too little: then everything is loaded anew."""
        self._replay.clear()

    def _partition_of(self, profile_id: str) -> int:
        return partition_of(profile_id, self._settings.partitions)

    def wake(self) -> None:
        """Look at the audiences at once: one was changed through this process."""
        self._wake.set()

    @property
    def held(self) -> frozenset[int]:
        """Partitions that are worked on."""
        return frozenset(self._held)

    @property
    def complete(self) -> frozenset[int]:
        """Partitions that are up to date and miss no history in any workspace."""
        if self._passing.catches_up:
            return frozenset()
        complete = {p for p in self._may_start() if streaming.is_at(self._held[p].position, self._held[p].target)}
        for evaluation in self._evaluations.values():
            complete &= {p for p in evaluation.started if not evaluation.missing[p].tickets}
        return frozenset(complete)

    def live(self, workspace_id: str, profile_id: str) -> tuple[asyncio.Lock, Evaluation] | None:
        """What knows a profile exactly, with the lock under which it is read; None when this replica does not."""
        evaluation = self._evaluations.get(workspace_id)
        if evaluation is None or self._partition_of(profile_id) not in self.complete:
            return None
        return self._lock, evaluation

    async def run(self) -> None:
        """Work until cancelled; then store snapshots and give partitions back."""
        self._clear()
        try:
            while True:
                try:
                    await self._whole_step()
                except FencedError as error:
                    await self._drop(error.partitions)
                    await asyncio.sleep(PAUSE_S)
                except (RedisError, PyMongoError) as error:
                    if self._halfway:
                        raise
                    log.warning("a store cannot be reached: the step is tried again", error=type(error).__name__)
                    await asyncio.sleep(PAUSE_S)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await to_the_end(self._leave())

    async def _whole_step(self) -> None:
        """Run a step to its end even when the loop is told to end meanwhile, so that its flips are written."""
        await to_the_end(self._step())

    async def _step(self) -> None:
        await self._take_and_leave()
        await self._follow_catalog()
        self._start_tasks()
        if not await self._write():
            return
        if not self._held:
            await asyncio.sleep(BLOCK_MS / 1000)
            return
        try:
            await self._check_redis()
            reading = streaming.NOTHING if self._passing.catches_up else await self._read()
        except RedisError as error:
            # Time goes on without it; what cannot be read now is read from the log later.
            log.warning("the streams cannot be read", error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
            reading = streaming.NOTHING
        await self._fold_and_advance(reading)
        await self._write()
        await self._record()
        await self._save_one()
        await self._writer.send_unsent()

    # --- partitions

    async def _take_and_leave(self) -> None:
        wanted = dict(self._leases.held)
        lost = {p for p, held in self._held.items() if wanted.get(p) != held.token}
        if lost:
            await self._drop(lost)
        surplus = self._leases.surplus
        for partition in sorted(surplus):
            if partition not in self._held:
                await self._leases.release(partition)
            elif self._may_be_left(partition):
                await self._save(partition)
                await self._drop([partition])
                await self._leases.release(partition)
        new = {p: token for p, token in wanted.items() if p not in self._held and p not in surplus}
        if new:
            await self._take(new)

    def _may_be_left(self, partition: int) -> bool:
        # Whoever takes it while it catches up may hold others that are farther, and would not catch up for it.
        if self._passing.catches_up:
            return False
        return not any(e.pending.holds_partition(partition) for e in self._evaluations.values())

    async def _take(self, tokens: Mapping[int, int]) -> None:
        began = time.monotonic()
        incarnated = await incarnation(self._redis)
        if self._incarnation and incarnated != self._incarnation:
            await self._redis_was_lost(incarnated)
        self._incarnation = incarnated
        edges = await streaming.edges(self._redis, tokens)
        asked_us = now_us()
        await self._writer.claim(tokens)
        heads = await self._snapshots.heads(tokens)
        if not self._held:
            stood = [h.moment_us for p, h in heads.items() if h.is_kept(incarnated, edges[p]) and h.moment_us]
            self._passing.take(stood, asked_us)
            async with self._lock:
                self._evaluations = {}  # of no partition: they begin where the partitions stood
        # After the claim: what was decided before our tokens were there must not be overlooked.
        await self._catalog.refresh(everything=True)
        await self._apply_catalog()
        replayed = 0
        empty: dict[str, list[int]] = defaultdict(list)
        self._halfway = True
        for partition, token in tokens.items():
            snapshot = await self._snapshots.load(partition)
            here = edges[partition]
            kept = snapshot is not None and heads[partition].is_kept(incarnated, here)
            position = snapshot.position if snapshot is not None and kept else here.last
            mark_us = snapshot.sequence if snapshot is not None else asked_us
            async with self._lock:
                self._erasures.forget(partition)
                self._repairs.forget(partition)
                start_us = heads[partition].moment_us
                follows = kept and start_us >= self._passing.moment_us > 0
                self._held[partition] = Held(
                    token, position, here.last, mark_us, start_us, follows, saved=time.monotonic()
                )
                for workspace_id, evaluation in self._evaluations.items():
                    state = snapshot.states.get(workspace_id) if snapshot is not None else None
                    if not await self._import(evaluation, partition, state):
                        empty[workspace_id].append(partition)
            if snapshot is not None and not kept:
                self._replay.ask(partition, snapshot.sequence)
                replayed += 1
        for workspace_id, evaluation in self._evaluations.items():
            if empty[workspace_id]:
                await self._recall(evaluation, empty[workspace_id])
            await self._tell_members(evaluation, list(evaluation.audiences), tokens)
        self._halfway = False
        log.info(
            "partitions were taken",
            count=len(tokens),
            from_log=replayed,
            seconds=round(time.monotonic() - began, 3),
        )

    async def _import(self, evaluation: Evaluation, partition: int, state: bytes | None) -> bool:
        """Take a snapshot in; returns whether there was one that can be read."""
        keys: frozenset[str] | None = None
        if state is not None:
            try:
                keys = await asyncio.to_thread(evaluation.engine.import_partition, partition, state)
            except SnapshotError:
                log.warning("a snapshot cannot be read: history is folded instead", partition=partition)
        evaluation.add_partition(partition, keys)
        return keys is not None

    async def _recall(self, evaluation: Evaluation, partitions: Collection[int]) -> None:
        await reassignments.recall(self._db, evaluation, partitions, self._lock, self._partition_of)

    async def _tell_members(
        self, evaluation: Evaluation, audience_ids: Collection[str], partitions: Collection[int]
    ) -> None:
        """Read the stored members of some audiences in some partitions and tell the evaluation."""
        if not audience_ids or not partitions:
            return
        total = self._settings.partitions
        stored = await members_in(self._db, evaluation.workspace_id, audience_ids, partitions, total)
        async with self._lock:
            for audience_id, members in stored.items():
                await in_thread(evaluation.set_members, audience_id, members, partitions, now_us())

    async def _drop(self, partitions: Collection[int]) -> None:
        async with self._lock:
            for partition in partitions:
                if self._held.pop(partition, None) is None:
                    continue
                for evaluation in self._evaluations.values():
                    evaluation.drop_partition(partition)
                self._replay.forget(partition)
                self._writer.forget(partition)
        log.info("partitions were left", count=len(partitions))

    async def _leave(self) -> None:
        """Store what was computed and give everything back."""
        try:
            until = time.monotonic() + LEAVE_S
            while any(len(e.pending) for e in self._evaluations.values()) and time.monotonic() < until:
                if not await self._write():
                    return
            for partition in sorted(self._held):
                if self._held[partition].dirty:
                    await self._save(partition)
                await self._leases.release(partition)
        except (PyMongoError, FencedError) as error:
            log.warning("the next owner reads more than it had to", error=type(error).__name__)
        self._held = {}

    # --- audiences

    async def _follow_catalog(self) -> None:
        woken = self._wake.is_set()
        if not woken and time.monotonic() - self._catalog_at < CATALOG_S:
            return
        self._wake.clear()
        await self._catalog.refresh()
        self._catalog_at = time.monotonic()
        await self._apply_catalog()
        for evaluation in self._evaluations.values():
            if await refreshing.start_due(self._db, evaluation, now_us(), self._settings.audience_groups_seconds):
                self._wake.set()
        self._save_soon(await self._erasures.follow(self._evaluations, self._held))
        self._save_soon(await self._repairs.follow(self._evaluations, self._held, self.complete))

    async def _apply_catalog(self) -> None:
        wanted = self._catalog.by_workspace()
        for workspace_id in [w for w in self._evaluations if w not in wanted]:
            async with self._lock:
                del self._evaluations[workspace_id]
        for workspace_id, audiences in wanted.items():
            evaluation = self._evaluations.get(workspace_id)
            if evaluation is None:
                began_us = self._passing.moment_us or now_us()
                evaluation = Evaluation(workspace_id, self._settings.partitions, began_us)
                async with self._lock:
                    self._evaluations[workspace_id] = evaluation
                    for partition in self._held:
                        evaluation.add_partition(partition, None)
                self._halfway = True
                await self._recall(evaluation, self._held)
                self._halfway = False
            try:
                order = check_references({a: audience.definition for a, audience in audiences.items()})
            except DefinitionError:
                # Half of a change of several audiences was read: the next reading has all of it.
                self._wake.set()
                continue
            self._halfway = True
            async with self._lock:
                unknown = await in_thread(evaluation.follow, [audiences[a] for a in order], now_us())
            await self._tell_members(evaluation, unknown, self._held)
            self._halfway = False

    # --- events

    def _may_start(self) -> list[int]:
        moment = self._passing.moment_us
        return [
            p
            for p, held in self._held.items()
            if p not in self._replay.waiting
            and moment >= held.start_us
            and (held.follows or streaming.is_at(held.position, held.target))
        ]

    async def _read(self) -> streaming.Reading:
        positions = {p: held.position for p, held in self._held.items()}
        busy = any(len(e.pending) or e.leaving.audience_ids for e in self._evaluations.values())
        return await streaming.read(
            self._redis,
            positions,
            count=self._settings.audience_batch_entries,
            block_ms=1 if busy else BLOCK_MS,
        )

    async def _fold_and_advance(self, reading: streaming.Reading) -> None:
        now = now_us()
        found = streaming.by_workspace(reading.batches)
        started = {p for e in self._evaluations.values() for p in e.started}
        moment = self._passing.aim(now, reading, self._held, started)
        catches_up = self._passing.catches_up
        # Whoever catches up folds no later event before its time: it waits in the engine.
        horizon = self._passing.moment_us if catches_up else moment
        loaded = {w: await self._load(self._evaluations[w], t) for w, t in found.items() if w in self._evaluations}
        traceparents = [e.traceparent or e.event.traceparent for told in found.values() for e in told.events]
        with evaluated(traceparents) as tracing:
            async with self._lock:
                for workspace_id, brought in loaded.items():
                    self._evaluations[workspace_id].touch()
                    await self._fold(self._evaluations[workspace_id], found[workspace_id].events, brought, horizon)
                for partition, position in reading.positions.items():
                    self._held[partition].position = position
                    self._held[partition].dirty = True
                for partition, entry in reading.broken.items():
                    self._hold_and_replay(partition, streaming.moment_us(entry))
                if not catches_up:
                    await self._advance(moment, found, tracing)
            if catches_up:
                await self._passing.step(self._evaluations, self._held, self._may_start, self._lock, self._write)
            await self._write()
        for told in found.values():
            _events.add(len(told.events))
            if told.events:
                oldest = min(e.event.received_at_us for e in told.events)
                _latency.record(max(0, now_us() - oldest) / SECOND_US)

    async def _advance(self, moment: int, found: Collection[str], tracing: EvaluationSpans) -> None:
        sweep = time.monotonic() - self._swept_at >= self._settings.audience_sweep_seconds
        for workspace_id, evaluation in self._evaluations.items():
            if evaluation.start_what_is_complete(self._may_start()) or sweep or workspace_id in found:
                flips = await asyncio.to_thread(evaluation.advance, moment)
                evaluation.pending.add(tracing.replaced(flips))
        if sweep:
            self._swept_at = time.monotonic()
        self._passing.passed(moment)

    async def _load(self, evaluation: Evaluation, told: streaming.Told) -> merges.Loaded | None:
        """Follow the reassignments of a reading, and read what its merges bring."""
        if told.reassignments:
            newest = reassignments.newest(evaluation.engine, told.reassignments, self._held, self._partition_of)
            await reassignments.follow(self._db, evaluation, newest, self._lock, self._partition_of, now_us())
            self._save_soon({self._partition_of(one.profile_id) for one in newest if one.erased})
        if not told.merges:
            return None
        return await merges.load(self._db, evaluation, told.merges, self._held, self._partition_of)

    async def _fold(
        self, evaluation: Evaluation, received: Sequence[ResolvedEvent], loaded: merges.Loaded | None, moment: int
    ) -> None:
        events = reassignments.in_time(evaluation.engine, received)
        if len(events) < IN_THREAD:
            evaluation.engine.fold(events, now_us=moment)
        else:
            await asyncio.to_thread(evaluation.engine.fold, events, now_us=moment)
        if loaded is not None:
            merges.apply(evaluation, loaded, self._held, self._partition_of, moment)

    # --- flips

    async def _write(self) -> bool:
        """Write some of the flips that wait; returns whether the database could be reached."""
        for workspace_id, evaluation in self._evaluations.items():
            flips = evaluation.take_flips(FLIPS_PER_STEP)
            if not flips:
                continue
            bases = {a.audience_id: a.base for a in evaluation.audiences.values()}
            try:
                await self._writer.write(workspace_id, flips, bases, evaluation.engine.clock_us)
                evaluation.written(flips)
            except FencedError as error:
                evaluation.pending.put_back(flips)
                await self._drop(error.partitions)
            except PyMongoError as error:
                evaluation.pending.put_back(flips)
                log.warning("flips cannot be written", waiting=len(evaluation.pending), error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                return False
        return True

    async def _record(self) -> None:
        """Record what is filled, refreshed or emptied, once it is written."""
        for evaluation in self._evaluations.values():
            if await recording.record(self._db, evaluation, self._limits, self._settings.partitions):
                self._wake.set()

    # --- Redis and snapshots

    async def _check_redis(self) -> None:
        """Notice when entries were lost between two that are there."""
        if time.monotonic() - self._checked_at < REDIS_CHECK_S:
            return
        asked_us = now_us()
        found = await incarnation(self._redis)
        edges = await streaming.edges(self._redis, self._held)
        if found != self._incarnation:
            await self._redis_was_lost(found)
            edges = await streaming.edges(self._redis, self._held)
        floor_us = await self._replay.unsent_floor_us(asked_us)
        age_us = 0
        async with self._lock:
            for partition, held in self._held.items():
                here = edges[partition]
                # A stream that was empty at the last look has everything since: it is trimmed when it is long.
                if held.position != streaming.START and not here.reach_back_to(held.position):
                    self._hold_and_replay(partition, held.mark_us)
                    held.position = held.target = here.last
                elif partition not in self._replay.waiting:
                    current = streaming.is_at(held.position, here.last)
                    mark_us = asked_us if current else streaming.moment_us(held.position)
                    held.mark_us = max(held.mark_us, min(mark_us, floor_us))
                    if not current:
                        age_us = max(age_us, asked_us - streaming.moment_us(held.position))
        self._age_s = age_us / SECOND_US
        self._checked_at = time.monotonic()

    async def _redis_was_lost(self, found: str) -> None:
        edges = await streaming.edges(self._redis, self._held)
        log.warning("Redis was lost or emptied: the log is read instead", partitions=len(self._held))
        async with self._lock:
            for partition, held in self._held.items():
                self._hold_and_replay(partition, held.mark_us)
                held.position = held.target = edges[partition].last
        if self._held:
            oldest = min(held.mark_us for held in self._held.values())
            margin_us = int(self._settings.audience_margin_seconds * SECOND_US)
            self._writer.resend_from(self._held, oldest - margin_us)
        self._incarnation = found

    def _hold_and_replay(self, partition: int, from_us: int) -> None:
        for evaluation in self._evaluations.values():
            evaluation.hold_partition(partition)
        self._replay.ask(partition, from_us)

    async def _save_one(self) -> None:
        """Store the snapshot that is due the longest, when everything is written."""
        if any(len(e.pending) for e in self._evaluations.values()):
            return
        due = time.monotonic() - self._settings.audience_snapshot_seconds
        complete = self.complete
        waiting = [p for p, held in self._held.items() if held.saved <= due and p in complete]
        if waiting:
            await self._save(min(waiting, key=lambda p: self._held[p].saved))

    def _save_soon(self, partitions: Iterable[int]) -> None:
        """What is stored of people who were erased must not stay."""
        for partition in partitions:
            self._held[partition].dirty = True
            self._held[partition].saved = 0.0

    async def _save(self, partition: int) -> None:
        held = self._held[partition]
        if partition not in self.complete:
            return  # what it holds is not complete: the earlier snapshot is better
        async with self._lock:
            if held.dirty:
                states = {
                    w: await asyncio.to_thread(e.engine.export_partition, partition)
                    for w, e in self._evaluations.items()
                }
            else:
                states = None
            moment_us = max([self._passing.moment_us, *(e.engine.clock_us for e in self._evaluations.values())])
            covered = (held.position, self._incarnation, held.mark_us, moment_us)
            held.dirty = False
        if states is None:
            await self._snapshots.touch(partition, held.token, *covered)
        else:
            try:
                await self._snapshots.save(partition, held.token, Snapshot(*covered, states))
            except BaseException:
                held.dirty = True
                raise
        held.saved = time.monotonic()

    # --- tasks beside the loop

    def _start_tasks(self) -> None:
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                task.result()  # a failure restarts the loop
        for workspace_id, evaluation in self._evaluations.items():
            if evaluation.order() is not None:
                self._beside(f"backfill:{workspace_id}", lambda e=evaluation: self._backfill.bring(e))  # type: ignore[misc]  # the default binds the loop's value
        if self._replay.waiting:
            self._beside("replay", lambda: self._replay.run(self._evaluations))

    def _beside(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._retried(name, work))

    async def _retried(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (PyMongoError, RedisError) as error:
            log.warning("history cannot be read", task=name.partition(":")[0], error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
