"""Which files of the archive are valid: rows in MongoDB, changed in transactions under the writer's fencing token.

A file counts from the moment its row is committed, together with the watermark, and stops counting when a transaction
retires it for the files that replace it. So readers see a compaction before or after, never half, and files that a
crash left behind are seen by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import zstandard
from bson.binary import Binary
from pymongo.errors import DuplicateKeyError, OperationFailure

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Client, Database, Document, transaction
from headrace_audience.archive.layout import FORMAT
from headrace_audience.store import ARCHIVE_FILES

HEAD = "head"
ATTEMPTS = 5


class ArchiveFencedError(Exception):
    """Another replica writes the archive now; nothing was changed."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A valid file."""

    path: str
    kind: str
    workspace_id: str
    day: str
    first: int
    """Lowest sequence that it may hold."""
    last: int
    """Sequence below which all its rows lie."""
    level: int
    rows: int
    size: int
    """In bytes."""

    def document(self) -> Document:
        """The stored form."""
        return {
            "_id": self.path,
            "k": self.kind,
            "w": self.workspace_id,
            "d": self.day,
            "f": self.first,
            "l": self.last,
            "v": self.level,
            "n": self.rows,
            "b": self.size,
            "live": True,
        }

    @staticmethod
    def of(document: Document) -> ArchiveFile:
        """From the stored form."""
        d = document
        return ArchiveFile(d["_id"], d["k"], d["w"], d["d"], d["f"], d["l"], d["v"], d["n"], d["b"])


@dataclass(frozen=True, slots=True)
class Listing:
    """What was valid at one instant."""

    watermark: int
    """All events with a lower sequence are in the files, but for those that were committed late."""
    files: tuple[ArchiveFile, ...]
    recent: Recent | None = None
    """What is in the files of the events just below the watermark; None: unknown."""
    followed: Mapping[str, int] = field(default_factory=dict)
    """Sequence of the last reassignment that the files contain, by workspace."""


@dataclass(frozen=True)
class Recent:
    """Sequences just below the watermark that are in the files, of all workspaces."""

    floor: int
    """Lowest sequence of the range; the watermark is its end."""
    sequences: npt.NDArray[np.int64]
    """Ascending."""

    def document(self) -> Document:
        """The stored form."""
        steps = np.diff(self.sequences, prepend=np.int64(0))
        return {"from": self.floor, "n": len(steps), "b": Binary(zstandard.ZstdCompressor(1).compress(steps.tobytes()))}

    @staticmethod
    def of(document: Document) -> Recent:
        """From the stored form."""
        raw = zstandard.ZstdDecompressor().decompress(document["b"]) if document["n"] else b""
        return Recent(document["from"], np.cumsum(np.frombuffer(raw, np.int64)))


class Registry:
    """The rows."""

    def __init__(self, client: Client, db: Database) -> None:
        """Keep them in a database."""
        self._client = client
        self._files = db[ARCHIVE_FILES]

    async def claim(self, token: int) -> tuple[int, str]:
        """Become the writer under the token of the lease; returns the watermark, 0 at first, and the files' format.

        Raises:
            ArchiveFencedError: A newer writer was here already.
        """
        try:
            head = await self._files.find_one_and_update(
                {"_id": HEAD, "token": {"$lte": token}},
                {"$set": {"token": token}, "$setOnInsert": {"watermark": 0, "format": FORMAT}},
                upsert=True,
                return_document=True,
            )
        except DuplicateKeyError:
            raise ArchiveFencedError from None
        assert head is not None  # an upsert that returns the new document always has one
        return int(head["watermark"]), str(head.get("format"))

    async def commit(
        self,
        token: int,
        added: Sequence[ArchiveFile],
        *,
        retired: Sequence[ArchiveFile] = (),
        watermark: int | None = None,
        recent: Recent | None = None,
        followed: tuple[str, int] | None = None,
        fewer: bool = False,
    ) -> None:
        """Make files valid and others not, and move the watermark, all or nothing.

        Args:
            token: Fencing token of the lease.
            added: Files that become valid.
            retired: Valid files that they replace.
            watermark: The sequence below which the log is copied from now on.
            recent: What is in the files of the events just below it.
            followed: A workspace, and the sequence of the last reassignment that its files contain from now on.
            fewer: Whether events may have left the log: then it is unknown what is in the files of those just below the
                watermark, until the next writing.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
            pymongo.errors.PyMongoError: Maybe done, maybe not; files that are not valid are removed some time later.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self._commit(token, added, retired, watermark, recent, followed, fewer)
            except OperationFailure as error:
                if not error.has_error_label("TransientTransactionError") or attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.02 * 2**attempt)

    async def _commit(
        self,
        token: int,
        added: Sequence[ArchiveFile],
        retired: Sequence[ArchiveFile],
        watermark: int | None,
        recent: Recent | None,
        followed: tuple[str, int] | None,
        fewer: bool,
    ) -> None:
        async with transaction(self._client) as session:
            change: Document = {"$set": {"token": token}, "$max": {"watermark": watermark or 0}}
            if recent is not None:
                change["$set"]["recent"] = recent.document()
            if fewer:
                change["$unset"] = {"recent": ""}
            if followed is not None:
                change["$max"][f"followed.{followed[0]}"] = followed[1]
            head = await self._files.update_one({"_id": HEAD, "token": token}, change, session=session)
            if head.matched_count != 1:
                raise ArchiveFencedError
            if added:
                await self._files.insert_many([f.document() for f in added], ordered=False, session=session)
            if retired:
                answer = await self._files.update_many(
                    {"_id": {"$in": [f.path for f in retired]}, "live": True},
                    {"$set": {"live": False, "retired": now_us()}},
                    session=session,
                )
                if answer.matched_count != len(retired):
                    raise ArchiveFencedError

    async def start_again(self, token: int) -> None:
        """Make no file valid and the watermark 0, so that everything is read and copied from the log.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
        """
        async with transaction(self._client) as session:
            change: Document = {"$set": {"watermark": 0, "format": FORMAT}, "$unset": {"recent": ""}}
            head = await self._files.update_one({"_id": HEAD, "token": token}, change, session=session)
            if head.matched_count != 1:
                raise ArchiveFencedError
            # Dropped, not retired: a file may be written again under the same path.
            await self._files.delete_many({"_id": {"$ne": HEAD}}, session=session)

    async def listing(self, workspace_id: str | None = None) -> Listing:
        """The watermark and the valid files of one workspace or of all, as of one instant.

        Files of another format are none: everything is read from the log until they are written again.
        """
        query: Document = {"live": True}
        if workspace_id is not None:
            query["w"] = workspace_id
        async with transaction(self._client) as session:
            head = await self._files.find_one({"_id": HEAD}, session=session)
            if head is None or head.get("format") != FORMAT:
                return Listing(0, ())
            files = [ArchiveFile.of(d) async for d in self._files.find(query, session=session)]
        recent = Recent.of(head["recent"]) if "recent" in head else None
        return Listing(int(head["watermark"]), tuple(files), recent, head.get("followed", {}))

    async def retired_before(self, moment_us: int) -> list[str]:
        """Paths of files that were retired before a moment, to be removed."""
        return [d["_id"] async for d in self._files.find({"retired": {"$lt": moment_us}}, {"_id": 1})]

    async def retired_of(self, workspace_id: str) -> list[str]:
        """Paths of a workspace's files that were retired, whenever."""
        return [d["_id"] async for d in self._files.find({"w": workspace_id, "live": False}, {"_id": 1})]

    async def known(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that have a row, valid or retired."""
        return {d["_id"] async for d in self._files.find({"_id": {"$in": list(paths)}}, {"_id": 1})}

    async def forget(self, paths: Sequence[str]) -> None:
        """Drop rows of files that were removed."""
        await self._files.delete_many({"_id": {"$in": list(paths)}, "live": False})
