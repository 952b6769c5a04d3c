"""The collection `sync_erasures`, and removing what deliveries and the ledger keep about a person.

Fields: w workspace, i deletion id, p digests of the person's profiles, removed true once their events have left the
log, d destination id -> {sent, o outcome, n count, t detail, l deleted syncs}, g counts removals, x when it expires. It
holds nothing about the person, and stays for a while so that nothing that comes late is sent.

The account of a sync balances at every moment: until the events of a person have left the log they are expected, so
the number of those that were removed here is kept (`sync_state`, kind "erased", by deletion) and shown as filtered by
"erased". Once they have left the log, that number is dropped and the log is counted anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import event_key
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session, transaction
from headrace_sync.batching import chunks
from headrace_sync.config import SEPARATOR, SyncConfig, erased_digest, key_of
from headrace_sync.deliveries.store import delivery_id
from headrace_sync.store import DELIVERED, DELIVERIES, ERASURES, EXCHANGES, LEDGER, LEFT_ON_LISTS, STATE, WARNING

_KEPT = timedelta(days=30)
_AT_ONCE = 1_000
_TRIES = 20


class ErasureStore:
    """What is known of deletions of people, and the removal of their deliveries."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, workspace_id: str, deletion_id: str, profile_ids: Iterable[str]) -> None:
        """Remember that a person is being deleted; repeating it adds what is new."""
        digests = [erased_digest(workspace_id, p) for p in profile_ids]
        await self._db[ERASURES].update_one(
            {"_id": key_of(workspace_id, deletion_id)},
            {
                "$addToSet": {"p": {"$each": digests}},
                "$setOnInsert": {"w": workspace_id, "i": deletion_id, "g": 0},
                "$set": {"x": datetime.now(UTC) + _KEPT},
            },
            upsert=True,
        )

    async def destinations(self, workspace_id: str, deletion_id: str) -> dict[str, Document]:
        """What is known of each destination, by its id."""
        document = await self._db[ERASURES].find_one({"_id": key_of(workspace_id, deletion_id)}, {"d": 1})
        return dict(document.get("d", {})) if document else {}

    async def note(self, workspace_id: str, deletion_id: str, destination_id: str, what: Mapping[str, Any]) -> None:
        """Remember something of a destination."""
        change = {f"d.{destination_id}.{name}": value for name, value in what.items()}
        await self._db[ERASURES].update_one({"_id": key_of(workspace_id, deletion_id)}, {"$set": change})

    async def left_on_lists(
        self, workspace_id: str, deletion_id: str, profile_ids: Sequence[str]
    ) -> dict[str, list[str]]:
        """Ids of deleted syncs on whose lists a person may still be, by destination id.

        They are remembered with the deletion, and forgotten of the person.
        """
        for part in chunks(list(profile_ids), _AT_ONCE):
            query = {"w": workspace_id, "p": {"$in": list(part)}}
            async for d in self._db[LEFT_ON_LISTS].find(query):
                await self._db[ERASURES].update_one(
                    {"_id": key_of(workspace_id, deletion_id)}, {"$addToSet": {f"d.{d['d']}.l": d["i"]}}
                )
            await self._db[LEFT_ON_LISTS].delete_many(query)
        known = await self.destinations(workspace_id, deletion_id)
        return {id: sorted(what["l"]) for id, what in known.items() if what.get("l")}

    async def events_removed(self, workspace_id: str, profile_ids: Iterable[str], sync_keys: Sequence[str]) -> None:
        """The events of these profiles have left the log: what was removed here is expected no more."""
        digests = [erased_digest(workspace_id, p) for p in profile_ids]
        query = {"p": {"$in": digests}, "w": workspace_id}
        found = [d async for d in self._db[ERASURES].find(query, {"i": 1})]
        if not found:
            return
        ids = [d["_id"] for d in found]
        await self._db[ERASURES].update_many({"_id": {"$in": ids}}, {"$set": {"removed": True}, "$inc": {"g": 1}})
        await self._db[STATE].update_many(
            {"_id": {"$in": [_erased_id(key) for key in sync_keys]}},
            {"$unset": {f"n.{_field(d['i'])}": "" for d in found}},
        )

    async def remove_deliveries(
        self,
        workspace_id: str,
        deletion_id: str,
        syncs: Mapping[str, SyncConfig],
        *,
        profile_ids: Sequence[str],
        message_ids: Sequence[str],
        sent_to: Callable[[set[str]], Awaitable[None]],
    ) -> int:
        """Remove the deliveries of a person.

        Args:
            workspace_id: The workspace.
            deletion_id: The deletion.
            syncs: Event syncs and forwarding syncs of the workspace, by key.
            profile_ids: The person's profiles.
            message_ids: Message ids of the person's events.
            sent_to: Told of the keys of destinations that were sent anything, before that is forgotten.

        Returns:
            How many there were.
        """
        queries: list[Document] = [
            {"w": workspace_id, "p": {"$in": list(part)}} for part in chunks(list(profile_ids), _AT_ONCE)
        ]
        queries += [
            {"_id": {"$in": [delivery_id(key, m) for m in part]}}
            for key in syncs
            for part in chunks(list(message_ids), _AT_ONCE)
        ]
        removed = 0
        for query in queries:
            while True:
                cursor = self._db[DELIVERIES].find(query, {"k": 1, "d": 1, "st": 1, "at": 1, "sg": 1, "e": 1, "ex": 1})
                documents = await cursor.limit(_AT_ONCE).to_list(None)
                if not documents:
                    break
                await sent_to({d["d"] for d in documents if _was_sent(d)})
                # They name nobody; that somebody's were refused is still about them.
                exchanges = [d["ex"] for d in documents if "ex" in d]
                await self._db[EXCHANGES].delete_many({"_id": {"$in": exchanges}, "w": workspace_id})
                removed += await self._remove(workspace_id, deletion_id, syncs, documents)
        return removed

    async def remove_from_ledger(
        self, workspace_id: str, deletion_id: str, sync_keys: Sequence[str], message_ids: Sequence[str]
    ) -> int:
        """Remove the places of a person's events from the ledger; returns how many there were."""
        removed = 0
        for part in chunks(list(message_ids), _AT_ONCE):
            keys = [event_key(workspace_id, m) for m in part]
            places: dict[str, list[int]] = {}
            async for d in self._db[log.EVENTS].find({"_id": {"$in": keys}}, {"g": 1, "i": 1}):
                places.setdefault(d["g"], []).append(d["i"])
            for sync_key in sync_keys if places else ():
                removed += await self._remove_places(workspace_id, deletion_id, sync_key, places)
        return removed

    async def _remove(
        self, workspace_id: str, deletion_id: str, syncs: Mapping[str, SyncConfig], documents: Sequence[Document]
    ) -> int:
        """Remove deliveries and keep their number, in one transaction."""
        counted: dict[str, list[str]] = {}
        initial: dict[str, list[str]] = {}
        for document in documents:
            sync = syncs.get(document["k"])
            kind = initial if sync is not None and _is_initial(sync, document) else counted
            kind.setdefault(document["k"], []).append(document["_id"])

        async def act(session: Session) -> int:
            removed = 0
            erased: dict[str, int] = {}
            for key, ids in counted.items():
                result = await self._db[DELIVERIES].delete_many({"_id": {"$in": ids}}, session=session)
                erased[key] = result.deleted_count
                removed += result.deleted_count
            for key, ids in initial.items():
                result = await self._db[DELIVERIES].delete_many({"_id": {"$in": ids}}, session=session)
                # Who was a member before is counted apart, and that number is all that expects them.
                await self._db[STATE].update_one(
                    {"_id": f"initial{SEPARATOR}{key}"}, {"$inc": {"n": -result.deleted_count}}, session=session
                )
                removed += result.deleted_count
            await self._count(session, workspace_id, deletion_id, {k: n for k, n in erased.items() if k in syncs})
            return removed

        return await self._transact(act)

    async def _remove_places(
        self, workspace_id: str, deletion_id: str, sync_key: str, places: Mapping[str, Sequence[int]]
    ) -> int:
        async def act(session: Session) -> int:
            removed = 0
            operations: list[UpdateOne] = []
            ids = [f"{sync_key}{SEPARATOR}{segment_id}" for segment_id in places]
            async for d in self._db[LEDGER].find({"_id": {"$in": ids}}, session=session):
                wanted = set(places[d["s"]])
                pulls = {reason: sorted(wanted.intersection(held)) for reason, held in d["f"].items()}
                pulls = {reason: own for reason, own in pulls.items() if own}
                if pulls:
                    removed += sum(map(len, pulls.values()))
                    change = {f"f.{reason}": {"$in": own} for reason, own in pulls.items()}
                    operations.append(UpdateOne({"_id": d["_id"]}, {"$pull": change}))
            if operations:
                await self._db[LEDGER].bulk_write(operations, ordered=False, session=session)
                await self._count(session, workspace_id, deletion_id, {sync_key: removed})
            return removed

        return await self._transact(act)

    async def _count(self, session: Session, workspace_id: str, deletion_id: str, erased: Mapping[str, int]) -> None:
        """Keep how many were removed per sync, as long as their events are expected."""
        document = await self._db[ERASURES].find_one_and_update(
            {"_id": key_of(workspace_id, deletion_id)}, {"$inc": {"g": 1}}, session=session
        )
        if document is None or document.get("removed"):
            return
        for key, count in erased.items():
            if count:
                await self._db[STATE].update_one(
                    {"_id": _erased_id(key)},
                    {"$inc": {f"n.{_field(deletion_id)}": count}},
                    upsert=True,
                    session=session,
                )

    async def _transact(self, act: Callable[[Session], Awaitable[int]]) -> int:
        for attempt in range(_TRIES):
            try:
                async with transaction(self._db.client) as session:
                    return await act(session)
            except PyMongoError as error:
                if not error.has_error_label("TransientTransactionError") or attempt == _TRIES - 1:
                    raise
        raise AssertionError  # the last try returned or raised


async def erased_count(db: Database, sync_key: str) -> int:
    """How many items of a sync were removed that are still expected."""
    document = await db[STATE].find_one({"_id": _erased_id(sync_key)})
    return sum(document.get("n", {}).values()) if document else 0


def _erased_id(sync_key: str) -> str:
    return f"erased{SEPARATOR}{sync_key}"


def _field(deletion_id: str) -> str:
    """A deletion's id as the name of a field."""
    return hashlib.blake2b(deletion_id.encode(), digest_size=8).hexdigest()


def _was_sent(document: Document) -> bool:
    """True when a vendor has or may have a delivery."""
    return document["st"] in (DELIVERED, WARNING) or bool(document["at"]) or bool(document.get("sg"))


def _is_initial(sync: SyncConfig, document: Document) -> bool:
    """True for who was a member before an event sync was made."""
    if not sync.is_event or "e" not in document:
        return False
    return Event.FromString(document["e"]).received_at_us < sync.created_us
