"""Folds the log for partitions whose stream was lost or does not reach back to where they stood.

The log names the profile to which an event was resolved; that one may have been merged since, so all merges are read
first and events go to the profiles that they belong to now. Profiles whose events were assigned anew since are folded
anew before. New entries are read from the stream meanwhile; what they say of reassigned profiles is newer.

Where the changes of a partition are to be found as if it had been held all the time, the log is folded as time passes
for it: no further than it was written by then, and some more when that is reached.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Set
from contextlib import ExitStack

from headrace.api.identity.v1.profile_pb2 import Merge, Reassignment, ResolvedEvent
from headrace.domain.ids import time_ordered_floor, time_ordered_us
from headrace.domain.times import HOUR_US, MINUTE_US, SECOND_US
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs
from headrace_audience.archive.reader import END, ArchiveReader
from headrace_audience.archive.survivors import Survivors
from headrace_audience.evaluation import Evaluation
from headrace_audience.people import merges, reassignments
from headrace_audience.settings import Settings
from headrace_audience.threads import in_thread

log = logs.get_logger(__name__)

FLOOR_EVERY_US = 10 * SECOND_US
FLOOR_LIMIT_US = HOUR_US

_tickets = itertools.count(1)


class LogReplay:
    """Knows which partitions need the log, and folds it for them."""

    def __init__(
        self,
        db: Database,
        reader: ArchiveReader,
        lock: asyncio.Lock,
        partition_of: Callable[[str], int],
        settings: Settings,
    ) -> None:
        """Fold the log.

        Args:
            db: Database with the log.
            reader: Knows the merges.
            lock: Held by whoever uses an engine.
            partition_of: Gives the partition of a profile.
            settings: Margin and size of chunks.
        """
        self._db = db
        self._reader = reader
        self._lock = lock
        self._partition_of = partition_of
        self._margin_us = int(settings.audience_margin_seconds * SECOND_US)
        self._chunk = settings.audience_fill_events
        self._asked: dict[int, tuple[int, int]] = {}
        self.reached_us = 0
        """Everything is folded that was committed before this moment, but for late commits."""

    @property
    def waiting(self) -> frozenset[int]:
        """Partitions for which the log is not yet folded."""
        return frozenset(self._asked)

    def ask(self, partition: int, from_sequence: int) -> None:
        """Ask for everything that was committed from a sequence on, and for what was committed late before it."""
        if partition in self._asked:
            from_sequence = min(from_sequence, self._asked[partition][0])
        self._asked[partition] = (from_sequence, next(_tickets))

    def ask_on(self, partition: int) -> None:
        """Ask for what was committed since the log was opened too, of a partition that waits."""
        self._asked[partition] = (max(self.reached_us, self._asked[partition][0]), next(_tickets))

    def forget(self, partition: int) -> None:
        """The partition is not held any more."""
        self._asked.pop(partition, None)

    async def run(self, evaluations: Mapping[str, Evaluation], passed: Callable[[int], Awaitable[None]]) -> None:
        """Fold the log for the partitions that wait now.

        Args:
            evaluations: The workspaces.
            passed: Waits until time has passed up to a moment.
        """
        order = dict(self._asked)
        if not order:
            return
        begin = min(sequence for sequence, _ in order.values()) - self._margin_us
        await self._reassign(evaluations, order, begin)
        with ExitStack() as reading:
            newer = {w: reading.enter_context(e.reassigned_meanwhile()) for w, e in evaluations.items()}
            count = await self._read(evaluations, order, begin, newer, passed)
        for partition, asked in order.items():
            if self._asked.get(partition) == asked:
                del self._asked[partition]
        log.info("the log was folded", partitions=len(order), events=count)

    async def _read(
        self,
        evaluations: Mapping[str, Evaluation],
        order: Mapping[int, tuple[int, int]],
        begin: int,
        newer: Mapping[str, Set[str]],
        passed: Callable[[int], Awaitable[None]],
    ) -> int:
        """Fold what the log has from a moment on; returns the number of events that were read."""
        survivors: dict[str, Survivors] = {}
        events: list[ResolvedEvent] = []
        count = 0
        async for resolved in event_log.events_between(self._db, begin, END):
            workspace_id = resolved.event.workspace_id
            if workspace_id not in newer:
                continue
            if workspace_id not in survivors:
                survivors[workspace_id] = await self._reader.survivors(workspace_id)
            events.append(resolved)
            count += 1
            if len(events) >= self._chunk:
                await self._fold(evaluations, order, events, survivors, newer)
                self.reached_us = max(self.reached_us, events[-1].decision.sequence - 1)
                await passed(self.reached_us)
                events = []
        await self._fold(evaluations, order, events, survivors, newer)
        for evaluation in evaluations.values():
            evaluation.touch()
        return count

    async def _reassign(
        self, evaluations: Mapping[str, Evaluation], order: Mapping[int, tuple[int, int]], begin: int
    ) -> None:
        """Fold anew the profiles that were reassigned since, as the last reassignment says."""
        told: dict[str, list[Reassignment]] = defaultdict(list)
        async for stored in event_log.reassignments_since(self._db, begin):
            told[stored.workspace_id] += reassignments.as_messages(stored)
        for workspace_id, of_workspace in told.items():
            evaluation = evaluations.get(workspace_id)
            if evaluation is not None:
                newest = reassignments.newest(evaluation.engine, of_workspace, order, self._partition_of)
                clock_us = evaluation.engine.clock_us
                await reassignments.follow(self._db, evaluation, newest, self._lock, self._partition_of, clock_us)

    async def _fold(
        self,
        evaluations: Mapping[str, Evaluation],
        order: Mapping[int, tuple[int, int]],
        events: list[ResolvedEvent],
        survivors: Mapping[str, Survivors],
        newer: Mapping[str, Set[str]],
    ) -> None:
        by_workspace: dict[str, tuple[list[ResolvedEvent], list[Merge]]] = defaultdict(lambda: ([], []))
        for resolved in events:
            workspace_id = resolved.event.workspace_id
            own, announced = by_workspace[workspace_id]
            announced += [
                m
                for m in resolved.decision.merges
                if self._partition_of(m.loser) in order or self._partition_of(m.survivor) in order
            ]
            resolved.profile_id = survivors[workspace_id].of(resolved.profile_id)
            if resolved.profile_id and self._partition_of(resolved.profile_id) in order:
                own.append(resolved)
        for workspace_id, (own, announced) in by_workspace.items():
            evaluation = evaluations.get(workspace_id)
            if evaluation is None:
                continue
            known = survivors[workspace_id]
            loaded = await merges.load(self._db, evaluation, announced, order, self._partition_of, known)
            async with self._lock:
                if evaluations.get(workspace_id) is not evaluation:
                    continue
                held = {p for p in order if p in evaluation.missing}
                overtaken = newer[workspace_id]
                present = [e for e in own if self._partition_of(e.profile_id) in held and e.profile_id not in overtaken]
                clock_us = evaluation.engine.clock_us
                await in_thread(evaluation.engine.fold, present, now_us=clock_us)
                merges.apply(evaluation, loaded.without(overtaken), held, self._partition_of, clock_us)


class SentFloor:
    """A moment before which everything that is in the log was sent on its stream.

    Identity stores events and reassignments, then sends them; when it ends in between, it sends them when it is
    back. Until then they are in the log with an old sequence and yet to come on the stream, and a mark must not
    pass them.
    """

    def __init__(self, db: Database, margin_us: int) -> None:
        """Look at a database; at first as far back as late commits may be."""
        self._db = db
        self._margin_us = margin_us
        self._floor_us = 0
        self._looked_at = 0

    async def at(self, now: int) -> int:
        """The moment, as it is known at another one."""
        if now - self._looked_at >= FLOOR_EVERY_US:
            self._floor_us = await sent_until(self._db, self._floor_us or now - self._margin_us, now)
            self._looked_at = now
        return self._floor_us


async def sent_until(db: Database, since: int, now: int) -> int:
    """A moment before which everything in the log was sent on its stream, when that is known up to `since`."""
    # A segment that cannot be finished must not make every look longer than the one before.
    begin = max(since, now - FLOOR_LIMIT_US)
    unfinished = await event_log.unfinished_segments(
        db, time_ordered_floor(begin - MINUTE_US), time_ordered_floor(now), 1
    )
    floor = min(now, time_ordered_us(unfinished[0])) if unfinished else now
    for reassignment in await event_log.unsent_reassignments(db, 1):
        floor = min(floor, reassignment.sequence)
    return floor
