"""Deliveries and what was filtered are kept for some weeks; the account of a sync begins where what is kept begins.

What waits to be sent is kept however old it is, and all that came after it, so that the account still balances.

The moment from which a sync is accounted for moves ahead first, for everybody who plans, counts and compares; what is
older goes a round later, when all processes know of it. So nothing that is forgotten is planned again, and a crash
between leaves only documents that the next round removes.
"""

from __future__ import annotations

import asyncio

from headrace.domain.ids import time_ordered_floor, time_ordered_us
from headrace.domain.times import DAY_US, now_us
from headrace.storage.mongo.client import Database, Document, aggregate
from headrace.telemetry import logs, metrics
from headrace_sync.config import SyncConfig
from headrace_sync.leases import Lease, Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.registry import Registry
from headrace_sync.store import DELIVERIES, LEDGER, STATES, WAITING, ConfigStore

log = logs.get_logger(__name__)

_forgotten = metrics.counter("headrace_deliveries_forgotten", "Deliveries that were removed because of their age.")

_LOOK_EVERY_S = 600.0
_STEP_US = DAY_US
_PLANNED_WITHIN_US = 2 * DAY_US
"""How long after an event its delivery is planned at most, for finding old deliveries by when they were planned."""
_AT_ONCE = 1_000


class Retention:
    """Removes deliveries that are too old."""

    def __init__(
        self, db: Database, store: ConfigStore, registry: Registry, accounts: Accounts, leases: Leases, *, days: int
    ) -> None:
        """Keep deliveries for so many days."""
        self._db = db
        self._store = store
        self._registry = registry
        self._accounts = accounts
        self._leases = leases
        self._keep_us = days * DAY_US

    async def run(self) -> None:
        """Remove what is too old, until cancelled."""
        while True:
            async with self._leases.hold("retention") as lease:
                if lease is not None:
                    await self.sweep(lease, now=now_us())
            await asyncio.sleep(_LOOK_EVERY_S)

    async def sweep(self, lease: Lease, *, now: int) -> None:
        """One round over all forwarding and event syncs."""
        for sync in [s for s in self._registry.current.syncs.values() if not s.is_list]:
            lease.check()
            limit = await self._limit(sync, now - self._keep_us)
            if sync.begins_us + _STEP_US <= limit:
                await self._store.begin_at(sync, limit)
                await self._accounts.count_from(sync, limit)
            elif sync.swept_us:
                await self._accounts.counted_from(sync, sync.swept_us)
                await self._forget(lease, sync, sync.swept_us)

    async def _limit(self, sync: SyncConfig, limit_us: int) -> int:
        """The moment before which all is settled: what waits, such as at a destination that was stopped, is kept."""
        old: Document = {"k": sync.key, "st": WAITING, "c": {"$lt": limit_us + _PLANNED_WITHIN_US}}
        # Deliveries were stored without `g` before there was any.
        oldest: Document = {"_id": None, "g": {"$min": "$g"}, "c": {"$min": "$c"}}
        async for found in aggregate(self._db[DELIVERIES], [{"$match": old}, {"$group": oldest}]):
            made_us = found["c"] - _PLANNED_WITHIN_US if found["g"] is None else time_ordered_us(found["g"])
            limit_us = min(limit_us, made_us)
        return limit_us

    async def _forget(self, lease: Lease, sync: SyncConfig, before_us: int) -> None:
        """Remove deliveries and ledger entries of events and changes from before a moment."""
        floor = time_ordered_floor(before_us)
        # Deliveries were stored without `g` before there was any; these go by when they were planned.
        query: Document = {
            "k": sync.key,
            "st": {"$in": [state for state in STATES if state != WAITING]},  # one may have been replayed meanwhile
            "c": {"$lt": before_us + _PLANNED_WITHIN_US},
            "$or": [{"g": {"$lt": floor}}, {"g": {"$exists": False}, "c": {"$lt": before_us}}],
        }
        while True:
            lease.check()
            ids = [d["_id"] async for d in self._db[DELIVERIES].find(query, {"_id": 1}).limit(_AT_ONCE)]
            if not ids:
                break
            result = await self._db[DELIVERIES].delete_many({"_id": {"$in": ids}})
            _forgotten.add(result.deleted_count)
        await self._db[LEDGER].delete_many({"k": sync.key, "s": {"$lt": floor}})
