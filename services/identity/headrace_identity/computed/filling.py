"""Filling computed traits from the stored events, and removing values that nobody asks for any more.

Filling goes through the parts in order of their ids. For some of them at a time one transaction puts what follows from
all their events, those of its snapshot, in the place of what micro-batches have added so far, and remembers where it
is; what they add afterwards comes on top. So it does not matter which events were added before, nothing is added twice,
and filling stands a crash, live traffic and reassignments at any moment.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymongo.errors import PyMongoError

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document, Session, transaction
from headrace.telemetry import logs, metrics
from headrace_identity import gates, workspaces
from headrace_identity.computed import folding
from headrace_identity.computed.store import FILLING, READY, compiled, of_workspace
from headrace_identity.computed.traits import Additions, ComputedTrait, ComputedTraits
from headrace_identity.documents import SEPARATOR, profile_of_key
from headrace_identity.failures import is_conflict
from headrace_identity.store import COMPUTED_TRAIT_REMOVALS, COMPUTED_TRAITS, COMPUTED_VALUES, PROFILES
from headrace_identity.worker import AtStep, no_step
from headrace_identity.workspaces import Workspaces

_log = logs.get_logger(__name__)

_failures = metrics.counter(
    "headrace_identity_computed_failures",
    "Times that filling or removing a computed trait failed, and was put off.",
    without_labels=True,
)

_LEASE_US = 20 * SECOND_US
_EVENTS_AT_A_TIME = 5_000
_MOST_PARTS = 1_000
_FIRST_PARTS = 100
_REMOVED_AT_A_TIME = 1_000
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PUT_OFF_US = 60 * SECOND_US


class _Superseded(Exception):
    """The trait was changed or removed meanwhile, another replica fills it, or events were reassigned."""


class Filler:
    """Fills and removes, for all workspaces. Any number may run; each piece of work is done by one of them."""

    def __init__(self, db: Database, *, poll_s: float = 2.0, most_parts: int = _MOST_PARTS, at_step: AtStep = no_step):
        """Work on a database.

        Args:
            db: Database.
            poll_s: How often to look for work that other replicas were given, in seconds.
            most_parts: Parts in one transaction, at most.
            at_step: Called between any two steps; tests end it there, or let somebody else be quicker.
        """
        self._db = db
        self._poll_s = poll_s
        self._most_parts = most_parts
        self._at_step = at_step
        self._owner = os.urandom(8).hex()
        self._parts = min(_FIRST_PARTS, most_parts)
        self._workspaces = Workspaces(db)
        self._gate = gates.choose()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look for work at once."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        pause_s = _PAUSE_S
        while True:
            self._changed.clear()
            try:
                worked = await self._step_or_put_off()
                pause_s = _PAUSE_S
            except (PyMongoError, gates.GateClosed) as error:
                if isinstance(error, PyMongoError) and not is_conflict(error):
                    raise
                # Somebody else changed the same people. Perhaps it was too much for one transaction.
                self._parts = max(1, self._parts // 2)
                self._gate = gates.choose()
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if not worked:
                try:
                    async with asyncio.timeout(self._poll_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _step_or_put_off(self) -> bool:
        """Do one piece of work. One at which anything fails but the store waits: it holds up no other workspace."""
        try:
            return await self.step()
        except (PyMongoError, gates.GateClosed):
            raise
        except Exception as error:
            _log.error("a computed trait cannot be worked on", failure=type(error).__name__)
            _failures.add(1)
            for collection in (COMPUTED_TRAITS, COMPUTED_TRAIT_REMOVALS):
                # What this replica works on now; any of them takes it up again.
                put_off = {"$set": {"lo": "", "lu": now_us() + _PUT_OFF_US}}
                await self._db[collection].update_many({"lo": self._owner}, put_off)
            return True

    async def step(self) -> bool:
        """Do one piece of work, if there is any that no other replica is at; returns whether there was.

        Raises:
            GateClosed: What it follows from was changed meanwhile; nothing of it was done.
            pymongo.errors.PyMongoError: Nothing of it was done, or all of it; trying again is safe.
        """
        trait = await self._take(COMPUTED_TRAITS, {"st": FILLING})
        if trait is not None:
            await self._fill(trait)
            return True
        removal = await self._take(COMPUTED_TRAIT_REMOVALS, {})
        if removal is not None:
            await self._remove(removal)
            return True
        return False

    async def _take(self, collection: str, query: Document) -> Document | None:
        now = now_us()
        free: Document = {**query, "$or": [{"lo": self._owner}, {"lu": {"$lte": now}}]}
        lease = {"$set": {"lo": self._owner, "lu": now + _LEASE_US}}
        return await self._db[collection].find_one_and_update(free, lease, return_document=True)

    async def _fill(self, document: Document) -> None:
        workspace_id = document["w"]
        trait = compiled(document)
        traits = ComputedTraits([trait])
        await self._at_step("taken")
        gathered: Additions = {}
        async with self._renewing(document):
            epoch = (await self._workspaces.read(workspace_id)).epoch
            parts = await self._next_parts(workspace_id, document["at"])
            await self._at_step("read parts")
            # All that was resolved before the trait was defined is stored, and what comes later is not among it: so
            # the bulk of the events is read outside of the transaction, which must not take long.
            before = {"$lt": document["h"]}
            events = await folding.gather(self._db, workspace_id, traits, parts, before, gathered)
            await self._at_step("gathered")
        done = len(parts) < self._parts
        try:
            async with transaction(self._db.client) as session:
                await self._check_epoch(session, workspace_id, epoch)
                since = {"$gte": document["h"]}
                events += await folding.gather(self._db, workspace_id, traits, parts, since, gathered, session)
                await self._at_step("gathered the rest")
                await folding.replace(self._db, session, workspace_id, traits, gathered)
                await self._at_step("filled")
                await self._advance(session, document, trait, parts, events, done=done)
                await self._at_step("advanced")
                # A reassignment that takes all events from one of these parts writes no bucket: it closes the gates.
                await gates.pass_gate(self._db, session, workspace_id, self._gate)
        except _Superseded:
            return
        await self._at_step("committed")
        if done:
            _log.info("a computed trait was filled", workspace=workspace_id, computed_trait=trait.id)
        # As many parts as have about so many events: a transaction must not take long.
        share = _EVENTS_AT_A_TIME / max(events, 1)
        self._parts = max(1, min(self._most_parts, round(self._parts * min(share, 2))))

    async def _check_epoch(self, session: Session, workspace_id: str, epoch: int) -> None:
        """Events may have gone to other parts since they were read."""
        if (await self._workspaces.read(workspace_id, session)).epoch != epoch:
            raise _Superseded

    @asynccontextmanager
    async def _renewing(self, document: Document) -> AsyncIterator[None]:
        """Renew the lease inside the block, which may read very many events."""
        mine = {"_id": document["_id"], "lo": self._owner}

        async def renew() -> None:
            while True:
                await asyncio.sleep(_LEASE_US / SECOND_US / 4)
                lease = {"$set": {"lu": now_us() + _LEASE_US}}
                await self._db[COMPUTED_TRAITS].update_one(mine, lease)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _next_parts(self, workspace_id: str, after: str) -> list[str]:
        cursor = self._db[PROFILES].find(of_workspace(workspace_id, after), {"_id": 1}).sort("_id", 1)
        return [profile_of_key(d["_id"]) async for d in cursor.limit(self._parts)]

    async def _advance(
        self, session: Session, document: Document, trait: ComputedTrait, parts: list[str], events: int, *, done: bool
    ) -> None:
        mine: Document = {"_id": document["_id"], "g": trait.generation, "lo": self._owner, "at": document["at"]}
        change: Document = {"lu": now_us() + _LEASE_US}
        if parts:
            change["at"] = parts[-1]
        if done:
            change["st"] = READY
            # So that who has read the definitions reads them again. What micro-batches fold stays the same.
            await workspaces.count(self._db, session, document["w"], "c")
        result = await self._db[COMPUTED_TRAITS].update_one(
            mine, {"$set": change, "$inc": {"done": events}}, session=session
        )
        if not result.matched_count:
            raise _Superseded

    async def _remove(self, removal: Document) -> None:
        values = self._db[COMPUTED_VALUES]
        after = of_workspace(removal["w"], removal["at"])
        await self._at_step("taken")
        cursor = values.find(after, {"_id": 1}).sort("_id", 1).limit(_REMOVED_AT_A_TIME)
        keys = [d["_id"] async for d in cursor]
        if keys:
            these = {"_id": {"$gte": keys[0], "$lte": keys[-1]}}
            field = f"s.{removal['g']}"
            await values.update_many({**these, field: {"$exists": True}}, {"$unset": {field: ""}})
            await self._at_step("unset")
            await values.delete_many({**these, "s": {}})
            await self._at_step("removed")
        mine = {"_id": removal["_id"], "lo": self._owner}
        if len(keys) < _REMOVED_AT_A_TIME:
            await self._db[COMPUTED_TRAIT_REMOVALS].delete_one(mine)
        else:
            change = {"at": keys[-1].partition(SEPARATOR)[2], "lu": now_us() + _LEASE_US}
            await self._db[COMPUTED_TRAIT_REMOVALS].update_one(mine, {"$set": change})
