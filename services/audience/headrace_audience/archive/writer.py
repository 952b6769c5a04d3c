"""Copies the log into the archive, by one replica at a time.

The position is a sequence number, the watermark. Events are copied when they are some seconds old, and behind the
watermark is looked again for those whose transaction was committed late. A crash between a file and the commit of its
row leaves a file that nobody sees.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from pymongo import ASCENDING

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs, metrics
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.registry import ArchiveFile, Listing, Recent, Registry

log = logs.get_logger(__name__)

CHUNK = 100_000
"""Events that are held in memory and committed at a time."""

_archived = metrics.counter("headrace_audience_archived_events", "Events copied from the log into the archive.")


class ArchiveWriter:
    """Writes the archive under one fencing token; make a new one after an error or for a new token."""

    def __init__(
        self, db: Database, registry: Registry, files: Files, *, token: int, settle_us: int, margin_us: int
    ) -> None:
        """Write as the holder of a lease.

        Args:
            db: Database with the log.
            registry: Which files are valid.
            files: Where files go.
            token: Fencing token of the lease.
            settle_us: Age at which an event is copied, in microseconds.
            margin_us: How far behind the watermark to look for events that were committed late, in microseconds.
        """
        self._db = db
        self._registry = registry
        self._files = files
        self._token = token
        self._settle_us = settle_us
        self._margin_us = margin_us
        self._watermark = -1
        self._recent: set[int] = set()

    @property
    def watermark(self) -> int:
        """The sequence below which the log is copied; -1 before the first run."""
        return self._watermark

    async def run_once(self) -> int:
        """Copy what is due; returns the number of events.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
        """
        if self._watermark < 0:
            await self._claim()
        upto = max(now_us() - self._settle_us, self._watermark)
        count = 0
        chunk = await self._late()
        query: Document = {"s": {"$gte": self._watermark, "$lt": upto}}
        async for document in self._db[event_log.EVENTS].find(query).sort("s", ASCENDING):
            chunk.append(event_log.resolved_event(document))
            if len(chunk) >= CHUNK:
                count += await self._write(chunk, document["s"] + 1)
                chunk = []
        return count + await self._write(chunk, upto)

    async def _claim(self) -> None:
        """Take over: which events just behind the watermark are copied is read from the files themselves.

        Files may be gone, with a folder that was lost or changed, or of another program's format; the log has
        everything, so the archive starts again.
        """
        watermark, found_format = await self._registry.claim(self._token)
        listing = await self._registry.listing()
        missing = {f.path for f in listing.files} - await asyncio.to_thread(self._paths)
        if missing:
            log.error("files of the archive are missing, all is written again from the log", count=len(missing))
        elif found_format != layout.FORMAT:
            log.warning("the archive has another format, all is written again from the log", format=found_format)
        if missing or found_format != layout.FORMAT:
            await self._registry.start_again(self._token)
            watermark, listing = 0, Listing(0, ())
        floor = watermark - self._margin_us
        for file in listing.files:
            if file.kind == layout.EVENTS and file.last > floor:
                table = await asyncio.to_thread(self._files.read, file.path, ["sequence"])
                self._recent.update(s for s in table.column("sequence").to_pylist() if s >= floor)
        self._watermark = watermark

    def _paths(self) -> set[str]:
        return {path for path, _ in self._files.list()}

    async def _late(self) -> list[ResolvedEvent]:
        """Events behind the watermark that were not yet committed when it passed them."""
        query: Document = {"s": {"$gte": self._watermark - self._margin_us, "$lt": self._watermark}}
        events = self._db[event_log.EVENTS]
        there = [d["s"] async for d in events.find(query, {"_id": 0, "s": 1}).hint("sequence")]
        missing = [s for s in there if s not in self._recent]
        self._recent.intersection_update(there)  # some may have been erased
        if not missing:
            return []
        log.info("events were committed late", count=len(missing))
        return [event_log.resolved_event(d) async for d in events.find({"s": {"$in": missing}})]

    async def _write(self, events: Sequence[ResolvedEvent], watermark: int) -> int:
        added: list[ArchiveFile] = []
        by_day: dict[tuple[str, str], list[ResolvedEvent]] = defaultdict(list)
        merging: dict[str, list[ResolvedEvent]] = defaultdict(list)
        for resolved in events:
            workspace_id = resolved.event.workspace_id
            by_day[workspace_id, layout.day_of(resolved.event.timestamp_us)].append(resolved)
            if resolved.decision.merges:
                merging[workspace_id].append(resolved)
        for (workspace_id, day), own in sorted(by_day.items()):
            added.append(await asyncio.to_thread(self._file, layout.EVENTS, workspace_id, day, own, watermark))
        for workspace_id, own in sorted(merging.items()):
            added.append(await asyncio.to_thread(self._file, layout.MERGES, workspace_id, "", own, watermark))
        floor = watermark - self._margin_us
        recent = {s for s in (*self._recent, *(r.decision.sequence for r in events)) if s >= floor}
        if added or watermark > self._watermark:
            stored = Recent(floor, np.sort(np.fromiter(recent, np.int64, len(recent))))
            await self._registry.commit(self._token, added, watermark=watermark, recent=stored)
        self._watermark = watermark
        self._recent = recent
        for workspace_id in sorted({f.workspace_id for f in added}):
            await publish_manifest(self._registry, self._files, workspace_id)
        _archived.add(len(events))
        return len(events)

    def _file(
        self, kind: str, workspace_id: str, day: str, events: Sequence[ResolvedEvent], watermark: int
    ) -> ArchiveFile:
        first = min(r.decision.sequence for r in events)
        path = layout.path_of(kind, workspace_id, day, first, watermark, self._token, 0)
        table = layout.event_table(events) if kind == layout.EVENTS else layout.merge_table(events)
        size = self._files.write(path, table, layout.SORT_KEYS[kind])
        return ArchiveFile(path, kind, workspace_id, day, first, watermark, 0, table.num_rows, size)


async def publish_manifest(registry: Registry, files: Files, workspace_id: str) -> None:
    """Write the list of a workspace's valid files for readers that have no access to the database."""
    listing = await registry.listing(workspace_id)
    content = {
        "watermark": listing.watermark,
        "events": sorted(f.path for f in listing.files if f.kind == layout.EVENTS),
        "merges": sorted(f.path for f in listing.files if f.kind == layout.MERGES),
    }
    text = json.dumps(content, indent=1).encode()
    await asyncio.to_thread(files.write_bytes, f"manifests/workspace={workspace_id}.json", text)
