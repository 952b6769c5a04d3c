"""The loop that writes the archive, on the one replica that holds its lease, and checks audiences by sample."""

from __future__ import annotations

import asyncio
import random
import time

import duckdb
import pyarrow as pa
from pymongo.errors import PyMongoError

from headrace.domain.definitions import DefinitionError
from headrace.domain.times import SECOND_US
from headrace.rpc.errors import WRONG_STATE, ApiError
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs, metrics
from headrace_audience.archive.compactor import Compactor
from headrace_audience.archive.files import Files
from headrace_audience.archive.registry import ArchiveFencedError, Registry
from headrace_audience.archive.rewriter import Rewriter
from headrace_audience.archive.writer import ArchiveWriter
from headrace_audience.checks.verify import Verifier
from headrace_audience.partitions.leases import Leases
from headrace_audience.people.erasure import follow_in_archive
from headrace_audience.settings import Settings
from headrace_audience.store import ACTIVE, AUDIENCES

log = logs.get_logger(__name__)

LOOK_S = 1.0
ORPHANS_EVERY_S = 6 * 3600.0

_failed = metrics.counter(
    "headrace_audience_failed_checks",
    "Background comparisons with the batch evaluator that came to no result.",
    without_labels=True,
)
_checks = metrics.counter(
    "headrace_audience_checks", "Audiences that were compared with the batch evaluator.", without_labels=True
)


class Archiving:
    """Writes and tidies the archive while this replica holds the lease."""

    def __init__(self, db: Database, registry: Registry, files: Files, leases: Leases, settings: Settings) -> None:
        """Write to files; the leases are kept alive by somebody else."""
        self._db = db
        self._registry = registry
        self._files = files
        self._leases = leases
        self._settings = settings

    @property
    def token(self) -> int | None:
        """Fencing token of the lease; None when it is elsewhere."""
        return self._leases.held.get(0)

    async def run(self) -> None:
        """Look whether the lease is here; write as long as it is. For ever."""
        while True:
            token = self.token
            if token is None:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self._work(token)
            except ArchiveFencedError:
                log.info("another replica writes the archive")
                await asyncio.sleep(LOOK_S)

    async def _work(self, token: int) -> None:
        settings = self._settings
        writer = ArchiveWriter(
            self._db,
            self._registry,
            self._files,
            token=token,
            settle_us=int(settings.archive_settle_seconds * SECOND_US),
            margin_us=int(settings.archive_margin_seconds * SECOND_US),
        )
        compactor = Compactor(
            self._registry,
            self._files,
            token=token,
            at_least=settings.archive_compact_files,
            grace_s=settings.archive_grace_seconds,
        )
        rewriter = Rewriter(self._db, self._registry, self._files, token=token)
        orphans_at = 0.0
        while self.token == token:
            count = await writer.run_once()
            await rewriter.follow()
            merged = await compactor.merge_small()
            await compactor.remove_retired()
            if not orphans_at or time.monotonic() - orphans_at > ORPHANS_EVERY_S:
                await compactor.remove_orphans()
                orphans_at = time.monotonic()
            if count or merged:
                log.info("archive was written", events=count, merged_files=merged)
            await self._pause(rewriter)

    async def _pause(self, rewriter: Rewriter) -> None:
        """Wait for the next run; somebody waits for people to be erased. A lease that goes meanwhile fences."""
        until = time.monotonic() + self._settings.archive_interval_seconds
        while (left := until - time.monotonic()) > 0:
            await follow_in_archive(self._db, rewriter)
            await asyncio.sleep(min(LOOK_S, left))


_FAILURES = (ApiError, DefinitionError, PyMongoError, duckdb.Error, pa.ArrowException, OSError)
"""What may go wrong with stores, the archive's files or a definition: the next check is another audience's."""
_DRAWN = 20
"""So many audiences are looked at for one that can be checked."""


class SampleCheck:
    """Compares one active audience, drawn by lot, with the batch evaluator now and then."""

    def __init__(self, db: Database, verifier: Verifier, leases: Leases, every_s: float, *, repair: bool) -> None:
        """Check on the replica that holds the archive's lease, every so many seconds; `repair` what is found."""
        self._db = db
        self._verifier = verifier
        self._leases = leases
        self._every_s = every_s
        self._repair = repair
        self._lots = random.Random()  # noqa: S311 - draws lots, not secrets

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(self._every_s * self._lots.uniform(0.5, 1.5))
            if 0 in self._leases.held:
                try:
                    await self.check_one()
                except _FAILURES as error:
                    _failed.add(1)
                    log.warning("an audience could not be checked", error=type(error).__name__)

    async def check_one(self) -> int | None:
        """Check one audience; returns the number of mismatches, None when there is no audience to check."""
        for workspace_id, audience_id in await self._draw():
            try:
                return await self._check(workspace_id, audience_id)
            except ApiError as error:
                if error.reason != WRONG_STATE:
                    raise
                # It changes at the moment, is being computed, or cannot be compared at all.
        return None

    async def _check(self, workspace_id: str, audience_id: str) -> int:
        found = await self._verifier.verify(workspace_id, audience_id, repair=self._repair)
        _checks.add(1)
        if found.mismatched:
            log.error(
                "an audience differs from the batch",
                workspace=workspace_id,
                audience=audience_id,
                mismatches=len(found.mismatched),
                corrected=found.corrected,
            )
        return len(found.mismatched)

    async def _draw(self) -> list[tuple[str, str]]:
        """Workspace and id of some active audiences by lot: the next is for when one cannot be checked."""
        match: Document = {"a": {"$exists": True}, "state": ACTIVE}
        drawn = await self._db[AUDIENCES].aggregate([{"$match": match}, {"$sample": {"size": _DRAWN}}])
        return [(document["w"], document["a"]) async for document in drawn]
