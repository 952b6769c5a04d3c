"""The archive on a folder, with all that writes and reads it, and a world whose log it is a copy of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from headrace_audience.archive.compactor import Compactor
from headrace_audience.archive.files import Files
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import Registry
from headrace_audience.archive.rewriter import Rewriter
from headrace_audience.archive.writer import ArchiveWriter

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from tests.support.reassigned import Stores, World

MARGIN = 300 * SECOND_US


class Archive:
    """All parts on one folder, and a world that is written to the log."""

    def __init__(self, mongo: Client, db: Database, redis: Redis, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(mongo, db)
        self.files = Files(str(folder))
        self.reader = ArchiveReader(db, self.registry, self.files, margin_us=MARGIN)
        self.writer = ArchiveWriter(db, self.registry, self.files, token=1, settle_us=0, margin_us=MARGIN)
        self.compactor = Compactor(self.registry, self.files, token=1, at_least=3, grace_s=3_600.0)
        self.rewriter = Rewriter(db, self.registry, self.files, token=1)
        self.world = World(4, clock=now_us)
        self.stores = Stores(self.world, db, redis)

    async def seen(self) -> set[tuple[str, str]]:
        """(profile, message id) of what a reader sees."""
        async with self.reader.open("acme") as view:
            rows = await view.run(lambda c: c.execute("SELECT DISTINCT profile, message_id FROM events").fetchall())
        return set(rows)

    def true(self) -> set[tuple[str, str]]:
        """The same, as the world knows it."""
        return {(self.world.survivor(e.profile_id), m) for m, e in self.world.log.items()}

    async def valid(self, kind: str, *columns: str) -> set[tuple[Any, ...]]:
        """Rows of the valid files of a kind."""
        found: set[tuple[Any, ...]] = set()
        for file in (await self.registry.listing()).files:
            if file.kind == kind:
                table = self.files.read(file.path)
                found.update(zip(*(table[c].to_pylist() for c in columns), strict=True))
        return found

    def on_disk(self, column: str) -> set[str]:
        """Values of a column in all files there are, valid or not."""
        found: set[str] = set()
        for path in self.folder.rglob("*.parquet"):
            table = pq.read_table(path, partitioning=None)
            if column in table.column_names:
                found.update(table[column].to_pylist())
        return found
