"""The collection `sync_runs`, passes of list syncs, and when those by a schedule began (`sync_state`, "scheduled").

Fields of a pass: k sync key, w workspace, st status, start, end 0 while it is asked for, -1 while it runs unasked,
full, marked once its members are, rounds jobs whose ends are counted, what a `Tally` has, x when it expires. Times in
microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from pymongo import ASCENDING, DESCENDING

from headrace.storage.mongo.client import Database, Document
from headrace_sync.config import SEPARATOR
from headrace_sync.store import STATE, SYNC_RUNS

_KEPT = timedelta(days=28)


class RunStatus(IntEnum):
    """How a pass is getting on; the numbers are those of the proto."""

    REQUESTED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    INTERRUPTED = 5


def status_of(run: Document) -> RunStatus:
    """The status of a stored pass, also of one that was stored before there were statuses."""
    if "st" in run:
        return RunStatus(run["st"])
    if run["end"] <= 0:
        return RunStatus.RUNNING if run["end"] else RunStatus.REQUESTED
    return RunStatus.FAILED if run["error"] else RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Date:
    """The last pass by a schedule.

    Attributes:
        began_us: When it began.
        open_us: Up to when members were due of which it has not seen all yet; 0 once it has.
    """

    began_us: int
    open_us: int = 0


class RunStore:
    """Passes in MongoDB."""

    def __init__(self, db: Database) -> None:
        self._runs = db[SYNC_RUNS]
        self._state = db[STATE]

    async def insert(self, run: Document) -> None:
        """Store a pass; `_id`, `k`, `w`, `start` and what is known of its result."""
        await self._runs.insert_one({**run, "x": datetime.now(UTC) + _KEPT})

    async def update(self, run_id: str, change: Document) -> None:
        """Change fields of a pass."""
        await self._runs.update_one({"_id": run_id}, {"$set": change})

    async def end_interrupted(self, sync_key: str, *, now: int) -> None:
        """Say of passes whose process is gone that they ended; only for who holds the sync's lease."""
        await self._runs.update_many(
            {"k": sync_key, "end": -1},
            {"$set": {"end": now, "error": "the process ended", "st": RunStatus.INTERRUPTED}},
        )

    async def requested(self, sync_key: str) -> list[Document]:
        """Passes that were asked for and not run to their end, oldest first."""
        cursor = self._runs.find({"k": sync_key, "end": 0})
        return [d async for d in cursor.sort("_id", ASCENDING)]

    async def page(self, sync_key: str, workspace_id: str, before_id: str, limit: int) -> list[Document]:
        """Passes, newest first, those before an id."""
        query: Document = {"k": sync_key, "w": workspace_id}
        if before_id:
            query["_id"] = {"$lt": before_id}
        return [d async for d in self._runs.find(query).sort("_id", DESCENDING).limit(limit)]

    async def count_ended(self, run_ids: Sequence[str], job_id: str, number: int, ended: Mapping[str, int]) -> None:
        """Add to passes what came of a round of a job that they began; the same round counts once.

        Args:
            run_ids: The passes.
            job_id: The stored job.
            number: Of the round, from 0.
            ended: Rows "added", "removed" and "failed".
        """
        rows = sum(ended.values())
        await self._runs.update_many(
            {"_id": {"$in": list(run_ids)}, f"rounds.{job_id}": {"$not": {"$gte": number}}},
            {"$set": {f"rounds.{job_id}": number}, "$inc": {**ended, "pending": -rows}},
        )

    async def date(self, sync_key: str) -> Date | None:
        """The last pass by the schedule; None when there was none."""
        document = await self._state.find_one({"_id": _date_id(sync_key)})
        return Date(int(document["t"]), int(document.get("o", 0))) if document else None

    async def begin_date(self, sync_key: str, date: Date) -> None:
        """A pass by the schedule begins."""
        await self._state.update_one(
            {"_id": _date_id(sync_key)}, {"$set": {"t": date.began_us, "o": date.open_us}}, upsert=True
        )

    async def close_date(self, sync_key: str, open_us: int) -> None:
        """The pass by the schedule that is open up to this moment has seen everybody."""
        await self._state.update_one({"_id": _date_id(sync_key), "o": open_us}, {"$unset": {"o": ""}})


def _date_id(sync_key: str) -> str:
    return f"scheduled{SEPARATOR}{sync_key}"
