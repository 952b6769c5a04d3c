"""Brings history into an evaluation: from archive and log, by the batch evaluator, while live traffic flows.

What is brought is everything that was committed before the view was opened; everything later comes on the streams,
which are folded all the time. An event that comes both ways counts once.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set

import duckdb

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs, metrics
from headrace_audience.archive.reader import ArchiveReader, View
from headrace_audience.batch import queries
from headrace_audience.batching import batched
from headrace_audience.definitions.catalog import Audience
from headrace_audience.definitions.references import referenced_whole
from headrace_audience.engine.states import PROFILES
from headrace_audience.evaluation import Evaluation, Order
from headrace_audience.threads import in_thread

log = logs.get_logger(__name__)

_seconds = metrics.histogram(
    "headrace_audience_fill_seconds", "Time in seconds to bring the missing history of one workspace."
)
_failures = metrics.counter(
    "headrace_audience_fill_failures", "Parts of a history that could not be evaluated.", without_labels=True
)

FAILED_PAUSE_S = 5.0
UNSETTLED_PAUSE_S = 0.5
"""Until one whose named audiences were being refreshed is looked at again."""
MEMBERS_AT_A_TIME = 20_000
CLOCK_LOOKS = 150
"""A clock that stands because its stream lags is waited for so often, 20 ms each."""


class Backfill:
    """Brings what evaluations miss."""

    def __init__(
        self, db: Database, reader: ArchiveReader, lock: asyncio.Lock, partition_of: Callable[[str], int]
    ) -> None:
        """Bring history.

        Args:
            db: Database.
            reader: Archive and log.
            lock: Held by whoever uses an engine.
            partition_of: Gives the partition of a profile.
        """
        self._db = db
        self._reader = reader
        self._lock = lock
        self._partition_of = partition_of

    async def bring(self, evaluation: Evaluation) -> None:
        """Bring all that is missing at this moment."""
        order = evaluation.order()  # first: what is asked for after the view was opened needs another view
        if order is None:
            return
        began = time.monotonic()
        with evaluation.reassigned_meanwhile() as newer:
            failed = await self._bring(evaluation, order, newer)
        seconds = time.monotonic() - began
        _seconds.record(seconds)
        log.info(
            "history was folded",
            workspace=evaluation.workspace_id,
            states=len(order.tickets),
            partitions=len({p for tickets in order.tickets.values() for p in tickets}),
            batch=len(order.batch),
            failed=failed,
            seconds=round(seconds, 3),
        )
        if failed:
            await asyncio.sleep(FAILED_PAUSE_S)

    async def _bring(self, evaluation: Evaluation, order: Order, newer: Set[str]) -> int:
        """Bring what was ordered; returns how many parts of it failed."""
        async with self._reader.open(evaluation.workspace_id) as view:
            clock_us = await self._clock(evaluation)
            if PROFILES in order.tickets:
                await self._merges(evaluation, order, view, newer)
            failed = 0
            for key in sorted(order.tickets):
                failed += await self._apart(self._key(evaluation, order, view, key, clock_us, newer))
            began = time.monotonic()
            for audience_id in sorted(order.batch):
                failed += await self._apart(self._batch_audience(evaluation, order, view, audience_id))
            if any(audience.is_kept_up for audience, _ in order.batch.values()):
                evaluation.behind.rest(now_us(), time.monotonic() - began)
        return failed

    async def _clock(self, evaluation: Evaluation) -> int:
        """The engine's clock, once it has passed the view: what is in the view is then no event of the future."""
        opened_us = now_us()
        for _ in range(CLOCK_LOOKS):
            if evaluation.engine.clock_us >= opened_us:
                break
            await asyncio.sleep(0.02)
        return evaluation.engine.clock_us

    async def _apart(self, work: Awaitable[None]) -> bool:
        """Do a part of the work; returns whether it failed. One that fails is asked for again and holds up no other."""
        try:
            await work
        except (duckdb.Error, ArithmeticError, ValueError) as error:
            log.exception("a part of the history cannot be evaluated", kind=type(error).__name__)
            _failures.add(1)
            return True
        return False

    async def _merges(self, evaluation: Evaluation, order: Order, view: View, newer: Set[str]) -> None:
        """Let partitions that start without a snapshot know who was merged, so that stragglers are recognised."""
        async with self._lock:
            partitions = set(evaluation.still_wanted(PROFILES, order.tickets[PROFILES]))
            pairs = ((loser, survivor) for loser, survivor in view.survivors.pairs() if loser not in newer)
            await in_thread(self._merge_all, evaluation, partitions, pairs)

    def _merge_all(self, evaluation: Evaluation, partitions: set[int], pairs: Iterable[tuple[str, str]]) -> None:
        for loser, survivor in pairs:
            if self._partition_of(loser) in partitions:
                evaluation.engine.merge(loser, survivor)

    async def _key(
        self, evaluation: Evaluation, order: Order, view: View, key: str, clock_us: int, newer: Set[str]
    ) -> None:
        if not evaluation.still_wanted(key, order.tickets[key]):
            return
        table = await view.run(functools.partial(queries.condition_history, key=key, now_us=clock_us))
        async with self._lock:
            partitions = evaluation.still_wanted(key, order.tickets[key])
            if partitions:
                await in_thread(evaluation.engine.fold_history, key, table, partitions=partitions, without=newer)
                evaluation.brought(key, partitions)

    async def _batch_audience(self, evaluation: Evaluation, order: Order, view: View, audience_id: str) -> None:
        audience, tickets = order.batch[audience_id]
        definition, at_us = audience.definition, audience.at_us
        known = await referenced_whole(self._db, evaluation.workspace_id, definition)
        if known is None:  # it is still asked for
            await asyncio.sleep(UNSETTLED_PAUSE_S)
            return
        members = await view.run(
            functools.partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
        )
        turns_us = None
        if audience.is_kept_up:
            turns = functools.partial(queries.next_moment, definition=definition, now_us=at_us, audiences=known)
            turns_us = await view.run(turns)
        await self._tell(evaluation, audience, tickets, members, turns_us)

    async def _tell(
        self,
        evaluation: Evaluation,
        audience: Audience,
        tickets: Mapping[int, int],
        members: Iterable[str],
        turns_us: int | None,
    ) -> None:
        """Tell an evaluation who is in a batch audience, some at a time: it has other things to do meanwhile."""
        found: dict[int, list[str]] = defaultdict(list)
        for some in batched(members, MEMBERS_AT_A_TIME):
            async with self._lock:
                divided = await in_thread(evaluation.divided, audience, some)
            for partition, own in divided.items():
                found[partition] += own
        for partition, ticket in sorted(tickets.items()):
            async with self._lock:
                await in_thread(
                    evaluation.batch_computed,
                    audience.audience_id,
                    audience.generation,
                    {partition: ticket},
                    found[partition],
                    turns_us,
                )
