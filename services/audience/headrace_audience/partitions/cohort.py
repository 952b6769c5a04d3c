"""Partitions of a replica for which it is the same time, and the audiences of all workspaces in them.

Events are folded, the clock is moved, and what flips is written. Partitions that were taken together begin as a cohort
of their own, at the moment up to which their changes were written; when its clock has come to that of the others they
become one cohort (`headrace_audience.partitions.uniting`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.definitions import DefinitionError
from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs, metrics
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.checks.repairs import RepairOrders
from headrace_audience.definitions.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling import recording, refreshing
from headrace_audience.filling.backfill import Backfill
from headrace_audience.filling.behind import Rest
from headrace_audience.filling.versions import Limits
from headrace_audience.language.definition import check_references
from headrace_audience.memberships.flips import LANES, ROWS_PER_TRANSACTION, FencedError, FlipWriter
from headrace_audience.partitions import streaming
from headrace_audience.partitions.held import Held
from headrace_audience.partitions.passing import LONGEST_S, Passing
from headrace_audience.partitions.recovery import LogReplay
from headrace_audience.people import merges, reassignments
from headrace_audience.people.erasure import ErasureOrders
from headrace_audience.settings import Settings
from headrace_audience.store import members_in
from headrace_audience.threads import in_thread
from headrace_audience.tracing import EvaluationSpans, evaluated

log = logs.get_logger(__name__)

FLIPS_PER_STEP = LANES * ROWS_PER_TRANSACTION
WRITING_S = 0.5
"""About so long may be written what is not due."""
LEAST_OTHERS = 500
IN_THREAD = 500
"""Events from which on folding is done in a thread, so that calls are answered meanwhile."""
BLOCK_MS = 200
LOOK_S = 0.02
PAUSE_S = 0.5

_numbers = itertools.count(1)
_events = metrics.counter("headrace_audience_events", "Resolved events folded.")
_latency = metrics.histogram(
    "headrace_audience_event_seconds", "Time in seconds from the accepting of an event to its memberships."
)


class Cohort:
    """Some partitions, and all that is computed of them."""

    def __init__(
        self, db: Database, redis: Redis, reader: ArchiveReader, writer: FlipWriter, settings: Settings, rest: Rest
    ) -> None:
        """Hold nothing yet.

        Args:
            db: Database.
            redis: Streams.
            reader: Archive and log.
            writer: Writes the flips of all partitions of the replica.
            settings: Settings of the service.
            rest: That of the replica from computing groups.
        """
        self._rest = rest
        self.stepped = 0
        """Grows with each of its steps among those of all cohorts."""
        self.number = next(_numbers)
        """Older cohorts have lower ones."""
        self._db = db
        self._redis = redis
        self._writer = writer
        self._settings = settings
        self._limits = Limits(settings.audience_confirm_share, settings.audience_confirm_members)
        self._swept_at = 0.0
        self._others = FLIPS_PER_STEP
        self.lock = asyncio.Lock()
        """Held by whoever uses an engine."""
        self.passing = Passing()
        self.evaluations: dict[str, Evaluation] = {}
        self.held: dict[int, Held] = {}
        self.halfway = False
        """True while a failure would leave an evaluation that knows too little: then everything is loaded anew."""
        self.backfill = Backfill(db, reader, self.lock, self.partition_of)
        self.replay = LogReplay(db, reader, self.lock, self.partition_of, settings)
        self.erasures = ErasureOrders(db, self.lock, settings.partitions)
        self.repairs = RepairOrders(db, redis, reader, self.lock, settings.partitions)

    def partition_of(self, profile_id: str) -> int:
        """The partition of a profile."""
        return partition_of(profile_id, self._settings.partitions)

    @property
    def complete(self) -> frozenset[int]:
        """Partitions that are up to date and miss no history in any workspace."""
        if self.passing.catches_up:
            return frozenset()
        held = [p for p in self.may_start() if p not in self.replay.waiting]
        complete = {p for p in held if streaming.is_at(self.held[p].position, self.held[p].target)}
        for evaluation in self.evaluations.values():
            complete &= {p for p in evaluation.started if not evaluation.missing[p].tickets}
        return frozenset(complete)

    @property
    def has_pending(self) -> bool:
        """Whether any flips wait to be written."""
        return any(len(e.pending) for e in self.evaluations.values())

    def may_start(self) -> list[int]:
        """Partitions of which everything is folded that came before the moment at which they start."""
        moment = self.passing.moment_us
        return [p for p, held in self.held.items() if moment >= held.start_us and self._is_read(p, held)]

    def _is_read(self, partition: int, held: Held) -> bool:
        if partition in self.replay.waiting:
            return held.follows and self.replay.reached_us >= held.start_us
        if streaming.is_at(held.position, held.target):
            return True
        return held.follows and streaming.moment_us(held.position) >= held.start_us

    def may_be_left(self, partition: int) -> bool:
        """Whether a partition can be given to another replica as it is."""
        if self.passing.catches_up:
            return False
        return not any(e.pending.holds_partition(partition) for e in self.evaluations.values())

    async def drop(self, partitions: Collection[int]) -> list[int]:
        """Forget partitions; returns those that were held."""
        own = [p for p in partitions if p in self.held]
        async with self.lock:
            for partition in own:
                del self.held[partition]
                for evaluation in self.evaluations.values():
                    evaluation.drop_partition(partition)
                self.replay.forget(partition)
                self._writer.forget(partition)
        return own

    # --- audiences

    async def apply(self, wanted: Mapping[str, Mapping[str, Audience]]) -> bool:
        """Compute these audiences, by workspace and id; returns whether they must be read again to be understood."""
        for workspace_id in [w for w in self.evaluations if w not in wanted]:
            async with self.lock:
                del self.evaluations[workspace_id]
        again = False
        for workspace_id, audiences in wanted.items():
            evaluation = self.evaluations.get(workspace_id)
            if evaluation is None:
                evaluation = await self._begin(workspace_id)
            try:
                order = check_references({a: audience.definition for a, audience in audiences.items()})
            except DefinitionError:
                # Half of a change of several audiences was read: the next reading has all of it.
                again = True
                continue
            self.halfway = True
            async with self.lock:
                unknown = await in_thread(evaluation.follow, [audiences[a] for a in order], now_us())
            await self.tell_members(evaluation, unknown, self.held)
            self.halfway = False
        return again

    async def _begin(self, workspace_id: str) -> Evaluation:
        evaluation = Evaluation(workspace_id, self._settings.partitions, self.passing.moment_us or now_us(), self._rest)
        self.halfway = True
        async with self.lock:
            self.evaluations[workspace_id] = evaluation
            for partition in self.held:
                evaluation.add_partition(partition, None)
        await self.recall(evaluation, self.held)
        self.halfway = False
        return evaluation

    async def recall(self, evaluation: Evaluation, partitions: Collection[int]) -> None:
        """Let an evaluation know the reassignments in partitions of which it has no snapshot."""
        await reassignments.recall(self._db, evaluation, partitions, self.lock, self.partition_of)

    async def tell_members(
        self, evaluation: Evaluation, audience_ids: Collection[str], partitions: Collection[int]
    ) -> None:
        """Read the stored members of some audiences in some partitions and tell the evaluation."""
        if not audience_ids or not partitions:
            return
        total = self._settings.partitions
        stored = await members_in(self._db, evaluation.workspace_id, audience_ids, partitions, total)
        async with self.lock:
            for audience_id, members in stored.items():
                await in_thread(evaluation.set_members, audience_id, members, partitions, now_us())

    async def follow_orders(self) -> bool:
        """Start refreshes that are due, forget people, rebuild profiles; returns whether audiences were changed."""
        changed = False
        for evaluation in self.evaluations.values():
            changed |= await refreshing.start_due(
                self._db, evaluation, now_us(), self._settings.audience_groups_seconds
            )
        self.save_soon(await self.erasures.follow(self.evaluations, self.held))
        self.save_soon(await self.repairs.follow(self.evaluations, self.held, self.complete))
        return changed

    async def record(self) -> bool:
        """Record what is filled, refreshed or emptied, once it is written; returns whether audiences were changed."""
        changed = False
        for evaluation in self.evaluations.values():
            changed |= await recording.record(self._db, evaluation, self._limits, self._settings.partitions)
        return changed

    # --- events

    async def step(self, until_us: Callable[[], int], *, waits: bool, longest_s: float = LONGEST_S) -> None:
        """Read the streams, fold what is new, let time pass, write the flips.

        Args:
            until_us: Gives the moment at which the clock is to arrive, in microseconds; asked when all is read.
            waits: Whether to wait a little when nothing is new.
            longest_s: About so long time passes by steps, in seconds, when it is far behind.
        """
        try:
            reading = streaming.NOTHING if self.passing.catches_up else await self._read(waits)
        except RedisError as error:
            # Time goes on without it; what cannot be read now is read from the log later.
            log.warning("the streams cannot be read", error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
            reading = streaming.NOTHING
        await self._fold_and_advance(reading, until_us(), longest_s)

    async def _read(self, waits: bool) -> streaming.Reading:
        # Until the log has come to where the stream begins, what is on the stream is not to be known.
        replaying = self._replaying()
        positions = {p: held.position for p, held in self.held.items() if p not in replaying}
        if not positions:
            await asyncio.sleep(LOOK_S)
            return streaming.NOTHING
        busy = not waits or any(e.is_busy for e in self.evaluations.values())
        return await streaming.read(
            self._redis,
            positions,
            count=self._settings.audience_batch_entries,
            block_ms=1 if busy else BLOCK_MS,
        )

    async def _fold_and_advance(self, reading: streaming.Reading, until_us: int, longest_s: float) -> None:
        found = streaming.by_workspace(reading.batches)
        started = {p for e in self.evaluations.values() for p in e.started}
        moment = self.passing.aim(until_us, reading, self.held, started, self._replaying())
        catches_up = self.passing.catches_up
        # Whoever catches up folds no later event before its time: it waits in the engine.
        horizon = self.passing.moment_us if catches_up else moment
        loaded = {w: await self._load(self.evaluations[w], t) for w, t in found.items() if w in self.evaluations}
        traceparents = [e.traceparent or e.event.traceparent for told in found.values() for e in told.events]
        with evaluated(traceparents) as tracing:
            async with self.lock:
                for workspace_id, brought in loaded.items():
                    evaluation, told = self.evaluations[workspace_id], found[workspace_id]
                    if told.merges or told.reassignments:
                        evaluation.touch()
                    await self._fold(evaluation, told.events, brought, horizon)
                    evaluation.happened(told.events)
                for partition, position in reading.positions.items():
                    self.held[partition].position = position
                    self.held[partition].dirty = True
                for partition, entry in reading.broken.items():
                    self.read_log(partition, streaming.moment_us(entry))
                if not catches_up:
                    await self._advance(moment, found, tracing)
            if catches_up:
                stop_at = time.monotonic() + longest_s
                await self.passing.step(
                    self.evaluations, self.held, self.may_start, self.lock, self._write_due, stop_at
                )
            await self._write_due()
        for told in found.values():
            _events.add(len(told.events))
            if told.events:
                oldest = min(e.event.received_at_us for e in told.events)
                _latency.record(max(0, now_us() - oldest) / SECOND_US)

    async def _advance(self, moment: int, found: Collection[str], tracing: EvaluationSpans) -> None:
        sweep = time.monotonic() - self._swept_at >= self._settings.audience_sweep_seconds
        for workspace_id, evaluation in self.evaluations.items():
            is_started = evaluation.start_what_is_complete(self.may_start())
            if is_started or sweep or workspace_id in found or evaluation.engine.is_sweeping:
                flips = await asyncio.to_thread(evaluation.advance, moment)
                evaluation.pending.add(tracing.replaced(flips))
        if sweep:
            self._swept_at = time.monotonic()
        self.passing.passed(moment)

    async def _load(self, evaluation: Evaluation, told: streaming.Told) -> merges.Loaded | None:
        """Follow the reassignments of a reading, and read what its merges bring."""
        if told.reassignments:
            newest = reassignments.newest(evaluation.engine, told.reassignments, self.held, self.partition_of)
            await reassignments.follow(self._db, evaluation, newest, self.lock, self.partition_of, now_us())
            self.save_soon({self.partition_of(one.profile_id) for one in newest if one.erased})
        if not told.merges:
            return None
        return await merges.load(self._db, evaluation, told.merges, self.held, self.partition_of)

    async def _fold(
        self, evaluation: Evaluation, received: Sequence[ResolvedEvent], loaded: merges.Loaded | None, moment: int
    ) -> None:
        events = reassignments.in_time(evaluation.engine, received)
        if len(events) < IN_THREAD:
            evaluation.engine.fold(events, now_us=moment)
        else:
            await asyncio.to_thread(evaluation.engine.fold, events, now_us=moment)
        if loaded is not None:
            merges.apply(evaluation, loaded, self.held, self.partition_of, moment)

    def _replaying(self) -> dict[int, int]:
        """Partitions for which the log is folded as time passes, with the moment up to which it is."""
        return {p: self.replay.reached_us for p in self.replay.waiting if self.held[p].follows}

    async def replay_log(self) -> None:
        """Fold the log for the partitions that wait for it."""
        await self.replay.run(self.evaluations, self._passed)

    async def _passed(self, moment_us: int) -> None:
        while self._replaying() and self.passing.moment_us < moment_us:  # noqa: ASYNC110 - looked at by one task, seldom
            await asyncio.sleep(LOOK_S)

    def read_log(self, partition: int, from_us: int) -> None:
        """Entries of a partition were lost that had not been read: read the log instead.

        Nothing of it is told until that is done. But where the log is being read as time passes, it goes on farther.
        """
        if partition in self._replaying():
            self.replay.ask_on(partition)
            return
        for evaluation in self.evaluations.values():
            evaluation.hold_partition(partition)
        self.held[partition].follows = False
        self.replay.ask(partition, from_us)

    def save_soon(self, partitions: Iterable[int]) -> None:
        """What is stored of people who were erased must not stay."""
        for partition in partitions:
            self.held[partition].dirty = True
            self.held[partition].saved = 0.0

    # --- flips

    async def write_some(self) -> bool:
        """Write flips that wait: those that are due, and some of audiences that are being filled or emptied.

        Of the latter so many as do not take long: what comes to be due meanwhile waits for them.

        Returns:
            Whether the database could be reached.
        """
        began = time.monotonic()
        is_reached = await self._write(self._others)
        took_s = time.monotonic() - began
        if took_s > WRITING_S:
            self._others = max(LEAST_OTHERS, self._others // 2)
        elif took_s < WRITING_S / 2:
            self._others = min(FLIPS_PER_STEP, self._others * 2)
        return is_reached

    async def _write_due(self) -> bool:
        return await self._write(0)

    async def _write(self, others: int) -> bool:
        for workspace_id, evaluation in self.evaluations.items():
            flips = evaluation.take_flips(FLIPS_PER_STEP, others)
            if not flips:
                continue
            bases = {a.audience_id: a.base for a in evaluation.audiences.values()}
            try:
                await self._writer.write(workspace_id, flips, bases, evaluation.engine.clock_us)
                evaluation.written(flips)
            except FencedError as error:
                evaluation.pending.put_back(flips)
                await self.drop(error.partitions)
            except PyMongoError as error:
                evaluation.pending.put_back(flips)
                log.warning("flips cannot be written", waiting=len(evaluation.pending), error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                return False
        return True
