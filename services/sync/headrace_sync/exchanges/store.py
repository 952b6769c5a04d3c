"""The collection `exchanges`: requests to vendors and their answers, for the delivery log.

They are kept to be read by people, so they are gathered in memory and written soon after; what a crash loses of them
changes nothing else. Deliveries and list members name the last of theirs (`ex`).

Fields: w workspace, d destination key, t time, m method, u URL, h headers, b body, n items, sc status code, a answer, x
when it expires. Secrets and personal data are masked before anything comes here. Times in microseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from pymongo.errors import PyMongoError

from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs, metrics
from headrace_sync.config import workspace_of
from headrace_sync.store import EXCHANGES

log = logs.get_logger(__name__)

_dropped = metrics.counter(
    "headrace_exchanges_dropped", "Requests that could not be kept for the delivery log.", without_labels=True
)

_MOST_GATHERED = 500
_WRITE_EVERY_S = 0.5


class ExchangeStore:
    """Exchanges in MongoDB."""

    def __init__(self, db: Database, *, days: int) -> None:
        """Keep exchanges for some days."""
        self._exchanges = db[EXCHANGES]
        self._kept = timedelta(days=days)
        self._gathered: list[Document] = []

    def add(self, destination_key: str, exchange: Document) -> None:
        """Keep an exchange, which has an id; it can be read soon."""
        if len(self._gathered) >= _MOST_GATHERED:
            _dropped.add(1)
            return
        workspace_id = workspace_of(destination_key)
        self._gathered.append(
            {**exchange, "d": destination_key, "w": workspace_id, "x": datetime.now(UTC) + self._kept}
        )

    async def run(self) -> None:
        """Write what was gathered until cancelled."""
        try:
            while True:
                await asyncio.sleep(_WRITE_EVERY_S)
                await self.write()
        finally:
            await asyncio.shield(self.write())

    async def write(self) -> None:
        """Write what was gathered; what cannot be written is dropped."""
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        try:
            await self._exchanges.insert_many(gathered, ordered=False)
        except PyMongoError:
            _dropped.add(len(gathered))
            log.warning("requests could not be kept for the delivery log", count=len(gathered))

    async def get(self, workspace_id: str, ids: Collection[str]) -> dict[str, Document]:
        """Those of the exchanges that are still kept, by id."""
        if not ids:
            return {}
        query = {"_id": {"$in": list(ids)}, "w": workspace_id}
        return {d["_id"]: d async for d in self._exchanges.find(query)}
