"""Writes files of the archive anew when events were assigned anew or people are erased.

Both are the same work: rows are left out of the files that have them, and rows as the log has them now are added, in
one change of the registry. Files of erased people are removed from the disk at once, with all that were replaced before
and all that a crash left behind; a query that reads them in this moment fails and is asked again.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import event_key
from headrace.domain.times import MINUTE_US, now_us
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.moved import StoredMerge, follow
from headrace_audience.archive.reader import END, stored_merges
from headrace_audience.archive.registry import ArchiveFile, Registry
from headrace_audience.archive.writer import publish_manifest
from headrace_audience.batching import batched

log = logs.get_logger(__name__)

CHUNK = 100_000
"""Events that are held in memory at a time."""
IDS_AT_A_TIME = 1_000
LATE_US = 5 * MINUTE_US
"""A reassignment may be committed so long after a later one of another workspace; transactions are much shorter."""


@dataclass
class _Change:
    """What changes in one workspace."""

    workspace_id: str
    profiles: Mapping[str, int]
    """Profiles whose rows are left out; of their merges only those with a lower sequence than this."""
    message_ids: frozenset[str] = frozenset()
    """Events whose rows are left out, of whichever profile."""
    revision: int = field(default_factory=now_us)
    added: list[ArchiveFile] = field(default_factory=list)
    retired: list[ArchiveFile] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    """Message ids of the rows that were added."""
    rows: int = 0
    """Rows that were left out."""

    def void(self, merges: pa.Table) -> pa.ChunkedArray:
        """Which rows of a table of merges are left out, or put in again as the log has them."""
        losers, sequences = merges["loser"].to_pylist(), merges["sequence"].to_pylist()
        void = [sequence < self.profiles.get(loser, 0) for loser, sequence in zip(losers, sequences, strict=True)]
        return pa.chunked_array([pa.array(void, pa.bool_())])


class Rewriter:
    """Writes files anew under the writer's fencing token; not beside the writer or the compactor."""

    def __init__(self, db: Database, registry: Registry, files: Files, *, token: int) -> None:
        """Write as the holder of a lease.

        Args:
            db: Database with the log.
            registry: Which files are valid.
            files: The files.
            token: Fencing token of the lease, claimed by the writer.
        """
        self._db = db
        self._registry = registry
        self._files = files
        self._token = token
        self._seen = 0

    async def follow(self) -> int:
        """Take over all reassignments that the files do not contain yet; returns the number of workspaces concerned.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
        """
        followed = (await self._registry.listing()).followed
        told: dict[str, list[event_log.StoredReassignment]] = defaultdict(list)
        async for stored in event_log.reassignments_since(self._db, self._seen - LATE_US):
            self._seen = max(self._seen, stored.sequence)
            if stored.sequence > followed.get(stored.workspace_id, -1):
                told[stored.workspace_id].append(stored)
        for workspace_id, reassignments in told.items():
            await self._reassign(workspace_id, reassignments)
        return len(told)

    async def _reassign(self, workspace_id: str, told: Sequence[event_log.StoredReassignment]) -> None:
        listing = await self._registry.listing(workspace_id)
        files, watermark = listing.files, listing.watermark
        merges: list[StoredMerge] = []
        for file in files:
            if file.kind == layout.MERGES:
                merges += await asyncio.to_thread(stored_merges, self._files, file)
        _, moved = follow(merges, told)
        change = _Change(workspace_id, moved)
        for some in batched(sorted(moved), IDS_AT_A_TIME):
            await self._add(change, {"p": {"$in": some}, "w": workspace_id, "s": {"$lt": watermark}})
        left_out = await self._leave_out(change, files)
        # Events that belong to nobody now are in none of these profiles.
        for ids in batched(sorted(left_out - change.written), IDS_AT_A_TIME):
            keys = [event_key(workspace_id, m) for m in ids]
            await self._add(change, {"_id": {"$in": keys}, "s": {"$lt": watermark}})
        await self._commit(change, erased=any(r.erased for r in told), followed=(workspace_id, told[-1].sequence))
        log.info("archive was written anew", workspace=workspace_id, profiles=len(moved), rows=change.rows)

    async def erase(self, workspace_id: str, profile_ids: Collection[str], message_ids: Collection[str]) -> int:
        """Remove what the files have of people; returns the number of rows.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
        """
        change = _Change(workspace_id, dict.fromkeys(profile_ids, END), frozenset(message_ids))
        await self._leave_out(change, (await self._registry.listing(workspace_id)).files)
        await self._commit(change, erased=True, followed=None)
        log.info("people were erased from the archive", workspace=workspace_id, rows=change.rows)
        return change.rows

    async def _add(self, change: _Change, query: Document) -> None:
        """Write the events of the log that a query finds."""
        chunk: list[ResolvedEvent] = []
        async for document in self._db[event_log.EVENTS].find(query):
            chunk.append(event_log.resolved_event(document))
            if len(chunk) >= CHUNK:
                await asyncio.to_thread(self._write, change, chunk)
                chunk = []
        await asyncio.to_thread(self._write, change, chunk)

    def _write(self, change: _Change, events: Sequence[ResolvedEvent]) -> None:
        by_place: dict[tuple[str, str], list[ResolvedEvent]] = defaultdict(list)
        for resolved in events:
            by_place[layout.EVENTS, layout.day_of(resolved.event.timestamp_us)].append(resolved)
            if resolved.decision.merges:
                by_place[layout.MERGES, ""].append(resolved)
        for (kind, day), own in by_place.items():
            if kind == layout.EVENTS:
                table = layout.event_table(own)
            else:
                merges = layout.merge_table(own)
                table = merges.filter(change.void(merges))
            if table.num_rows:
                sequences = [r.decision.sequence for r in own]
                self._put(change, kind, day, min(sequences), max(sequences) + 1, 0, table)
        change.written.update(r.event.message_id for r in events)

    async def _leave_out(self, change: _Change, files: Sequence[ArchiveFile]) -> set[str]:
        """Write files without what is to be left out; returns the message ids of such rows of events."""
        profiles = pa.array(list(change.profiles), pa.string())
        message_ids = pa.array(change.message_ids, pa.string())
        # An event that belonged to nobody when it was copied may belong to somebody now.
        written = pa.array(change.written, pa.string())

        def is_out(file: ArchiveFile) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
            is_events = file.kind == layout.EVENTS
            columns = ["profile", "message_id"] if is_events else ["loser", "sequence", "message_id"]
            table = self._files.read(file.path, columns)
            message_id = table["message_id"]
            out = pc.is_in(table["profile"], value_set=profiles) if is_events else change.void(table)
            out = pc.or_(out, pc.is_in(message_id, value_set=message_ids))
            if is_events:
                again = pc.and_(pc.equal(table["profile"], ""), pc.is_in(message_id, value_set=written))
                out = pc.or_(out, again)
            return out, message_id

        found: set[str] = set()
        for file in files:
            out, message_id = await asyncio.to_thread(is_out, file)
            count = int(pc.sum(out).as_py() or 0)
            if not count:
                continue
            change.rows += count
            change.retired.append(file)
            if file.kind == layout.EVENTS:
                found.update(message_id.filter(out).to_pylist())
            if count < len(out):
                kept = await asyncio.to_thread(
                    lambda path, o: self._files.read(path).filter(pc.invert(o)), file.path, out
                )
                put = functools.partial(self._put, change, file.kind, file.day, file.first, file.last, file.level)
                await asyncio.to_thread(put, kept)
        return found

    def _put(self, change: _Change, kind: str, day: str, first: int, last: int, level: int, table: pa.Table) -> None:
        change.revision += 1
        path = layout.path_of(kind, change.workspace_id, day, first, last, self._token, level, change.revision)
        size = self._files.write(path, table, layout.SORT_KEYS[kind])
        file = ArchiveFile(path, kind, change.workspace_id, day, first, last, level, table.num_rows, size)
        change.added.append(file)

    async def _commit(self, change: _Change, *, erased: bool, followed: tuple[str, int] | None) -> None:
        await self._registry.commit(self._token, change.added, retired=change.retired, followed=followed, fewer=erased)
        if erased:
            await self._clear(change.workspace_id)
        await publish_manifest(self._registry, self._files, change.workspace_id)

    async def _clear(self, workspace_id: str) -> None:
        """Remove all files of a workspace that are not valid from the disk, without waiting for queries."""
        retired = await self._registry.retired_of(workspace_id)
        await asyncio.to_thread(self._files.delete, retired)
        await self._registry.forget(retired)
        folders = tuple(f"{layout.folder_of(kind, workspace_id)}/" for kind in layout.SCHEMAS)
        there = await asyncio.to_thread(lambda: [p for p, _ in self._files.list() if p.startswith(folders)])
        for some in batched(there, IDS_AT_A_TIME):
            orphans = sorted(set(some) - await self._registry.known(some))
            await asyncio.to_thread(self._files.delete, orphans)
