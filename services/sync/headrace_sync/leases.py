"""Leases in the store: work that one process at a time does, taken over when that process is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymongo.errors import DuplicateKeyError, PyMongoError

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from headrace_sync.config import SEPARATOR
from headrace_sync.store import STATE


class LeaseLost(Exception):
    """Somebody else may have begun the work: stop at once."""


class Lease:
    """A held lease.

    Attributes:
        lost: True when it could not be kept.
    """

    def __init__(self) -> None:
        self.lost = False

    def check(self) -> None:
        """Go on only while it is held.

        Raises:
            LeaseLost: It is not.
        """
        if self.lost:
            raise LeaseLost


class Leases:
    """Takes leases for this process."""

    def __init__(self, db: Database, *, owner: str, ttl_s: float = 10.0) -> None:
        """Take leases in a database.

        Args:
            db: Database.
            owner: Unique name of this process.
            ttl_s: Seconds after which an unrenewed lease is free.
        """
        self._state = db[STATE]
        self._owner = owner
        self._ttl_s = ttl_s

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease | None]:
        """Hold a lease inside the block; None when somebody else has it."""
        if not await self._take(name):
            yield None
            return
        lease = Lease()
        keeper = asyncio.create_task(self._keep(name, lease))
        try:
            yield lease
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            if not lease.lost:
                await self._state.delete_one({"_id": _id(name), "owner": self._owner})

    async def _take(self, name: str) -> bool:
        now = now_us()
        until = now + int(self._ttl_s * SECOND_US)
        try:
            result = await self._state.update_one(
                {"_id": _id(name), "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]},
                {"$set": {"owner": self._owner, "until": until}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return bool(result.matched_count or result.upserted_id)

    async def _keep(self, name: str, lease: Lease) -> None:
        asked = asyncio.get_running_loop().time
        last = asked()
        while not lease.lost:
            await asyncio.sleep(self._ttl_s / 4)
            began = asked()
            try:
                if await self._take(name):
                    last = began
                else:
                    lease.lost = True
            except PyMongoError:
                lease.lost = asked() - last > self._ttl_s * 0.8


def _id(name: str) -> str:
    return f"lease{SEPARATOR}{name}"
