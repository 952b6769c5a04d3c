"""Which processes of this service live, so that what a dead one held is free at once and not only after its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs
from headrace_sync.config import SEPARATOR
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.jobs.store import JobStore
from headrace_sync.registry import Registry
from headrace_sync.store import STATE

log = logs.get_logger(__name__)

_PREFIX = f"alive{SEPARATOR}"


class Alive:
    """Says that this process lives, and gives back what processes held that no longer do."""

    def __init__(
        self,
        *,
        db: Database,
        owner: str,
        deliveries: DeliveryStore,
        jobs: JobStore,
        registry: Registry,
        wake_workers: Callable[[], None],
        ttl_s: float,
    ) -> None:
        """Wire it; `run` starts it.

        Args:
            db: Database.
            owner: Unique name of this process.
            deliveries: What processes hold.
            jobs: What they ask vendors for.
            registry: All destinations.
            wake_workers: Called when something was given back.
            ttl_s: Seconds of silence after which a process counts as dead.
        """
        self._state = db[STATE]
        self._owner = owner
        self._deliveries = deliveries
        self._jobs = jobs
        self._registry = registry
        self._wake_workers = wake_workers
        self._ttl_s = ttl_s

    async def run(self) -> None:
        """Beat and look after the others until cancelled."""
        while True:
            now = now_us()
            until = now + int(self._ttl_s * SECOND_US)
            await self._state.update_one({"_id": _PREFIX + self._owner}, {"$set": {"until": until}}, upsert=True)
            ids = {"$gt": _PREFIX, "$lt": _PREFIX + "~"}
            dead = [d["_id"] async for d in self._state.find({"_id": ids, "until": {"$lt": now}}, {"_id": 1})]
            for id in dead:
                await self._bury(id)
            await asyncio.sleep(self._ttl_s / 4)

    async def leave(self) -> None:
        """Say that this process ends in order: it has given everything back."""
        await self._state.delete_one({"_id": _PREFIX + self._owner})

    async def _bury(self, id: str) -> None:
        keys = list(self._registry.current.destinations)
        owner = id.removeprefix(_PREFIX)
        freed = await self._deliveries.free(keys, owner=owner, now=now_us())
        await self._jobs.free(owner, now=now_us())
        await self._state.delete_one({"_id": id})
        if freed:
            log.info("deliveries of a process that is gone are free again", count=freed)
            self._wake_workers()
