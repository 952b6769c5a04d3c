"""Makes memberships right that differ from the batch evaluator.

Who finds profiles on which the two differ leaves an *order* in the store, for the owners of their partitions. An owner
waits until everything that the comparison saw is certainly folded (it was sent on the streams, and these are read up to
there), so that an event on its way is taken for no mismatch. Then it forgets what it keeps of the profiles, takes their
stored memberships as what was reported last, folds their events anew from the log, and evaluates at the same instant as
before: the flips of that are the mismatches, and are written with the cause "repair" under the partition's fencing
token. An order is done when a snapshot without the fault is stored; until then the next owner does it again, which
changes nothing that is right.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pymongo import ASCENDING
from redis.exceptions import RedisError

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedEvent
from headrace.domain.ids import new_time_ordered_id, partition_of
from headrace.domain.times import MINUTE_US, now_us
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batching import batched
from headrace_audience.engine.engine import Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.partitions import streaming
from headrace_audience.partitions.recovery import sent_until
from headrace_audience.people import reassignments
from headrace_audience.store import MEMBERSHIPS, REPAIRS, membership_key
from headrace_audience.threads import in_thread

log = logs.get_logger(__name__)

PROFILES_PER_ORDER = 5_000
PROFILES_AT_A_TIME = 500
LOOK_S = 0.1
WAIT_S = 30.0
UNSENT_US = 10 * MINUTE_US
"""So old events may be in the log without having been sent on: whoever sends them was away for that long."""
ORDERS_AT_A_TIME = 20
"""So many orders are followed at a time, the oldest first; each may name PROFILES_PER_ORDER profiles."""
PATIENCE = 20
"""So often profiles that have events on their way are left for later; then they are rebuilt all the same."""


@dataclass(frozen=True)
class Outcome:
    """What the owners of the partitions have answered."""

    wrong: frozenset[str]
    """Profiles whose membership in the audience was wrong and is right now."""
    corrected: int
    """Memberships of the profiles, in whichever audience, that were corrected."""
    unanswered: frozenset[str]
    """Profiles whose owner has not answered in time: it will do so."""


class Repairs:
    """Asks the owners of partitions."""

    def __init__(self, db: Database, partitions: int, *, wait_s: float = WAIT_S) -> None:
        """Leave orders in a database and wait so many seconds for the owners."""
        self._db = db
        self._partitions = partitions
        self._wait_s = wait_s

    async def ask(
        self, workspace_id: str, audience_id: str, profile_ids: Sequence[str], at_us: int, *, repair: bool
    ) -> Outcome:
        """Have profiles repaired; or, without `repair`, only wait until what was to be seen at a moment is folded."""
        keys: list[str] = []
        for some in batched(profile_ids, PROFILES_PER_ORDER):
            order: Document = {
                "_id": new_time_ordered_id(),
                "w": workspace_id,
                "a": audience_id,
                "at": at_us,
                "repair": repair,
                "profiles": list(some),
                "open": sorted({partition_of(p, self._partitions) for p in some}),
                "wrong": [],
                "corrected": 0,
                "made": datetime.now(UTC),
            }
            await self._db[REPAIRS].insert_one(order)
            keys.append(order["_id"])
        until = time.monotonic() + self._wait_s
        query: Document = {"_id": {"$in": keys}}
        while await self._db[REPAIRS].count_documents({**query, "open.0": {"$exists": True}}):
            if time.monotonic() > until:
                break
            await asyncio.sleep(LOOK_S)
        return await self._outcome(query)

    async def _outcome(self, query: Document) -> Outcome:
        wrong: set[str] = set()
        unanswered: set[str] = set()
        corrected = 0
        async for order in self._db[REPAIRS].find(query):
            wrong.update(order["wrong"])
            corrected += order["corrected"]
            unanswered.update(p for p in order["profiles"] if partition_of(p, self._partitions) in order["open"])
        await self._db[REPAIRS].delete_many({**query, "open": []})
        return Outcome(frozenset(wrong), corrected, frozenset(unanswered))


class HeldPartition(Protocol):
    """What is asked of a partition that is held here."""

    position: str
    saved: float


@dataclass
class _Step:
    """How far an order is in one partition."""

    sent_us: int
    """Everything in the log before this moment was sent on the streams before `target` was their end."""
    target: str
    """Entry that must be folded before anything is compared."""
    tries: int = 0
    done_at: float | None = None
    """When the profiles were rebuilt, by the monotonic clock."""
    flips: list[Flip] = field(default_factory=list)
    """What was corrected."""


class RepairOrders:
    """Follows orders for partitions that are held here; called between the steps of the worker's loop."""

    def __init__(self, db: Database, redis: Redis, reader: ArchiveReader, lock: asyncio.Lock, partitions: int) -> None:
        """Follow the orders of a database.

        Args:
            db: Database.
            redis: Streams.
            reader: Knows the merges.
            lock: Held by whoever uses an engine.
            partitions: Number of partitions of profiles.
        """
        self._db = db
        self._redis = redis
        self._reader = reader
        self._lock = lock
        self._partitions = partitions
        self._steps: dict[tuple[str, int], _Step] = {}

    def forget(self, partition: int) -> None:
        """A partition is held anew: what its snapshot has is not what was done before."""
        self._steps = {key: step for key, step in self._steps.items() if key[1] != partition}

    async def follow(
        self,
        evaluations: Mapping[str, Evaluation],
        held: Mapping[int, HeldPartition],
        complete: Collection[int],
    ) -> set[int]:
        """Do what orders ask for, as far as it can be done now; returns partitions whose snapshots must be stored."""
        concerned: set[int] = set()
        for order in await self._open(evaluations, held, complete):
            for partition in order["open"]:
                if partition not in held:
                    continue
                evaluation = evaluations[order["w"]]
                try:
                    if await self._advance(evaluation, order, partition, held[partition], partition in complete):
                        concerned.add(partition)
                except RedisError as error:
                    log.warning("repairs wait for the streams", error=type(error).__name__)
        return concerned

    async def _open(
        self, evaluations: Collection[str], held: Collection[int], complete: Collection[int]
    ) -> list[Document]:
        """The oldest of the orders for which something can be done; steps of those that are gone are forgotten."""
        begun = {key for key, _ in self._steps}
        there = {d["_id"] async for d in self._db[REPAIRS].find({"_id": {"$in": sorted(begun)}}, {"_id": 1})}
        self._steps = {key: step for key, step in self._steps.items() if key[0] in there}
        partitions = sorted({*complete, *(partition for _, partition in self._steps)}.intersection(held))
        if not partitions or not evaluations:
            return []
        query: Document = {"open": {"$in": partitions}, "w": {"$in": sorted(evaluations)}}
        found = self._db[REPAIRS].find(query).sort("_id", ASCENDING).limit(ORDERS_AT_A_TIME)
        return [order async for order in found]

    async def _advance(
        self, evaluation: Evaluation, order: Document, partition: int, held: HeldPartition, is_complete: bool
    ) -> bool:
        """Do the next step of an order in a partition; returns whether profiles were rebuilt."""
        key = (order["_id"], partition)
        profiles = {p for p in order["profiles"] if partition_of(p, self._partitions) == partition}
        step = self._steps.get(key) or await self._begin(order, partition)
        if step is None:
            return False
        self._steps[key] = step
        if step.done_at is None:
            if not is_complete or not streaming.is_at(held.position, step.target):
                return False
            if evaluation.pending.names(profiles):
                return False
            if order["repair"]:
                if await self._rebuild(evaluation, profiles, step):
                    step.done_at = time.monotonic()
                    return True
                newer = await self._begin(order, partition)
                if newer is not None:
                    step.sent_us, step.target = newer.sent_us, newer.target
                step.tries += 1
                return False
            step.done_at = 0.0
        if evaluation.pending.names(profiles) or held.saved <= step.done_at:
            return False
        wrong = sorted({f.profile_id for f in step.flips if f.audience_id == order["a"]})
        answer: Document = {
            "$pull": {"open": partition},
            "$addToSet": {"wrong": {"$each": wrong}},
            "$inc": {"corrected": len(step.flips)},
        }
        await self._db[REPAIRS].update_one({"_id": order["_id"], "open": partition}, answer)
        del self._steps[key]
        return False

    async def _begin(self, order: Document, partition: int) -> _Step | None:
        """What must be folded so that everything which the comparison saw is; None when it was not sent yet."""
        sent_us = await sent_until(self._db, order["at"] - UNSENT_US, now_us())
        if sent_us <= order["at"]:
            return None
        edges = await streaming.edges(self._redis, [partition])
        return _Step(sent_us, edges[partition].last)

    async def _rebuild(self, evaluation: Evaluation, profiles: Collection[str], step: _Step) -> bool:
        """Rebuild profiles; returns whether that is done: some may have events, or changes, that are on their way."""
        survivors = await self._reader.survivors(evaluation.workspace_id)
        parts: dict[str, list[str]] = {p: [] for p in profiles}
        for part, profile_id in survivors.parts_of(profiles).items():
            if survivors.of(profile_id) == profile_id:
                parts[profile_id].append(part)
        for some in batched(sorted(profiles), PROFILES_AT_A_TIME):
            asked = [Reassignment(profile_id=p, parts=parts[p]) for p in some]
            events = (await reassignments.load(self._db, evaluation, asked)).events
            if step.tries < PATIENCE and any(e.decision.sequence >= step.sent_us for e in events):
                return False
            there = {e.profile_id for e in events}
            gone = {p: survivors.of(p) if survivors.of(p) != p else "" for p in some if p not in there}
            stored = await self._stored(evaluation, some)
            async with self._lock:
                # What other causes have moved by this instant is told with them first.
                evaluation.pending.add(evaluation.advance(evaluation.engine.clock_us))
                if evaluation.pending.names(some):
                    return False
                step.flips += await in_thread(_anew, evaluation, some, gone, stored, events)
        return True

    async def _stored(self, evaluation: Evaluation, profile_ids: Sequence[str]) -> set[tuple[str, str]]:
        """(audience, profile) of stored memberships."""
        found: set[tuple[str, str]] = set()
        for audience_id in evaluation.stored_people:
            keys = [membership_key(evaluation.workspace_id, audience_id, p) for p in profile_ids]
            query: Document = {"_id": {"$in": keys}, "in": True}
            found.update([(audience_id, d["p"]) async for d in self._db[MEMBERSHIPS].find(query, {"_id": 0, "p": 1})])
        return found


def _anew(
    evaluation: Evaluation,
    profile_ids: Sequence[str],
    gone: Mapping[str, str],
    stored: Collection[tuple[str, str]],
    events: Sequence[ResolvedEvent],
) -> list[Flip]:
    """Rebuild profiles whose stored memberships are known; returns the flips, which wait to be written then."""
    engine = evaluation.engine
    for audience_id in evaluation.stored_people:
        members = [p for p in profile_ids if (audience_id, p) in stored]
        others = [p for p in profile_ids if (audience_id, p) not in stored]
        engine.set_membership(audience_id, members)
        engine.set_membership(audience_id, others, member=False)
    engine.repair([p for p in profile_ids if p not in gone], gone)
    engine.fold(events, now_us=engine.clock_us, cause="repair")
    flips = evaluation.advance(engine.clock_us)
    evaluation.pending.add(flips)
    return [flip for flip in flips if flip.cause == "repair"]
