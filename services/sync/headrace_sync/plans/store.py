"""The collection `sync_plans`: what list syncs would change, waiting for approval or approved.

Which people a plan holds, and what is to be done for each, stands with the members (`list_members.pn`).

Fields: k sync key, w workspace, st state, r reason, added, updated, removed people, c made, ap approved, m true once
the pass after its approval has begun, td true once somebody was told that it waits, x when it expires. All times in
microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from pymongo import DESCENDING

from headrace.domain.times import DAY_US
from headrace.storage.mongo.client import Database, Document
from headrace_sync.config import SEPARATOR
from headrace_sync.plans.rules import Counts, Window
from headrace_sync.store import STATE, SYNC_PLANS

_KEPT = timedelta(days=28)


class PlanState(IntEnum):
    """State of a plan; the numbers are those of the proto."""

    MAKING = 0
    """A pass is writing it; never shown."""
    WAITING = 1
    APPROVED = 2
    DISCARDED = 3


class PlanStore:
    """Plans in MongoDB."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, plan_id: str, *, sync_key: str, workspace_id: str, reason: str, now: int) -> None:
        """Store that a plan is being made."""
        await self._db[SYNC_PLANS].insert_one(
            {
                "_id": plan_id,
                "k": sync_key,
                "w": workspace_id,
                "st": PlanState.MAKING,
                "r": reason,
                "c": now,
                "x": datetime.now(UTC) + _KEPT,
            }
        )

    async def made(self, plan_id: str, counts: Counts) -> None:
        """A plan is complete and waits."""
        await self._db[SYNC_PLANS].update_one(
            {"_id": plan_id, "st": PlanState.MAKING},
            {
                "$set": {
                    "st": PlanState.WAITING,
                    "added": counts.added,
                    "updated": counts.updated,
                    "removed": counts.removed,
                }
            },
        )

    async def told(self, plan_id: str) -> None:
        """The alert about a plan that waits is kept."""
        await self._db[SYNC_PLANS].update_one({"_id": plan_id}, {"$set": {"td": True}})

    async def is_open(self, sync_key: str) -> bool:
        """True when a plan waits, or is being made."""
        query = {"k": sync_key, "st": {"$in": [PlanState.MAKING, PlanState.WAITING]}}
        return await self._db[SYNC_PLANS].find_one(query, {"_id": 1}) is not None

    async def close(self, sync_key: str) -> None:
        """Nothing is asked for any more."""
        await self.drop_unmade(sync_key)
        await self.discard(sync_key)

    async def drop_unmade(self, sync_key: str) -> None:
        """Forget plans that were never completed; only for who holds the sync's lease."""
        await self._db[SYNC_PLANS].delete_many({"k": sync_key, "st": PlanState.MAKING})

    async def discard(self, sync_key: str) -> None:
        """What waits is not asked for any more."""
        await self._db[SYNC_PLANS].update_many(
            {"k": sync_key, "st": PlanState.WAITING}, {"$set": {"st": PlanState.DISCARDED}}
        )

    async def approve(self, sync_key: str, plan_id: str, *, now: int) -> Document | None:
        """Approve a plan that waits; gives it as it is then, None when there is none. Repeating it changes nothing."""
        query = {"_id": plan_id, "k": sync_key}
        await self._db[SYNC_PLANS].update_one(
            {**query, "st": PlanState.WAITING}, {"$set": {"st": PlanState.APPROVED, "ap": now, "m": False}}
        )
        return await self._db[SYNC_PLANS].find_one({**query, "st": {"$ne": PlanState.MAKING}})

    async def approved(self, sync_key: str) -> frozenset[str]:
        """Ids of the plans that were approved."""
        query = {"k": sync_key, "st": PlanState.APPROVED}
        return frozenset([d["_id"] async for d in self._db[SYNC_PLANS].find(query, {"_id": 1})])

    async def begun(self, plan_ids: frozenset[str]) -> None:
        """A pass carries out what was approved."""
        await self._db[SYNC_PLANS].update_many({"_id": {"$in": list(plan_ids)}, "m": False}, {"$set": {"m": True}})

    async def waiting(self, sync_keys: Sequence[str]) -> dict[str, Document]:
        """The plan that waits, by sync key."""
        query = {"k": {"$in": list(sync_keys)}, "st": PlanState.WAITING}
        return {d["k"]: d async for d in self._db[SYNC_PLANS].find(query).sort("_id", DESCENDING)}

    async def needs_pass(self, sync_key: str, *, guarded: bool) -> bool:
        """True when a plan asks for a pass: it was never completed, nobody was told, it was approved, or it is void."""
        asking: list[Document] = [
            {"st": PlanState.MAKING},
            {"st": PlanState.WAITING, "td": {"$exists": False}},
            {"st": PlanState.APPROVED, "m": False},
        ]
        if not guarded:
            asking.append({"st": PlanState.WAITING})
        return await self._db[SYNC_PLANS].find_one({"k": sync_key, "$or": asking}, {"_id": 1}) is not None

    async def window(self, sync_key: str, *, now: int) -> Window | None:
        """What was changed of a list within the last day; None when counting has to begin anew."""
        found = await self._db[STATE].find_one({"_id": _window_id(sync_key)})
        if found is None or found["t"] < now - DAY_US:
            return None
        return Window(found["t"], found["size"], found["added"], found["others"], found["granted"])

    async def begin_window(self, sync_key: str, window: Window) -> None:
        """Begin counting anew."""
        await self._db[STATE].replace_one(
            {"_id": _window_id(sync_key)},
            {"t": window.begun_us, "size": window.size, "added": 0, "others": 0, "granted": 0},
            upsert=True,
        )

    async def spend(self, sync_key: str, unasked: Counts, granted: int) -> None:
        """Count what is about to be changed."""
        more = {"added": unasked.added, "others": unasked.updated + unasked.removed, "granted": granted}
        await self._db[STATE].update_one({"_id": _window_id(sync_key)}, {"$inc": more})


def _window_id(sync_key: str) -> str:
    return f"window{SEPARATOR}{sync_key}"
