"""Snapshots: the computed state of a partition, so that its next owner need not read all of history again.

The state of each workspace is compressed and cut into chunks; the partition's head document names the generation that
counts and what it covers. Generations begin with the fencing token, so an old owner's are smaller than a new one's, and
the head takes a generation only from the owner whose token it carries.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import zstandard
from bson.binary import Binary

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace_audience.memberships.flips import FencedError, head_key
from headrace_audience.partitions.streaming import Edges
from headrace_audience.store import SNAPSHOTS

CHUNK_BYTES = 8 * 1024 * 1024
_LEVEL = 1


@dataclass(frozen=True)
class Snapshot:
    """State of one partition, and what it covers."""

    position: str
    """Id of the last entry of the partition's stream that is in it."""
    incarnation: str
    """Of the Redis that held the stream: see headrace_audience.partitions.incarnation."""
    sequence: int
    """All events that were committed with a lower sequence are in it, but for those within the margin of late ones."""
    moment_us: int
    """Every change up to this moment was written."""
    states: Mapping[str, bytes] = field(repr=False)
    """Workspace id to what Engine.export_partition() gave."""


@dataclass(frozen=True)
class Head:
    """What the head document of a partition says, without the state."""

    position: str
    incarnation: str
    """Empty when there is no snapshot."""
    moment_us: int
    """The latest moment for which changes were written: by snapshot and memberships together nothing is known of an
    earlier one. 0: unknown."""

    @property
    def has_snapshot(self) -> bool:
        """Whether there is a snapshot."""
        return bool(self.incarnation)

    def is_kept(self, incarnation: str, here: Edges) -> bool:
        """Whether the stream has everything that came after the snapshot."""
        return self.incarnation == incarnation and here.reach_back_to(self.position)


class SnapshotStore:
    """Keeps the newest snapshot of each partition."""

    def __init__(self, db: Database) -> None:
        """Keep them in a database."""
        self._snapshots = db[SNAPSHOTS]

    async def heads(self, partitions: Iterable[int]) -> dict[int, Head]:
        """The heads of partitions; those without one are as if they had nothing."""
        found = {p: Head("", "", 0) for p in partitions}
        keys = {head_key(p): p for p in found}
        fields = {"moment": 1, "snapshot.position": 1, "snapshot.incarnation": 1}
        async for document in self._snapshots.find({"_id": {"$in": list(keys)}}, fields):
            named = document.get("snapshot", {})
            found[keys[document["_id"]]] = Head(
                named.get("position", ""), named.get("incarnation", ""), document.get("moment", 0)
            )
        return found

    async def load(self, partition: int) -> Snapshot | None:
        """The newest snapshot; None when there is none, or one with a missing part."""
        head = await self._snapshots.find_one({"_id": head_key(partition)}, {"snapshot": 1})
        named: Document | None = head.get("snapshot") if head else None
        if named is None:
            return None
        chunks: dict[str, list[bytes]] = defaultdict(list)
        query: Document = {"q": partition, "g": named["generation"]}
        async for chunk in self._snapshots.find(query).sort("_id", 1):
            chunks[chunk["w"]].append(chunk["b"])
        if {w: len(parts) for w, parts in chunks.items()} != named["chunks"]:
            return None
        states = await asyncio.to_thread(
            lambda: {w: zstandard.ZstdDecompressor().decompress(b"".join(parts)) for w, parts in chunks.items()}
        )
        return Snapshot(named["position"], named["incarnation"], named["sequence"], named.get("moment", 0), states)

    async def save(self, partition: int, token: int, snapshot: Snapshot) -> int:
        """Keep a snapshot in place of the earlier one; returns its stored size in bytes.

        Raises:
            FencedError: The partition has a newer owner; its snapshot stays.
        """
        generation = f"{token:012d}-{now_us():016d}"
        compressed = await asyncio.to_thread(
            lambda: {w: zstandard.ZstdCompressor(level=_LEVEL).compress(state) for w, state in snapshot.states.items()}
        )
        counts: dict[str, int] = {}
        size = 0
        for workspace_id, data in compressed.items():
            parts = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
            counts[workspace_id] = len(parts)
            size += len(data)
            for n, part in enumerate(parts):
                await self._snapshots.insert_one(
                    {
                        "_id": f"{generation}:{partition}:{workspace_id}:{n:06d}",
                        "q": partition,
                        "g": generation,
                        "w": workspace_id,
                        "b": Binary(part),
                    }
                )
        named = {
            "generation": generation,
            "position": snapshot.position,
            "incarnation": snapshot.incarnation,
            "sequence": snapshot.sequence,
            "moment": snapshot.moment_us,
            "chunks": counts,
        }
        answer = await self._snapshots.update_one(
            {"_id": head_key(partition), "token": token},
            {"$set": {"snapshot": named}, "$max": {"moment": snapshot.moment_us}},
        )
        if answer.matched_count != 1:
            await self._snapshots.delete_many({"q": partition, "g": generation})
            raise FencedError([partition])
        # Smaller only: a newer owner may be writing a generation that no head names yet.
        await self._snapshots.delete_many({"q": partition, "g": {"$lt": generation}})
        return size

    async def touch(
        self, partition: int, token: int, position: str, incarnation: str, sequence: int, moment_us: int
    ) -> None:
        """Say that the stored snapshot covers more: nothing came in that would have changed it.

        Raises:
            FencedError: The partition has a newer owner.
        """
        covered: Document = {
            "snapshot.position": position,
            "snapshot.incarnation": incarnation,
            "snapshot.sequence": sequence,
        }
        query: Document = {"_id": head_key(partition), "token": token, "snapshot": {"$exists": True}}
        answer = await self._snapshots.update_one(query, {"$set": covered, "$max": {"moment": moment_us}})
        if answer.matched_count != 1:
            raise FencedError([partition])
