"""Removes what identity itself keeps about a person, and tells the others by the log.

Other people stay as they are, also those whose events carried an identifier of the person without being theirs. The
order matters: events go first, so that nobody who reads the log finds them after they were told to forget the person.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import zstandard
from google.protobuf.message import DecodeError

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.times import now_us
from headrace.rpc.idempotency import REQUEST_IDS
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session, transaction
from headrace.storage.mongo.log import Reassigned
from headrace_identity import gates, workspaces
from headrace_identity.deletion.person import Person
from headrace_identity.deletion.receipt import REMOVED, Place
from headrace_identity.deletion.records import Tally
from headrace_identity.documents import SEPARATOR, identifier_key, profile_from, profile_key
from headrace_identity.groups import erasure as group_erasure
from headrace_identity.reassign.folds import FOLDS
from headrace_identity.rebuilds.store import forget_examples
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import (
    DEMOTIONS,
    GROUPS,
    IDENTIFIERS,
    IDENTITY_ALARMS,
    IDENTITY_LINKS,
    IDENTITY_REBUILDS,
    PARKED_EVENTS,
    PROFILES,
)
from headrace_identity.workspaces import Workspaces

_CHUNK = 1_000
_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)


class Remover:
    """Removes people from what identity keeps. Every step may be repeated."""

    def __init__(self, db: Database, *, committed: Callable[[], None] = lambda: None) -> None:
        """Work on a database.

        Args:
            db: Database.
            committed: Wakes whoever announces reassignments.
        """
        self._db = db
        self._committed = committed
        self._workspaces = Workspaces(db)

    async def events(self, workspace_id: str, person: Person, tally: Tally) -> None:
        """Remove the person's events from the log."""
        query = {"p": {"$in": person.parts}, "w": workspace_id}
        while person.parts:
            found = await self._db[log.EVENTS].find(query, {"_id": 1}).limit(_CHUNK).to_list(None)
            if not found:
                return
            message_ids = [d["_id"].partition(SEPARATOR)[2] for d in found]
            async with transaction(self._db.client) as session:
                said = await group_erasure.forget(self._db, session, workspace_id, message_ids)
                count = await log.delete_events(self._db, session, workspace_id, message_ids)
                await log.forget_repeats(self._db, session, workspace_id, message_ids)
                await tally.add([_place(log.EVENTS, count), _place(GROUPS, said)], session)
            tally.sure()

    async def people(self, workspace_id: str, person: Person, tally: Tally) -> None:
        """Remove the person's profiles and everything beside them, and record that in the log: one transaction."""

        async def act(session: Session) -> None:
            await tally.add(await self._people(session, workspace_id, person), session)

        await gates.change(self._db, workspace_id, act)
        tally.sure()
        self._committed()

    async def rest(self, workspace_id: str, person: Person, deletion_id: str, tally: Tally) -> None:
        """Remove what lies elsewhere: parked events, and answers to repeated calls."""
        parked = await self._parked(workspace_id, person)
        answers = await self._answers(workspace_id, person, deletion_id)
        await tally.add([parked, answers])
        tally.sure()

    async def _people(self, session: Session, workspace_id: str, person: Person) -> list[Place]:
        db = self._db
        keys = [profile_key(workspace_id, part) for part in person.parts]
        documents = await db[PROFILES].find({"_id": {"$in": keys}}, session=session).to_list(None)
        held = set(person.identifiers)
        for document in documents:
            held.update(profile_from(document).identifiers)
        places = [
            await self._delete(session, IDENTIFIERS, "_id", _keys(workspace_id, held), {"p": {"$in": person.parts}}),
            await self._delete(session, DEMOTIONS, "k", _keys(workspace_id, held)),
            await self._links(session, workspace_id, held),
            await self._alarms(session, workspace_id, person, held),
            _place(IDENTITY_REBUILDS, await forget_examples(self._db, session, workspace_id)),
        ]
        # An identifier that nobody holds may have left a mark, because a decision relied on nobody's holding it.
        await self._delete(session, IDENTIFIERS, "_id", _keys(workspace_id, held), {"p": ""})
        if documents:
            workspace = await self._workspaces.read(workspace_id, session)
            for fold in FOLDS:
                await fold.rewrite(db, session, workspace, person.parts, {})
            places.append(await self._delete(session, PROFILES, "_id", keys))
            epoch = await workspaces.count(db, session, workspace_id, "e")
            sequence = await log.next_sequence(db, 1, now_us())
            gone = [Reassigned(part, ()) for part in person.parts]
            await log.add_reassignments(
                db, session, workspace_id, epoch=epoch, sequence=sequence, items=gone, erased=True
            )
        return places

    async def _delete(
        self, session: Session, collection: str, field: str, keys: Sequence[str], more: Document | None = None
    ) -> Place:
        count = 0
        for start in range(0, len(keys), _CHUNK):
            query: Document = {field: {"$in": list(keys[start : start + _CHUNK])}, **(more or {})}
            count += (await self._db[collection].delete_many(query, session=session)).deleted_count
        return _place(collection, count)

    async def _links(self, session: Session, workspace_id: str, held: Collection[Identifier]) -> Place:
        """Manual links that name the person: their tombstones keep the identifiers from joining anybody."""
        pairs = [list(identifier) for identifier in held]
        query = {"w": workspace_id, "$or": [{"a": {"$in": pairs}}, {"b": {"$in": pairs}}]}
        result = await self._db[IDENTITY_LINKS].delete_many(query, session=session)
        if result.deleted_count:
            await workspaces.count(self._db, session, workspace_id, "l")
        return _place(IDENTITY_LINKS, result.deleted_count)

    async def _alarms(self, session: Session, workspace_id: str, person: Person, held: Collection[Identifier]) -> Place:
        named = [{"p": {"$in": person.parts}}, {"i": {"$in": [list(identifier) for identifier in held]}}]
        result = await self._db[IDENTITY_ALARMS].delete_many({"w": workspace_id, "$or": named}, session=session)
        return _place(IDENTITY_ALARMS, result.deleted_count)

    async def _parked(self, workspace_id: str, person: Person) -> Place:
        """Parked events that carry an identifier of the person, in the form in which they came."""
        named = {*person.identifiers, *(form for form, _ in person.forms)} - set(person.shared)
        count = 0
        cursor = self._db[PARKED_EVENTS].find({"w": workspace_id}, {"e": 1})
        async for document in cursor:
            try:
                event = Event.FromString(zstandard.ZstdDecompressor().decompress(document["e"]))
            except DecodeError:
                continue
            if any((i.namespace, i.value.strip()) in named for i in event.identifiers):
                result = await self._db[PARKED_EVENTS].delete_one({"_id": document["_id"], "w": workspace_id})
                count += result.deleted_count
        return _place(PARKED_EVENTS, count)

    async def _answers(self, workspace_id: str, person: Person, deletion_id: str) -> Place:
        """Answers to repeated calls that name the person; whoever repeats such a call is answered anew."""
        texts = [value.encode() for _, value in person.identifiers if value]
        texts += [part.encode() for part in person.parts]
        texts.append(deletion_id.encode())
        bounds = {"$gte": f"{workspace_id}{SEPARATOR}", "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}
        found = []
        async for document in self._db[REQUEST_IDS].find({"_id": bounds, "w": workspace_id}, {"b": 1}):
            if any(text in document["b"] for text in texts):
                found.append(document["_id"])
        if not found:
            return _place(REQUEST_IDS, 0)
        result = await self._db[REQUEST_IDS].delete_many({"_id": {"$in": found}, "w": workspace_id})
        return _place(REQUEST_IDS, result.deleted_count)


def _keys(workspace_id: str, identifiers: Iterable[Identifier]) -> list[str]:
    return sorted(identifier_key(workspace_id, i) for i in identifiers)


def _place(name: str, count: int) -> Place:
    return Place(name, REMOVED, count)
