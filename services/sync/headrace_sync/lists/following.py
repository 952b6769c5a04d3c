"""Following what the rows of list syncs go by: mappings, settings of destinations, lists.

Whoever begins a pass, and so holds the lease of the sync's passes, compares what rows go by now with what the last pass
went by. When it differs, members are marked first, and what they were marked by is remembered after that: a crash
between the two marks them once more, which changes nothing. A process that knows of older changes than the one before
it waits until it has caught up.
"""

from __future__ import annotations

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace_sync.config import SEPARATOR, SyncConfig
from headrace_sync.lists.store import ListStore
from headrace_sync.lists.targets import Change, Place, RowsBy, rows_by
from headrace_sync.plans.store import PlanStore
from headrace_sync.store import STATE


class Following:
    """Marks members when their rows go by something else."""

    def __init__(self, db: Database, lists: ListStore, plans: PlanStore) -> None:
        """Remember in a database.

        Args:
            db: Has the state of syncs.
            lists: The members.
            plans: Plans, which hold for one list alone.
        """
        self._db = db
        self._lists = lists
        self._plans = plans
        self._known: dict[str, Document] = {}

    async def is_behind(self, sync: SyncConfig, place: Place) -> bool:
        """True when members have to be marked, or nothing is remembered of the sync yet."""
        now = rows_by(sync, place).document()
        if self._known.get(sync.key) == now:
            return False
        stored = await self._read(sync.key)
        if stored is None or await self.change(sync, place):
            return True
        self._known[sync.key] = now
        return False

    async def change(self, sync: SyncConfig, place: Place) -> Change:
        """How what rows go by differs from what the last pass went by."""
        return rows_by(sync, place).change_since(await self._read(sync.key))

    async def follow(self, sync: SyncConfig, place: Place) -> bool:
        """Mark members when their rows go by something else; only for who holds the lease of the sync's passes.

        Returns:
            False when this process does not know yet what they go by now.
        """
        now = rows_by(sync, place)
        stored = await self._read(sync.key)
        if now.is_older_than(stored):
            return False
        change = now.change_since(stored)
        if change is Change.LIST:
            await self._plans.close(sync.key)
            await self._lists.mark_elsewhere(sync.key, now=now_us())
        elif change:
            doubt = change is Change.SETTINGS
            await self._lists.mark_all(sync.key, now=now_us(), doubt=doubt, at_once=False, waits=doubt)
        if stored is None or change:
            await self._remember(sync.key, now)
        return True

    async def is_of(self, sync_key: str, sign: str) -> bool:
        """True when the rows of a sync still go to a place, by its sign; only for who holds its lease."""
        stored = await self._read(sync_key)
        return stored is None or Place(stored["l"], stored["s"]).sign == sign

    async def _remember(self, sync_key: str, now: RowsBy) -> None:
        document = {"_id": _id(sync_key), **now.document()}
        await self._db[STATE].replace_one({"_id": document["_id"]}, document, upsert=True)

    async def _read(self, sync_key: str) -> Document | None:
        found: Document | None = await self._db[STATE].find_one({"_id": _id(sync_key)})
        return found


def _id(sync_key: str) -> str:
    return f"rows{SEPARATOR}{sync_key}"
