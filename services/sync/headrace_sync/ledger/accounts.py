"""The account of a sync: what should have passed it, counted where it comes from, against what became of it here.

What is expected is counted at its source (the event log, the audience's recorded changes, the audience's size), never
from what was planned: else a loss in planning could not be seen. Counting begins at a *tally*, a stored count up to a
moment that nothing can change any more, so its cost is that of the time since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document
from headrace.storage.mongo.log import EVENTS
from headrace_sync.config import SEPARATOR, SyncConfig
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.erasure.store import erased_count
from headrace_sync.lists.store import ListStore
from headrace_sync.people.audiences import Audiences
from headrace_sync.planning.rules import ERASED
from headrace_sync.store import DELIVERED, FAILED, STATE, WAITING, WARNING

SETTLED_US = 120 * SECOND_US
"""Age at which a range of sequence numbers is complete: no transaction is open for longer."""

_ON_THE_WAY_US = 10 * SECOND_US
_CLOCKS_US = 600 * SECOND_US
"""How far the clocks of ingest and identity may be apart at most."""


@dataclass(slots=True)
class Account:
    """What became of everything at one sync.

    Attributes:
        expected: Items that should have passed.
        delivered: Accepted.
        warned: Accepted with a warning.
        filtered: Not sent, by reason.
        waiting: To be sent.
        failed: In the dead letter.
    """

    expected: int = 0
    delivered: int = 0
    warned: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    failed: int = 0

    @property
    def unaccounted(self) -> int:
        """What is in none of the others: 0 once everything has passed."""
        seen = self.delivered + self.warned + sum(self.filtered.values()) + self.waiting + self.failed
        return self.expected - seen


class Accounts:
    """Draws up accounts."""

    def __init__(self, db: Database, deliveries: DeliveryStore, lists: ListStore, audiences: Audiences) -> None:
        """Count in these."""
        self._db = db
        self._deliveries = deliveries
        self._lists = lists
        self._audiences = audiences

    async def account(self, sync: SyncConfig) -> Account:
        """The account of a sync.

        Raises:
            grpc.aio.AioRpcError: The audience service does not answer.
        """
        # What became of them is counted first: whatever is counted then is among the expected.
        if sync.is_list:
            by_state, filtered = await self._lists.counts(sync.key)
            audience = await self._audiences.get(sync.audience_name)
            expected = int(audience.size) if audience is not None and not sync.deleting else 0
        else:
            by_state, filtered = await self._deliveries.counts(sync.key)
            for reason, count in (await self._deliveries.filtered_counts(sync.key)).items():
                filtered[reason] = filtered.get(reason, 0) + count
            erased = await erased_count(self._db, sync.key)
            if erased:
                filtered[ERASED] = filtered.get(ERASED, 0) + erased
            expected = await (self._events(sync) if sync.is_forwarding else self._changes(sync))
        return Account(
            expected=expected,
            delivered=by_state[DELIVERED],
            warned=by_state[WARNING],
            filtered=filtered,
            waiting=by_state[WAITING],
            failed=by_state[FAILED],
        )

    async def missing(self, sync: SyncConfig) -> tuple[int, int]:
        """(unaccounted events of a forwarding sync, moment in microseconds up to which its account balanced)."""
        mark = await self._db[STATE].find_one({"_id": f"balanced{SEPARATOR}{sync.key}"})
        return (await self.account(sync)).unaccounted, max(int(mark["s"]) if mark else 0, sync.begins_us)

    async def just_now(self, sync: SyncConfig) -> int:
        """Events of the last seconds, which may be on their way to a forwarding sync."""
        return await self._count_events(sync, {"$gte": now_us() - _ON_THE_WAY_US})

    async def balanced(self, sync: SyncConfig, until_us: int) -> None:
        """Remember that nothing from before a moment is missing."""
        await self._db[STATE].update_one(
            {"_id": f"balanced{SEPARATOR}{sync.key}"}, {"$max": {"s": until_us}}, upsert=True
        )

    async def count_again(self, workspace_id: str, syncs: Iterable[SyncConfig]) -> None:
        """Begin counting anew: events or changes that were counted have been removed from where they come from."""
        for sync in syncs:
            if sync.workspace_id == workspace_id and not sync.is_list:
                await self.count_from(sync, sync.begins_us)

    async def count_from(self, sync: SyncConfig, moment_us: int) -> None:
        """Begin counting anew at a moment."""
        await self._db[STATE].update_one({"_id": _tally_id(sync)}, _from(sync, moment_us), upsert=True)

    async def counted_from(self, sync: SyncConfig, moment_us: int) -> None:
        """Begin counting at a moment, unless it was begun there: a process may have ended before it did."""
        await self._db[STATE].update_one({"_id": _tally_id(sync), "b": {"$ne": moment_us}}, _from(sync, moment_us))

    async def initial(self, sync: SyncConfig) -> int:
        """How many people were members before an event sync was made, of those that are planned."""
        document = await self._db[STATE].find_one({"_id": _initial_id(sync)})
        return int(document["n"]) if document else 0

    async def begin_initial(self, sync: SyncConfig) -> list[str] | None:
        """Begin, or go on, to count who was a member before an event sync was made.

        Returns:
            Message ids that were about to be planned when an earlier try ended, not counted yet; None once all are.
        """
        await self._db[STATE].update_one(
            {"_id": _initial_id(sync)}, {"$setOnInsert": {"n": 0, "open": True}}, upsert=True
        )
        document = await self._db[STATE].find_one({"_id": _initial_id(sync), "open": True})
        return list(document.get("c", ())) if document else None

    async def plan_initial(self, sync: SyncConfig, message_ids: Iterable[str]) -> None:
        """Write down who is about to be planned of those who were members before: none of them is counted yet."""
        await self._db[STATE].update_one({"_id": _initial_id(sync)}, {"$set": {"c": list(message_ids)}})

    async def count_initial(self, sync: SyncConfig, planned: int) -> None:
        """Count those of them that are planned."""
        await self._db[STATE].update_one({"_id": _initial_id(sync)}, {"$inc": {"n": planned}, "$unset": {"c": ""}})

    async def end_initial(self, sync: SyncConfig) -> None:
        """All who were members before are planned."""
        await self._db[STATE].update_one({"_id": _initial_id(sync)}, {"$unset": {"open": "", "c": ""}})

    async def _events(self, sync: SyncConfig) -> int:
        """Events resolved since a forwarding sync was made, also those that belong to nobody."""
        tally = await self._tally(sync, sync.begins_us - _CLOCKS_US)
        limit = max(now_us() - SETTLED_US, tally["s"])
        settled = int(tally["n"]) + await self._count_events(sync, {"$gte": tally["s"], "$lt": limit})
        await self._advance(tally, settled, limit)
        return settled + await self._count_events(sync, {"$gte": limit})

    async def _count_events(self, sync: SyncConfig, sequences: dict[str, int]) -> int:
        return await self._db[EVENTS].count_documents(
            {"s": sequences, "w": sync.workspace_id, "g": {"$gte": sync.forwarding.first_segment_id}}
        )

    async def _changes(self, sync: SyncConfig) -> int:
        """Changes of the audience's memberships since an event sync was made, and who was a member before."""
        tally = await self._tally(sync, sync.begins_us)
        limit = max(now_us() - SETTLED_US, tally["s"])
        old = new = 0
        async for change in self._audiences.changes_since(sync.audience_name, tally["s"]):
            if change.changed_at_us < limit:
                old += 1
            else:
                new += 1
        await self._advance(tally, tally["n"] + old, limit)
        # Who was a member before the sync was made is told of at its beginning, which may not be kept any more.
        initial = 0 if sync.swept_us else await self.initial(sync)
        return int(tally["n"]) + old + new + initial

    async def _tally(self, sync: SyncConfig, begin_us: int) -> Document:
        id = _tally_id(sync)
        found: Any = await self._db[STATE].find_one({"_id": id})
        return found or {"_id": id, "n": 0, "s": max(begin_us, 0)}

    async def _advance(self, tally: Document, count: int, until_us: int) -> None:
        """Store a tally, unless another process did meanwhile, or counting began anew."""
        if until_us > tally["s"]:
            await self._db[STATE].update_one(
                {"_id": tally["_id"], "s": {"$lt": until_us}, "e": tally.get("e")},
                {"$set": {"n": count, "s": until_us}},
            )
            await self._db[STATE].update_one(
                {"_id": tally["_id"]}, {"$setOnInsert": {"n": count, "s": until_us}}, upsert=True
            )


def _initial_id(sync: SyncConfig) -> str:
    return f"initial{SEPARATOR}{sync.key}"


def _tally_id(sync: SyncConfig) -> str:
    return f"tally{SEPARATOR}{sync.key}"


def _from(sync: SyncConfig, moment_us: int) -> Document:
    """The change that begins the counting of a sync anew."""
    begin_us = moment_us - (_CLOCKS_US if sync.is_forwarding else 0)
    return {"$set": {"n": 0, "s": max(begin_us, 0), "b": moment_us}, "$inc": {"e": 1}}
