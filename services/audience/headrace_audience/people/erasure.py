"""Removes what the audience service keeps about a person who is to be deleted.

- Memberships and their history: the rows, also those that were written meanwhile.
- Entries of the streams of resolved events and of changes: what is about the person is taken out of them.
- State in memory, snapshots and the archive belong to whoever holds the partitions and the archive. They follow
  *orders*, which are stored: each owner forgets the person and stores new snapshots, the archive's writer takes the
  rows out of the files. Whoever asks waits for that a little and else asks again: the order stays until all is done.

No changes of memberships come of it: destinations were told before by sync.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedBatch
from headrace.domain.ids import partition_of
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, rewrite
from headrace.telemetry import logs
from headrace_audience.archive.rewriter import Rewriter
from headrace_audience.engine import snapshot
from headrace_audience.evaluation import Evaluation
from headrace_audience.memberships import membership_rows
from headrace_audience.partitions.snapshots import SnapshotStore
from headrace_audience.people import reassignments
from headrace_audience.store import ERASURES, SEPARATOR, SNAPSHOTS

log = logs.get_logger(__name__)

M = TypeVar("M", ResolvedBatch, MembershipChangeBatch)

ARCHIVE = "archive"
RESOLVED_STREAMS = "headrace:resolved"

WAIT_S = 5.0
LOOK_S = 0.25


@dataclass(frozen=True)
class Whom:
    """A person, or a share of what there is of one.

    Attributes:
        workspace_id: The workspace.
        deletion_id: The deletion.
        profile_ids: All parts of the person.
        message_ids: Message ids of the person's events.
    """

    workspace_id: str
    deletion_id: str
    profile_ids: frozenset[str]
    message_ids: frozenset[str]

    @property
    def key(self) -> str:
        """The database id of the order: the same for the same question."""
        text = SEPARATOR.join([*sorted(self.profile_ids), "", *sorted(self.message_ids)])
        return SEPARATOR.join([self.workspace_id, self.deletion_id, hashlib.sha256(text.encode()).hexdigest()[:16]])


@dataclass(frozen=True)
class Place:
    """What became of one place; `fault` says in a sentence why it is not done yet."""

    name: str
    count: int
    fault: str = ""


class Eraser:
    """Removes people from what the audience service keeps."""

    def __init__(self, db: Database, redis: Redis, *, partitions: int, wait_s: float = WAIT_S) -> None:
        """Work on the stores.

        Args:
            db: Database.
            redis: Redis.
            partitions: Number of partitions of profiles.
            wait_s: How long to wait for the owners of partitions and archive, in seconds.
        """
        self._db = db
        self._redis = redis
        self._partitions = partitions
        self._wait_s = wait_s
        self._snapshots = SnapshotStore(db)

    async def erase(self, whom: Whom) -> list[Place]:
        """Remove everything about a person; what fails or is not done yet says so.

        Raises:
            pymongo.errors.PyMongoError: Not even an order could be stored.
        """
        await self._order(whom)
        # Owners remove rows too, and may write some until they have forgotten the person.
        before = await membership_rows.count(self._db, whom.workspace_id, whom.profile_ids)
        places = [
            await _tried(RESOLVED_STREAMS, lambda: self._resolved(whom)),
            await _tried(names.CHANGES, lambda: self._changes(whom)),
            *await self._owners(whom),
            *await self._rows(whom, before),
        ]
        if not any(place.fault for place in places):
            await self._db[ERASURES].delete_one({"_id": whom.key})
        return places

    async def _order(self, whom: Whom) -> None:
        order: Document = {
            "w": whom.workspace_id,
            "profiles": sorted(whom.profile_ids),
            "messages": sorted(whom.message_ids),
            "at": now_us(),
        }
        await self._db[ERASURES].update_one({"_id": whom.key}, {"$setOnInsert": order}, upsert=True)

    async def _rows(self, whom: Whom, before: Mapping[str, int]) -> list[Place]:
        try:
            removed = await membership_rows.remove(self._db, whom.workspace_id, whom.profile_ids)
        except PyMongoError as error:
            return [Place(name, 0, _fault(error)) for name in before]
        return [Place(name, max(count, removed[name])) for name, count in before.items()]

    async def _resolved(self, whom: Whom) -> int:
        counted = 0

        def without(payload: bytes) -> bytes | None:
            nonlocal counted
            batch = _parsed(ResolvedBatch, payload)
            if batch is None or batch.workspace_id != whom.workspace_id:
                return None
            count = _take_out(batch, whom)
            counted += count
            if not count:
                return None
            return batch.SerializeToString() if batch.events or batch.merges or batch.reassignments else b""

        # Events may have been sent for a profile that the person was once taken for: all partitions are looked at.
        for partition in range(self._partitions):
            await rewrite(self._redis, names.resolved(partition), without, groups=(names.SYNC_GROUP,))
        return counted

    async def _changes(self, whom: Whom) -> int:
        counted = 0

        def without(payload: bytes) -> bytes | None:
            nonlocal counted
            batch = _parsed(MembershipChangeBatch, payload)
            if batch is None or batch.workspace_id != whom.workspace_id:
                return None
            kept = [c for c in batch.changes if c.profile_id not in whom.profile_ids]
            if len(kept) == len(batch.changes):
                return None
            counted += len(batch.changes) - len(kept)
            del batch.changes[:]
            batch.changes.extend(kept)
            return batch.SerializeToString() if kept else b""

        await rewrite(self._redis, names.CHANGES, without, groups=(names.SYNC_GROUP,))
        return counted

    async def _owners(self, whom: Whom) -> list[Place]:
        """Wait until archive and snapshots have nothing more about the person."""
        try:
            found = [p for p in _partitions(whom.profile_ids, self._partitions) if await self._holds(whom, p)]
            until = time.monotonic() + self._wait_s
            order: Mapping[str, object] = {}
            holding = found
            while True:
                order = await self._db[ERASURES].find_one({"_id": whom.key}) or {}
                holding = [p for p in holding if await self._holds(whom, p)]
                if ("rows" in order and not holding) or time.monotonic() > until:
                    break
                await asyncio.sleep(LOOK_S)
        except PyMongoError as error:
            return [Place(ARCHIVE, 0, _fault(error)), Place(SNAPSHOTS, 0, _fault(error))]
        rows = order.get("rows", 0)
        return [
            Place(
                ARCHIVE,
                rows if isinstance(rows, int) else 0,
                "" if "rows" in order else "The writer of the archive has not yet written its files anew.",
            ),
            Place(
                SNAPSHOTS,
                len(found) - len(holding),
                f"{len(holding)} partitions have not yet stored a new snapshot." if holding else "",
            ),
        ]

    async def _holds(self, whom: Whom, partition: int) -> bool:
        """Whether the stored snapshot of a partition has the person."""
        stored = await self._snapshots.load(partition)
        state = stored.states.get(whom.workspace_id) if stored is not None else None
        if state is None:
            return False
        return await asyncio.to_thread(snapshot.mentions, whom.workspace_id, partition, state, whom.profile_ids)


class ErasureOrders:
    """Follows orders for partitions and archive that are held here."""

    def __init__(self, db: Database, lock: asyncio.Lock, partitions: int) -> None:
        """Follow the orders of a database.

        Args:
            db: Database.
            lock: Held by whoever uses an engine.
            partitions: Number of partitions of profiles.
        """
        self._db = db
        self._lock = lock
        self._partitions = partitions
        self._done: set[tuple[str, int]] = set()

    def forget(self, partition: int) -> None:
        """A partition is held anew: what its snapshot has is not what was done before."""
        self._done = {done for done in self._done if done[1] != partition}

    async def follow(self, evaluations: Mapping[str, Evaluation], held: Collection[int]) -> set[int]:
        """Forget people in partitions, for orders that were not followed yet; returns the partitions concerned."""
        concerned: set[int] = set()
        there: set[tuple[str, int]] = set()
        async for order in self._db[ERASURES].find({}, {"w": 1, "profiles": 1}):
            by_partition = _partitions(order["profiles"], self._partitions)
            there.update((order["_id"], p) for p in by_partition)
            new = [p for p in by_partition if p in held and (order["_id"], p) not in self._done]
            evaluation = evaluations.get(order["w"])
            if evaluation is not None and new:
                people = [Reassignment(profile_id=i, erased=True) for p in new for i in by_partition[p]]
                await reassignments.follow(self._db, evaluation, people, self._lock, self._partition_of, now_us())
            concerned.update(new)
            self._done.update((order["_id"], p) for p in new)
        self._done &= there
        return concerned

    def _partition_of(self, profile_id: str) -> int:
        return partition_of(profile_id, self._partitions)


async def follow_in_archive(db: Database, rewriter: Rewriter) -> int:
    """Take people out of the archive, for orders that were not followed yet; returns how many were.

    Raises:
        ArchiveFencedError: Another replica writes the archive now.
    """
    followed = 0
    async for order in db[ERASURES].find({"rows": {"$exists": False}}):
        rows = await rewriter.erase(order["w"], order["profiles"], order["messages"])
        await db[ERASURES].update_one({"_id": order["_id"]}, {"$set": {"rows": rows}})
        followed += 1
    return followed


def _partitions(profile_ids: Collection[str], total: int) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for profile_id in profile_ids:
        found.setdefault(partition_of(profile_id, total), []).append(profile_id)
    return found


def _take_out(batch: ResolvedBatch, whom: Whom) -> int:
    """Take a person out of a batch; returns how many entries went. That a profile was erased may be said further."""
    profiles, messages = whom.profile_ids, whom.message_ids
    events = [e for e in batch.events if e.profile_id not in profiles and e.event.message_id not in messages]
    merges = [m for m in batch.merges if m.loser not in profiles and m.survivor not in profiles]
    kept = [r for r in batch.reassignments if r.erased or r.profile_id not in profiles]
    count = len(batch.events) - len(events) + len(batch.merges) - len(merges) + len(batch.reassignments) - len(kept)
    if count:
        for field, values in (("events", events), ("merges", merges), ("reassignments", kept)):
            batch.ClearField(field)  # type: ignore[arg-type]  # one of three literals
            getattr(batch, field).extend(values)
    return count


def _parsed(kind: type[M], payload: bytes) -> M | None:
    try:
        return kind.FromString(payload)
    except DecodeError:
        return None  # who reads it cannot read it either


async def _tried(name: str, work: Callable[[], Awaitable[int]]) -> Place:
    try:
        return Place(name, await work())
    except (PyMongoError, RedisError, OSError) as error:
        log.warning("a place could not be cleared of a person", place=name, error=type(error).__name__)
        return Place(name, 0, _fault(error))


def _fault(error: Exception) -> str:
    return f"The store failed with {type(error).__name__}."
