"""Opens the events of a workspace as one relation: the archive, and from the log what is not in it yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.moved import StoredMerge, follow
from headrace_audience.archive.registry import ArchiveFile, Listing, Registry
from headrace_audience.archive.samples import EVERYBODY, SHARES, sample_of
from headrace_audience.archive.survivors import Survivors
from headrace_audience.archive.view import COLUMNS, archived_sql, create_events, mentions_sql, merged_table
from headrace_audience.batching import batched
from headrace_audience.threads import to_the_end

T = TypeVar("T")

END = 2**63 - 1
"""A sequence after all others."""
_TAIL_FIELDS = {"_id": 0, "p": 1, "t": 1, "n": 1, "e": 1, "d": 1}
_TAIL_CHUNK = 5_000
_QUERIES_AT_A_TIME = 2
_PROFILES_AT_A_TIME = 1_000
_INTERRUPT_EVERY_S = 0.05
_ROWS_IN_MEMORY = 500_000
"""A sample of so many events is read into memory: some 200 MB of the memory that one query may take."""
_WORKSPACES_KEPT = 16
"""Merges in the files of so many workspaces are kept in memory: they are needed for each question, and may be many."""


@dataclass(frozen=True)
class View:
    """Everything that was known of a workspace at one moment."""

    connection: duckdb.DuckDBPyConnection
    """Has the relation `events`, as headrace_audience.batch.queries describes it; and `written`, which has its columns:
    everybody's events as they were written, also when this is a sample, by the profile of before later merges. What
    `mentions` has, see headrace_audience.batch.groups, is in `written_of_groups` in the same way."""
    survivors: Survivors
    """All merges."""

    async def run(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run a blocking query in a thread. When the caller is cancelled, the query is interrupted."""
        return await interruptibly(self.connection, partial(query, self.connection))


async def interruptibly(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Do something with a connection in a thread; when the caller is cancelled, its queries are interrupted.

    An interruption is lost when no query runs in that moment, and refused while one begins: so it is repeated.
    """
    loop = asyncio.get_running_loop()
    done = False

    def interrupt() -> None:
        if not done:
            with contextlib.suppress(duckdb.Error):
                connection.interrupt()
            loop.call_later(_INTERRUPT_EVERY_S, interrupt)

    try:
        return await to_the_end(asyncio.to_thread(work), on_cancel=interrupt)
    finally:
        done = True


@dataclass(frozen=True)
class Events:
    """The events of a workspace, to be looked at."""

    rows: int
    """About how many there are."""
    written: View
    """Has the relation `written` at all times, whatever is shown."""
    view: Callable[[int], Awaitable[View]]
    """Shows those of a sample of people, see `samples`, in place of those shown before; EVERYBODY shows all."""


@dataclass(frozen=True)
class Content:
    """What is known of a workspace, and where."""

    paths: tuple[str, ...]
    """Files of events, below the archive's root."""
    tail: pa.Table
    """What is not in the files, or not as it is now."""
    survivors: Survivors
    moved: Collection[str]
    """Profiles whose rows in the files are out of date."""
    rows: int = 0
    """About how many events there are, as far as that is known."""

    def merged(self) -> pa.Table:
        """Every loser beside its survivor."""
        return merged_table(self.survivors.pairs())

    def strangers(self, sample: int) -> list[str]:
        """Parts of people in a sample that are not in it themselves: the sample's rows lack them."""
        pairs = self.survivors.pairs()
        return sorted(loser for loser, now in pairs if sample_of(now) <= sample < sample_of(loser))


class ArchiveReader:
    """Reads the archive together with the tail of the log."""

    def __init__(
        self,
        db: Database,
        registry: Registry,
        files: Files,
        *,
        margin_us: int,
        threads: int = 2,
        memory_mb: int = 1_024,
    ) -> None:
        """Read.

        Args:
            db: Database with the log.
            registry: Which files are valid.
            files: The files.
            margin_us: How far behind the watermark events may be missing in the files, in microseconds.
            threads: Threads of one query.
            memory_mb: Memory of one query, in MiB; beyond it DuckDB uses temporary files.
        """
        self._db = db
        self._registry = registry
        self._files = files
        self._margin_us = margin_us
        self._threads = threads
        self._memory_mb = memory_mb
        self._slots = asyncio.Semaphore(_QUERIES_AT_A_TIME)
        self._looks = asyncio.Semaphore(_QUERIES_AT_A_TIME)
        self._merges: dict[str, dict[str, list[StoredMerge]]] = {}

    @asynccontextmanager
    async def open(self, workspace_id: str) -> AsyncIterator[View]:
        """Open the events of a workspace, for two callers at a time.

        Everything that was committed to the log before the call is in it.
        """
        async with self._slots:
            content = await self.content(workspace_id)
            connection = await asyncio.to_thread(self._connect, content)
            try:
                tail, moved = content.tail, content.moved
                make = partial(create_events, connection, self._files, content.paths, tail, moved, content.merged())
                await asyncio.to_thread(make)
                yield View(connection, content.survivors)
            finally:
                await asyncio.to_thread(connection.close)

    @asynccontextmanager
    async def look(self, workspace_id: str) -> AsyncIterator[Events]:
        """Read what there is of a workspace, to look at samples of it, for two callers at a time.

        They do not wait for those of `open`, whose queries may take minutes.
        """
        async with self._looks:
            content = await self.content(workspace_id)
            connection = await asyncio.to_thread(self._connect, content)
            merged = await asyncio.to_thread(content.merged)

            async def view(sample: int) -> View:
                tail = content.tail
                if sample != EVERYBODY:
                    strangers = await asyncio.to_thread(content.strangers, sample)
                    tail = pa.concat_tables([tail, await self._of_profiles(workspace_id, strangers)])
                is_small = content.rows * SHARES[sample] <= _ROWS_IN_MEMORY
                make = partial(create_events, connection, self._files, content.paths, tail, content.moved, merged)
                await interruptibly(connection, partial(make, sample=sample, in_memory=is_small))
                return View(connection, content.survivors)

            try:
                yield Events(content.rows, View(connection, content.survivors), view)
            finally:
                await asyncio.to_thread(connection.close)

    async def content(self, workspace_id: str) -> Content:
        """What open() opens, for who reads the files elsewhere."""
        return await self._read(workspace_id, with_events=True)

    async def survivors(self, workspace_id: str) -> Survivors:
        """All merges of a workspace that are valid and were committed before the call."""
        return (await self._read(workspace_id, with_events=False)).survivors

    async def _read(self, workspace_id: str, *, with_events: bool) -> Content:
        """Read files and log until no events were assigned anew in between: then all of it fits together."""
        while True:
            # The files first: what is copied meanwhile is then in both, and that is harmless.
            listing = await self._registry.listing(workspace_id)
            followed = listing.followed.get(workspace_id, -1)
            told = [r async for r in event_log.reassignments_since(self._db, followed + 1, workspace_id)]
            tail, merges = await self._tail(workspace_id, listing, erased=any(r.erased for r in told))
            merges += await asyncio.to_thread(self._merges_of, workspace_id, listing.files)
            survivors, moved = follow(merges, told)
            anew = [await self._of_profiles(workspace_id, moved)] if moved and with_events else []
            newer: Document = {"s": {"$gt": told[-1].sequence if told else followed}, "w": workspace_id}
            if await self._db[event_log.REASSIGNMENTS].find_one(newer, {"_id": 1}) is None:
                paths = tuple(f.path for f in listing.files if f.kind == layout.EVENTS)
                rows = sum(f.rows for f in listing.files if f.kind == layout.EVENTS)
                return Content(paths, pa.concat_tables([tail, *anew]), survivors, moved, rows + tail.num_rows)

    async def _tail(self, workspace_id: str, listing: Listing, *, erased: bool) -> tuple[pa.Table, list[StoredMerge]]:
        """Events that are not in the files, and the merges that they caused."""
        late = await self._late(listing, erased=erased)
        floor = listing.watermark if late is not None else listing.watermark - self._margin_us
        queries: list[Document] = [{"s": {"$gte": floor}, "w": workspace_id}]
        if late:
            queries.append({"s": {"$in": late}, "w": workspace_id})
        return await self._table(queries)

    async def _of_profiles(self, workspace_id: str, profile_ids: Iterable[str]) -> pa.Table:
        """Events that the log has of some profiles, whether they are in the files or not."""
        queries: list[Document] = [
            {"p": {"$in": some}, "w": workspace_id} for some in batched(sorted(profile_ids), _PROFILES_AT_A_TIME)
        ]
        table, _ = await self._table(queries)
        return table

    async def _table(self, queries: Iterable[Document]) -> tuple[pa.Table, list[StoredMerge]]:
        tables = [layout.TAIL_SCHEMA.empty_table()]
        merges: list[StoredMerge] = []
        chunk: list[Document] = []

        async def convert() -> None:
            table, found = await asyncio.to_thread(layout.tail_table, chunk)
            tables.append(table)
            merges.extend(found)
            chunk.clear()

        for query in queries:
            async for document in self._db[event_log.EVENTS].find(query, _TAIL_FIELDS):
                chunk.append(document)
                if len(chunk) >= _TAIL_CHUNK:
                    await convert()
        await convert()
        return pa.concat_tables(tables), merges

    async def _late(self, listing: Listing, *, erased: bool) -> list[int] | None:
        """Sequences below the watermark that were committed after the files were written; None: unknown.

        As many as the files hold means that there are none, and counting an index is cheap; but not when some were
        erased since.
        """
        recent = listing.recent
        if recent is None:
            return None
        events = self._db[event_log.EVENTS]
        query: Document = {"s": {"$gte": recent.floor, "$lt": listing.watermark}}
        if not erased and await events.count_documents(query, hint="sequence") == len(recent.sequences):
            return []
        there = [d["s"] async for d in events.find(query, {"_id": 0, "s": 1}).hint("sequence")]
        missing = np.setdiff1d(np.array(there, np.int64), recent.sequences)
        return [int(s) for s in missing]

    def _merges_of(self, workspace_id: str, files: Iterable[ArchiveFile]) -> list[StoredMerge]:
        """The merges of files. A file never changes, so those that were read for the last call are not read again."""
        known = self._merges.get(workspace_id, {})
        found = {f.path: known.get(f.path) or stored_merges(self._files, f) for f in files if f.kind == layout.MERGES}
        self._merges[workspace_id] = found
        while len(self._merges) > _WORKSPACES_KEPT:
            self._merges.pop(next(iter(self._merges)), None)
        return [merge for merges in found.values() for merge in merges]

    def _connect(self, content: Content) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(
            config={
                "threads": self._threads,
                "memory_limit": f"{self._memory_mb}MiB",
                "autoload_known_extensions": False,
            }
        )
        connection.execute("SET enable_progress_bar = false")  # it would write between the lines of the service's log
        connection.execute("SET parquet_metadata_cache = true")  # a statement reads the files several times
        connection.register("log_written", content.tail)
        sources = ["log_written", archived_sql(connection, self._files, content.paths)]
        written = " UNION ALL ".join(f"SELECT {COLUMNS} FROM {source}" for source in sources if source)  # noqa: S608
        connection.execute(f"CREATE VIEW written AS SELECT * EXCLUDE (sample) FROM ({written})")  # noqa: S608
        of_groups = " UNION ALL ".join(mentions_sql(source) for source in sources if source)
        connection.execute(f"CREATE VIEW written_of_groups AS {of_groups}")
        return connection


def stored_merges(files: Files, file: ArchiveFile) -> list[StoredMerge]:
    """The merges of a file."""
    table = files.read(file.path, ["sequence", "loser", "survivor"])
    columns = (table[name].to_pylist() for name in ("sequence", "loser", "survivor"))
    return list(map(StoredMerge, *columns))
