"""Follows changes of memberships as they are written.

Changes carry the flush number of their partition's transaction, which grows with every transaction of the partition and
stands in its head document too, written by the same transaction. So everything up to a head's number is there when the
number is seen, and a number per partition is a place in the history behind which nothing appears any more: who goes on
from there misses nothing and gets nothing twice, whatever became of Redis or of the replica that was asked before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from pymongo import ASCENDING

from headrace.domain.ids import partition_of
from headrace.storage.mongo.client import Database, Document
from headrace_audience.memberships.flips import ROWS_PER_TRANSACTION, head_key
from headrace_audience.store import CHANGES, SNAPSHOTS

MOST_WATCHERS = 500
LOOK_S = 0.25
HEARTBEAT_S = 15.0
READ_AT_A_TIME = 2 * ROWS_PER_TRANSACTION
"""More than one transaction has in a partition, so that each reading comes to the end of one."""
LOOKED_THROUGH_AT_A_TIME = 20_000
"""Of everybody's changes so many are looked through for those of one workspace, however old the place is."""


class TooManyWatchersError(Exception):
    """So many follow on this replica that there is no room for another."""


class CursorError(Exception):
    """A position that is none of this platform: the number of partitions is another one."""


@dataclass(frozen=True)
class Seen:
    """Changes that were written, and where to go on."""

    changes: Sequence[Document]
    """In the order in which they were written, of each membership; none in a sign of life."""
    positions: Sequence[int]
    """Flush number per partition up to which everything was told."""


class Watching:
    """Tells followers what is written; how much is read at a time does not depend on how much there is."""

    def __init__(self, db: Database, partitions: int, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        """Follow a database.

        Args:
            db: Database.
            partitions: Number of partitions of profiles.
            heartbeat_s: After so long without changes a sign of life is given, in seconds.
        """
        self._db = db
        self._partitions = partitions
        self._heartbeat_s = heartbeat_s
        self._watchers = 0
        self._looking = asyncio.Lock()
        self._heads: list[int] = []
        self._looked_at = float("-inf")

    async def follow(
        self, workspace_id: str, audience_id: str, profile_id: str, positions: Sequence[int] | None
    ) -> AsyncIterator[Seen]:
        """What is written, for ever; first of all where it begins.

        Args:
            workspace_id: The workspace.
            audience_id: Only of this audience; empty for all.
            profile_id: Only of this profile; empty for all.
            positions: Where to go on; None is now.

        Raises:
            CursorError: The positions are none of this platform.
            TooManyWatchersError: Too many follow here already.
            pymongo.errors.PyMongoError: The database cannot be reached; go on later from the last positions.
        """
        if positions is not None and len(positions) != self._partitions:
            raise CursorError
        if self._watchers >= MOST_WATCHERS:
            raise TooManyWatchersError
        self._watchers += 1
        try:
            place = list(positions if positions is not None else await self._look())
            wanted: Document = {"w": workspace_id}
            if audience_id:
                wanted["a"] = audience_id
            if profile_id:
                wanted["p"] = profile_id
            own = partition_of(profile_id, self._partitions) if profile_id else None
            yield Seen((), tuple(place))
            said = time.monotonic()
            while True:
                for partition, head in enumerate(await self._look()):
                    while place[partition] < head:
                        changes: list[Document] = []
                        whole = head
                        if own is None or own == partition:
                            whole = await self._reach(partition, place[partition], head)
                            changes = await self._read(wanted, partition, place[partition], whole)
                        if len(changes) == READ_AT_A_TIME:
                            # The last transaction may have been cut: it is read again.
                            cut = changes[-1]["f"]
                            changes = [change for change in changes if change["f"] < cut]
                            whole = changes[-1]["f"]
                        place[partition] = whole
                        if changes or time.monotonic() - said >= self._heartbeat_s:
                            yield Seen(changes, tuple(place))
                            said = time.monotonic()
                if time.monotonic() - said >= self._heartbeat_s:
                    yield Seen((), tuple(place))
                    said = time.monotonic()
                await asyncio.sleep(LOOK_S)
        finally:
            self._watchers -= 1

    async def _reach(self, partition: int, after: int, head: int) -> int:
        """How far to look from a place at a time: to a flush number behind which many changes have been passed over."""
        query: Document = {"q": partition, "f": {"$gt": after, "$lt": head}}
        # By the index alone.
        found = self._db[CHANGES].find(query, {"_id": 0, "f": 1}).sort("f", ASCENDING)
        async for document in found.skip(LOOKED_THROUGH_AT_A_TIME).limit(1):
            return int(document["f"])
        return head

    async def _read(self, wanted: Document, partition: int, after: int, head: int) -> list[Document]:
        query: Document = {**wanted, "q": partition, "f": {"$gt": after, "$lte": head}}
        found = self._db[CHANGES].find(query).sort([("f", ASCENDING), ("_id", ASCENDING)]).limit(READ_AT_A_TIME)
        return [document async for document in found]

    async def _look(self) -> list[int]:
        """Flush number of each partition, as of less than LOOK_S ago: all followers look once."""
        async with self._looking:
            if time.monotonic() - self._looked_at >= LOOK_S:
                keys = {head_key(p): p for p in range(self._partitions)}
                heads = [0] * self._partitions
                async for document in self._db[SNAPSHOTS].find({"_id": {"$in": list(keys)}}, {"f": 1}):
                    heads[keys[document["_id"]]] = document.get("f", 0)
                self._heads = heads
                self._looked_at = time.monotonic()
            return self._heads
