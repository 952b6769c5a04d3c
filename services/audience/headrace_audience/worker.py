"""The worker of a replica: takes partitions, keeps their audiences exact, gives them back.

One loop does everything that changes an engine, one step after the other: leave partitions, follow the catalog, read
streams, fold, move the clock, write the flips, start what is complete, store snapshots. Beside it run tasks that take
partitions, whose engines are their own until the loop has them, and tasks that bring history, which share the engines
by a lock.

What a step has read is folded, its flips are written, and only then a snapshot may cover it. When a step fails in the
middle the loop starts again from snapshots and streams, which end in the same state.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs
from headrace_audience import gauges
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.definitions.catalog import Catalog
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling.behind import Rest
from headrace_audience.memberships.flips import FencedError, FlipWriter
from headrace_audience.partitions import streaming
from headrace_audience.partitions.cohort import BLOCK_MS, PAUSE_S, Cohort
from headrace_audience.partitions.incarnation import incarnation
from headrace_audience.partitions.leases import Leases
from headrace_audience.partitions.recovery import SentFloor
from headrace_audience.partitions.snapshots import Snapshot, SnapshotStore
from headrace_audience.partitions.taking import Taken, Taking
from headrace_audience.partitions.uniting import unite
from headrace_audience.settings import Settings
from headrace_audience.threads import to_the_end

log = logs.get_logger(__name__)

REDIS_CHECK_S = 2.0
CATALOG_S = 1.0
LEAVE_S = 5.0
OTHERS_S = 0.25
"""About so long a turn of the loop may go to partitions that are behind, before the live flips are looked at."""

_steps = itertools.count(1)
"""How long flips are still written at the end; the next owner finds the rest by comparing."""


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
        self._catalog = Catalog(db)
        self._snapshots = SnapshotStore(db)
        self._floor = SentFloor(db, self._margin_us())
        self._wake = asyncio.Event()
        self._age_s = 0.0
        self._clear()
        gauges.register(lambda: len(self.held), lambda: self._age_s, lambda: list(self._all_evaluations()))

    def _clear(self) -> None:
        self._cohorts: list[Cohort] = []
        """The one that is ahead of the others first."""
        self._writer = FlipWriter(self._client, self._db, self._redis, self._settings.partitions)
        self._taking: asyncio.Task[Taken] | None = None
        self._rest = Rest()
        self._asked: Mapping[int, int] = {}
        """Partitions that are being taken, and under which tokens."""
        self._tasks: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._incarnation = ""
        self._catalog_at = 0.0
        self._checked_at = 0.0

    def _all_evaluations(self) -> list[Evaluation]:
        return [evaluation for cohort in self._cohorts for evaluation in cohort.evaluations.values()]

    def wake(self) -> None:
        """Look at the audiences at once: one was changed through this process."""
        self._wake.set()

    @property
    def held(self) -> frozenset[int]:
        """Partitions that are worked on."""
        return frozenset(p for cohort in self._cohorts for p in cohort.held)

    @property
    def complete(self) -> frozenset[int]:
        """Partitions that are up to date and miss no history in any workspace."""
        return frozenset().union(*(cohort.complete for cohort in self._cohorts))

    def live(self, workspace_id: str, profile_id: str) -> tuple[asyncio.Lock, Evaluation] | None:
        """What knows a profile exactly, with the lock under which it is read; None when this replica does not."""
        partition = partition_of(profile_id, self._settings.partitions)
        for cohort in self._cohorts:
            evaluation = cohort.evaluations.get(workspace_id)
            if evaluation is not None and partition in cohort.complete:
                return cohort.lock, evaluation
        return None

    async def run(self) -> None:
        """Work until cancelled; then store snapshots and give partitions back."""
        self._clear()
        try:
            while True:
                try:
                    # To its end even when the loop is told to end meanwhile, so that its flips are written.
                    await to_the_end(self._step())
                except FencedError as error:
                    await self._drop(error.partitions)
                    await asyncio.sleep(PAUSE_S)
                except (RedisError, PyMongoError) as error:
                    if any(cohort.halfway for cohort in self._cohorts):
                        raise
                    log.warning("a store cannot be reached: the step is tried again", error=type(error).__name__)
                    await asyncio.sleep(PAUSE_S)
        finally:
            tasks = [*self._tasks.values(), *([self._taking] if self._taking is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await to_the_end(self._leave())

    async def _step(self) -> None:
        await self._take_and_leave()
        await self._follow_catalog()
        self._start_tasks()
        for cohort in self._cohorts:
            if not await cohort.write_some():
                return
        if not self._cohorts:
            await asyncio.sleep(BLOCK_MS / 1000)
            return
        try:
            await self._check_redis()
        except RedisError as error:
            log.warning("the streams cannot be looked at", error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
        await self._let_time_pass()
        for cohort in self._cohorts:
            if await cohort.record():
                self._wake.set()
        await self._save_one()
        await self._writer.send_unsent()

    async def _let_time_pass(self) -> None:
        """Let every cohort do its step; those that are behind go as far as the first one is, and become part of it.

        The first one has the live flips, which must not wait: the others share a little of each turn, in rotation.
        """
        self._cohorts.sort(key=lambda cohort: (-cohort.passing.moment_us, cohort.number))
        first, *others = self._cohorts
        until = time.monotonic() + OTHERS_S
        for cohort in sorted(others, key=lambda cohort: cohort.stepped):
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            cohort.stepped = next(_steps)
            await cohort.step(lambda: first.passing.moment_us, waits=False, longest_s=left_s)
            await unite(cohort, first)
        await first.step(now_us, waits=not others)
        self._forget_empty()

    # --- partitions

    async def _take_and_leave(self) -> None:
        wanted = dict(self._leases.held)
        tokens = {p: held.token for cohort in self._cohorts for p, held in cohort.held.items()}
        lost = {p for p, token in tokens.items() if wanted.get(p) != token}
        if lost:
            await self._drop(lost)
        surplus = self._leases.surplus
        for partition in sorted(surplus - self._asked.keys()):
            cohort = self._cohort_of(partition)
            if cohort is None:
                await self._leases.release(partition)
            elif cohort.may_be_left(partition):
                await self._save(cohort, partition)
                await self._drop([partition])
                await self._leases.release(partition)
        if self._taking is not None:
            if self._taking.done():
                await self._add_taken(wanted)
            return
        held = self.held
        new = {p: token for p, token in wanted.items() if p not in held and p not in surplus}
        if new:
            self._asked = new
            taking = Taking(self._db, self._redis, self._reader, self._writer, self._settings, self._rest)
            self._taking = asyncio.create_task(taking.take(new))

    async def _add_taken(self, wanted: Mapping[int, int]) -> None:
        """Go on with partitions that were taken, as far as they are still this replica's."""
        task, asked = self._taking, self._asked
        assert task is not None  # whoever calls has seen that it is done
        self._taking, self._asked = None, {}
        try:
            taken = task.result()
        except (FencedError, PyMongoError, RedisError):
            self._forget_asked(asked)
            raise
        if self._incarnation and taken.incarnation != self._incarnation:
            self._checked_at = 0.0  # one of the two is of a Redis that was lost
            if taken.incarnation != await incarnation(self._redis):
                self._forget_asked(asked)
                return
            await self._redis_was_lost(taken.incarnation)
        self._incarnation = taken.incarnation
        self._cohorts.append(taken.cohort)
        lost = [p for p, token in asked.items() if wanted.get(p) != token]
        if lost:
            await self._drop(lost)
        self._catalog_at = 0.0  # it may have changed while the partitions were taken

    def _forget_asked(self, asked: Mapping[int, int]) -> None:
        held = self.held
        for partition in asked:
            if partition not in held:
                self._writer.forget(partition)

    def _cohort_of(self, partition: int) -> Cohort | None:
        return next((cohort for cohort in self._cohorts if partition in cohort.held), None)

    async def _drop(self, partitions: Collection[int]) -> None:
        count = 0
        for cohort in self._cohorts:
            count += len(await cohort.drop(partitions))
        self._forget_empty()
        log.info("partitions were left", count=count)

    def _forget_empty(self) -> None:
        for cohort in [c for c in self._cohorts if not c.held]:
            self._cohorts.remove(cohort)
            for key in [key for key in self._tasks if key[0] == cohort.number]:
                self._tasks.pop(key).cancel()

    async def _leave(self) -> None:
        """Store what was computed and give everything back."""
        try:
            until = time.monotonic() + LEAVE_S
            while any(cohort.has_pending for cohort in self._cohorts) and time.monotonic() < until:
                for cohort in self._cohorts:
                    if not await cohort.write_some():
                        return
            for cohort in self._cohorts:
                for partition in sorted(cohort.held):
                    if cohort.held[partition].dirty:
                        await self._save(cohort, partition)
                    await self._leases.release(partition)
        except (PyMongoError, FencedError) as error:
            log.warning("the next owner reads more than it had to", error=type(error).__name__)
        self._cohorts = []

    # --- audiences

    async def _follow_catalog(self) -> None:
        if not self._wake.is_set() and time.monotonic() - self._catalog_at < CATALOG_S:
            return
        self._wake.clear()
        await self._catalog.refresh(everything=not self._catalog_at)
        self._catalog_at = time.monotonic()
        wanted = self._catalog.by_workspace()
        for cohort in self._cohorts:
            if await cohort.apply(wanted):
                self._wake.set()
        for cohort in self._cohorts:
            if await cohort.follow_orders():
                self._wake.set()

    # --- Redis and snapshots

    async def _check_redis(self) -> None:
        """Notice when entries were lost between two that are there."""
        if time.monotonic() - self._checked_at < REDIS_CHECK_S:
            return
        asked_us = now_us()
        found = await incarnation(self._redis)
        edges = await streaming.edges(self._redis, self.held)
        if found != self._incarnation:
            await self._redis_was_lost(found)
            edges = await streaming.edges(self._redis, self.held)
        floor_us = await self._floor.at(asked_us)
        age_us = 0
        for cohort in self._cohorts:
            async with cohort.lock:
                for partition, held in cohort.held.items():
                    here = edges[partition]
                    # A stream that was empty at the last look has everything since: it is trimmed when it is long.
                    if held.position != streaming.START and not here.reach_back_to(held.position):
                        cohort.read_log(partition, held.mark_us)
                        held.position = held.target = here.last
                    elif partition not in cohort.replay.waiting:
                        current = streaming.is_at(held.position, here.last)
                        mark_us = asked_us if current else streaming.moment_us(held.position)
                        held.mark_us = max(held.mark_us, min(mark_us, floor_us))
                        if not current:
                            age_us = max(age_us, asked_us - streaming.moment_us(held.position))
        self._age_s = age_us / SECOND_US
        self._checked_at = time.monotonic()

    async def _redis_was_lost(self, found: str) -> None:
        edges = await streaming.edges(self._redis, self.held)
        log.warning("Redis was lost or emptied: the log is read instead", partitions=len(edges))
        for cohort in self._cohorts:
            async with cohort.lock:
                for partition, held in cohort.held.items():
                    cohort.read_log(partition, held.mark_us)
                    held.position = held.target = edges[partition].last
            if cohort.held:
                oldest = min(held.mark_us for held in cohort.held.values())
                self._writer.resend_from(cohort.held, oldest - self._margin_us())
        self._incarnation = found

    def _margin_us(self) -> int:
        return int(self._settings.audience_margin_seconds * SECOND_US)

    async def _save_one(self) -> None:
        """Store the snapshot that is due the longest, when everything is written."""
        if any(cohort.has_pending for cohort in self._cohorts):
            return
        due = time.monotonic() - self._settings.audience_snapshot_seconds
        waiting = [
            (cohort.held[p].saved, p, cohort)
            for cohort in self._cohorts
            for p in cohort.complete
            if cohort.held[p].saved <= due
        ]
        if waiting:
            _, partition, cohort = min(waiting, key=lambda one: one[:2])
            await self._save(cohort, partition)

    async def _save(self, cohort: Cohort, partition: int) -> None:
        held = cohort.held[partition]
        if partition not in cohort.complete:
            return  # what it holds is not complete: the earlier snapshot is better
        async with cohort.lock:
            if held.dirty:
                states = {
                    w: await asyncio.to_thread(e.engine.export_partition, partition)
                    for w, e in cohort.evaluations.items()
                }
            else:
                states = None
            moment_us = max([cohort.passing.moment_us, *(e.engine.clock_us for e in cohort.evaluations.values())])
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
        for key, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[key]
                task.result()  # a failure restarts the loop
        for cohort in self._cohorts:
            for workspace_id, evaluation in cohort.evaluations.items():
                if evaluation.order() is not None:
                    bring = cohort.backfill.bring
                    self._beside(cohort, f"backfill:{workspace_id}", lambda b=bring, e=evaluation: b(e))  # type: ignore[misc]  # the defaults bind the loop's values
            if cohort.replay.waiting:
                self._beside(cohort, "replay", cohort.replay_log)

    def _beside(self, cohort: Cohort, name: str, work: Callable[[], Awaitable[None]]) -> None:
        key = (cohort.number, name)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(_retried(name, work))


async def _retried(name: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except (PyMongoError, RedisError) as error:
        log.warning("history cannot be read", task=name.partition(":")[0], error=type(error).__name__)
        await asyncio.sleep(PAUSE_S)
