"""How an audience went: who entered and left each day, and its size at the end of each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from headrace.storage.mongo.client import Database, Document, aggregate
from headrace_audience.calls.handlers import Audiences
from headrace_audience.language.spans import Calendar
from headrace_audience.store import CHANGES

MOST_DAYS = 366

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Day(NamedTuple):
    """One day of an audience: its date as "2026-01-31", how many entered and left, and the size at its end."""

    date: str
    entered: int
    left: int
    size: int


class Histories:
    """Reads how audiences went."""

    def __init__(self, db: Database, audiences: Audiences) -> None:
        """Read from a database."""
        self._db = db
        self._audiences = audiences

    async def days(self, workspace_id: str, audience_id: str, days: int, zone: str, now_us: int) -> list[Day]:
        """The last days of an audience, today included, oldest first.

        Args:
            workspace_id: The workspace.
            audience_id: The audience.
            days: How many, at most MOST_DAYS.
            zone: Time zone in which days begin.
            now_us: The present, in microseconds.

        Raises:
            ApiError: NOT_FOUND.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        counts = await self._counts(workspace_id, audience_id, Calendar(days, zone).start(now_us) + 1, zone)
        size = await self._audiences.size(document)
        today = (_EPOCH + timedelta(microseconds=now_us)).astimezone(ZoneInfo(zone)).date()
        found: list[Day] = []
        for back in range(days):
            date = (today - timedelta(days=back)).isoformat()
            entered, left = counts.get((date, True), 0), counts.get((date, False), 0)
            found.append(Day(date, entered, left, size))
            size -= entered - left
        return found[::-1]

    async def _counts(
        self, workspace_id: str, audience_id: str, from_us: int, zone: str
    ) -> Mapping[tuple[str, bool], int]:
        moment = {"$toDate": {"$toLong": {"$floor": {"$divide": ["$t", 1000]}}}}
        date = {"$dateToString": {"date": moment, "format": "%Y-%m-%d", "timezone": zone}}
        pipeline: list[Document] = [
            {"$match": {"w": workspace_id, "a": audience_id, "t": {"$gte": from_us}}},
            {"$group": {"_id": {"date": date, "in": "$in"}, "n": {"$sum": 1}}},
        ]
        counts: dict[tuple[str, bool], int] = {}
        async for document in aggregate(self._db[CHANGES], pipeline):
            key: Mapping[str, Any] = document["_id"]
            counts[key["date"], key["in"]] = document["n"]
        return counts
