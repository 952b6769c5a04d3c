"""Taking partitions: they are claimed, and what is stored of them is loaded, beside the loop that computes the others.

Nobody else changes what is read here: once a partition is claimed, an older owner writes nothing any more, and its
stream is not read before the loop has the partition. So what was read is right when the loop gets it, however long it
took. When the lease is lost meanwhile, or Redis, it is thrown away.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.definitions.catalog import Catalog
from headrace_audience.engine.engine import SnapshotError
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling.behind import Rest
from headrace_audience.memberships.flips import FlipWriter
from headrace_audience.partitions import streaming
from headrace_audience.partitions.cohort import Cohort
from headrace_audience.partitions.held import Held
from headrace_audience.partitions.incarnation import incarnation
from headrace_audience.partitions.snapshots import Head, SnapshotStore
from headrace_audience.partitions.streaming import Edges
from headrace_audience.settings import Settings

log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Taken:
    """Partitions that were taken together, with all that is stored of them."""

    cohort: Cohort
    incarnation: str
    """Of the Redis whose streams are to be read on."""


@dataclass(frozen=True)
class _Found:
    """What is known of the partitions before anything is loaded."""

    tokens: Mapping[int, int]
    incarnation: str
    edges: Mapping[int, Edges]
    asked_us: int
    heads: Mapping[int, Head]

    def is_kept(self, partition: int) -> bool:
        """Whether the stream has everything that came after the snapshot."""
        return self.heads[partition].is_kept(self.incarnation, self.edges[partition])


class Taking:
    """Takes partitions for a replica."""

    def __init__(
        self, db: Database, redis: Redis, reader: ArchiveReader, writer: FlipWriter, settings: Settings, rest: Rest
    ) -> None:
        """Take partitions.

        Args:
            db: Database.
            redis: Streams.
            reader: Archive and log.
            writer: Writes the flips of the partitions.
            settings: Settings of the service.
            rest: That of the replica from computing groups.
        """
        self._rest = rest
        self._db = db
        self._redis = redis
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._snapshots = SnapshotStore(db)

    async def take(self, tokens: Mapping[int, int]) -> Taken:
        """Take partitions under the tokens of their leases.

        Raises:
            FencedError: Some have a newer owner; the others are claimed, and nothing else.
            pymongo.errors.PyMongoError: The database cannot be reached; try again later.
            redis.exceptions.RedisError: The streams cannot be reached; try again later.
        """
        began = time.monotonic()
        incarnated = await incarnation(self._redis)
        edges = await streaming.edges(self._redis, tokens)
        asked_us = now_us()
        await self._writer.claim(tokens)
        found = _Found(tokens, incarnated, edges, asked_us, await self._snapshots.heads(tokens))
        cohort = Cohort(self._db, self._redis, self._reader, self._writer, self._settings, self._rest)
        stood = [head.moment_us for head in found.heads.values() if head.has_snapshot and head.moment_us]
        cohort.passing.take(stood, asked_us)
        # After the claim: what was decided before our tokens were there must not be overlooked.
        catalog = Catalog(self._db)
        await catalog.refresh(everything=True)
        await cohort.apply(catalog.by_workspace())
        empty: dict[str, list[int]] = defaultdict(list)
        for partition in tokens:
            for workspace_id in await self._load(cohort, partition, found):
                empty[workspace_id].append(partition)
        for workspace_id, evaluation in cohort.evaluations.items():
            if empty[workspace_id]:
                await cohort.recall(evaluation, empty[workspace_id])
            await cohort.tell_members(evaluation, list(evaluation.audiences), tokens)
        log.info(
            "partitions were taken",
            count=len(tokens),
            from_log=len(cohort.replay.waiting),
            seconds=round(time.monotonic() - began, 3),
        )
        return Taken(cohort, incarnated)

    async def _load(self, cohort: Cohort, partition: int, found: _Found) -> list[str]:
        """Load a partition; returns the workspaces of which there is nothing in its snapshot."""
        snapshot = await self._snapshots.load(partition)
        here, start_us, kept = found.edges[partition], found.heads[partition].moment_us, found.is_kept(partition)
        cohort.held[partition] = Held(
            token=found.tokens[partition],
            position=snapshot.position if snapshot is not None and kept else here.last,
            target=here.last,
            mark_us=snapshot.sequence if snapshot is not None else found.asked_us,
            start_us=start_us,
            follows=snapshot is not None and start_us >= cohort.passing.moment_us > 0,
            saved=time.monotonic(),
        )
        if snapshot is not None and not kept:
            cohort.replay.ask(partition, snapshot.sequence)
        states = snapshot.states if snapshot is not None else {}
        return [
            workspace_id
            for workspace_id, evaluation in cohort.evaluations.items()
            if not await _import(evaluation, partition, states.get(workspace_id))
        ]


async def _import(evaluation: Evaluation, partition: int, state: bytes | None) -> bool:
    """Take a snapshot in; returns whether there was one that can be read."""
    keys: frozenset[str] | None = None
    if state is not None:
        try:
            keys = await asyncio.to_thread(evaluation.engine.import_partition, partition, state)
        except SnapshotError:
            log.warning("a snapshot cannot be read: history is folded instead", partition=partition)
    evaluation.add_partition(partition, keys)
    return keys is not None
