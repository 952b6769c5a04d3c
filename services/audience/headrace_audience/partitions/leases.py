"""Leases on numbered shares of work, divided fairly between replicas, with fencing tokens.

A lease is a document with an owner, the moment it expires (by the clock of the database, so the clocks of replicas do
not matter) and a token that grows with each change of owner. A replica renews what it holds, takes what is free up to
its fair share and gives back what it holds above it. When it cannot reach the database it stops by itself before
anybody else may start: it counts the lease from the moment it *asked* for the renewal, with its own monotonic clock.

A writer that was too slow to notice is stopped by the token: see ``headrace_audience.memberships.flips``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pymongo.errors import BulkWriteError, PyMongoError

from headrace.storage.mongo.client import Database, Document
from headrace.storage.mongo.log import DUPLICATE_KEY
from headrace.telemetry import logs
from headrace_audience.store import LEASES

log = logs.get_logger(__name__)


class Leases:
    """The leases of one group that this replica holds.

    Call tick() often (run() does); between ticks `held` says what is held, `token` under which token.
    """

    def __init__(
        self,
        db: Database,
        *,
        group: str,
        count: int,
        owner: str,
        ttl_s: float = 6.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Take part in dividing `count` leases.

        Args:
            db: Database.
            group: Name of the kind of work, "partition" or "archive".
            count: Number of leases, 0 to count - 1.
            owner: Id of this replica, new for each start of a process.
            ttl_s: Seconds without renewal after which a lease is free.
            on_change: Called when `held` has changed.
        """
        self._db = db
        self._group = group
        self._count = count
        self._owner = owner
        self._ttl_s = ttl_s
        self._on_change = on_change
        self._tokens: dict[int, int] = {}
        self._valid_until = 0.0
        self._made = False
        self._releasing: set[int] = set()

    @property
    def owner(self) -> str:
        """Id of this replica."""
        return self._owner

    @property
    def is_alive(self) -> bool:
        """Whether the database was reached lately, whatever is held."""
        return time.monotonic() < self._valid_until

    @property
    def held(self) -> Mapping[int, int]:
        """Share to token of all leases that are certainly held at this moment."""
        return MappingProxyType(self._tokens if time.monotonic() < self._valid_until else {})

    @property
    def surplus(self) -> frozenset[int]:
        """Shares held above the fair share: whoever works on them finishes and calls release()."""
        return frozenset(self._releasing & set(self._tokens))

    async def run(self) -> None:
        """Renew, take and give back until cancelled; then give back everything."""
        try:
            while True:
                try:
                    await self.tick()
                except PyMongoError as error:
                    log.warning("leases cannot be renewed", group=self._group, error=type(error).__name__)
                await asyncio.sleep(min(1.0, self._ttl_s / 4))
        finally:
            await asyncio.shield(self._leave())

    async def tick(self) -> None:
        """Renew what is held, take free leases up to the fair share, name the surplus.

        Raises:
            pymongo.errors.PyMongoError: Nothing is known to be renewed; what is held runs out.
        """
        leases = self._db[LEASES]
        asked = time.monotonic()
        if not self._made:
            await self._make()
        expires = {"$add": ["$$NOW", int(self._ttl_s * 1000)]}
        await leases.update_one(
            {"_id": self._replica_id()},
            [{"$set": {"g": self._group, "replica": self._owner, "expires": expires}}],
            upsert=True,
        )
        alive = {"$expr": {"$gt": ["$expires", "$$NOW"]}}
        mine = {"g": self._group, "owner": self._owner}
        await leases.update_many({**mine, **alive}, [{"$set": {"expires": expires}}])
        replicas = await leases.count_documents({"g": self._group, "replica": {"$exists": True}, **alive})
        share = -(-self._count // max(replicas, 1))
        owned = await self._owned()
        missing = share - len(owned)
        if missing > 0:
            free_query: Document = {
                "g": self._group,
                "n": {"$exists": True},
                "$expr": {"$lte": ["$expires", "$$NOW"]},
            }
            free = [d["_id"] async for d in leases.find(free_query, {"_id": 1}).limit(missing)]
            if free:
                await leases.update_many(
                    {**free_query, "_id": {"$in": free}},
                    [{"$set": {"owner": self._owner, "expires": expires, "token": {"$add": ["$token", 1]}}}],
                )
                owned = await self._owned()
        self._releasing = set(sorted(owned)[share:])
        before, was_valid = self._tokens, asked < self._valid_until
        self._tokens = owned
        self._valid_until = asked + self._ttl_s * 0.8
        if before != owned or not was_valid:
            log.info("leases changed", group=self._group, held=len(owned), share=share, replicas=replicas)
            self._on_change()

    async def release(self, share: int) -> None:
        """Give back one lease, when the work on it is finished."""
        token = self._tokens.pop(share, None)
        self._releasing.discard(share)
        if token is not None:
            await self._db[LEASES].update_one(
                {"_id": f"{self._group}:{share}", "owner": self._owner, "token": token},
                [{"$set": {"owner": None, "expires": "$$NOW"}}],
            )

    async def _owned(self) -> dict[int, int]:
        query: Document = {"g": self._group, "owner": self._owner, "$expr": {"$gt": ["$expires", "$$NOW"]}}
        return {d["n"]: d["token"] async for d in self._db[LEASES].find(query, {"n": 1, "token": 1})}

    async def _make(self) -> None:
        documents: list[Document] = [
            {"_id": f"{self._group}:{n}", "g": self._group, "n": n, "owner": None, "token": 0}
            for n in range(self._count)
        ]
        try:
            await self._db[LEASES].insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if any(e["code"] != DUPLICATE_KEY for e in error.details["writeErrors"]):
                raise
        self._made = True

    async def _leave(self) -> None:
        self._tokens = {}
        self._valid_until = 0.0
        try:
            await self._db[LEASES].update_many(
                {"g": self._group, "owner": self._owner}, [{"$set": {"owner": None, "expires": "$$NOW"}}]
            )
            await self._db[LEASES].delete_one({"_id": self._replica_id()})
        except PyMongoError as error:
            log.warning("leases run out by themselves", group=self._group, error=type(error).__name__)

    def _replica_id(self) -> str:
        return f"{self._group}:replica:{self._owner}"
