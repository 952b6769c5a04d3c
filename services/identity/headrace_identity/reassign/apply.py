"""Puts a plan in place, inside the one transaction of a reassignment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pymongo import DeleteOne, ReplaceOne, UpdateOne

from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity import demotions, workspaces
from headrace_identity.documents import identifier_key, profile_key, profile_of_key
from headrace_identity.reassign.closure import Closure
from headrace_identity.reassign.plan import Plan, Stored
from headrace_identity.store import IDENTIFIERS, PROFILES

_CHUNK = 2_000


async def read_stored(db: Database, session: Session, workspace_id: str, closure: Closure) -> Stored:
    """Read what is stored of the people of a closure, beside their events."""
    stored = Stored()
    for chunk in _chunks(sorted(closure.parts)):
        keys = [profile_key(workspace_id, p) for p in chunk]
        async for document in db[PROFILES].find({"_id": {"$in": keys}}, session=session):
            stored.profiles[profile_of_key(document["_id"])] = document
    identifiers = closure.identifiers | closure.recorded_identifiers()
    identifiers |= {(namespace, value) for d in stored.profiles.values() for namespace, value, _ in d["ids"]}
    for chunk in _chunks(sorted(identifiers)):
        by_key = {identifier_key(workspace_id, i): i for i in chunk}
        async for document in db[IDENTIFIERS].find({"_id": {"$in": list(by_key)}}, {"p": 1}, session=session):
            if document["p"] in stored.profiles:
                stored.holders[by_key[document["_id"]]] = document["p"]
        # Only of these people: one shared value may have been demoted for very many others.
        for parts in _chunks(sorted(stored.profiles)):
            stored.demotions |= await demotions.find(db, session, workspace_id, chunk, parts=parts)
    return stored


async def write_people(db: Database, session: Session, workspace_id: str, plan: Plan) -> None:
    """Write profiles, identifiers and demotions of a plan.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same, among others.
    """
    profiles: list[ReplaceOne[Document] | DeleteOne] = [
        ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in plan.profiles.values()
    ]
    profiles += [DeleteOne({"_id": profile_key(workspace_id, p)}) for p in plan.removed_profiles]
    await _bulk(db, session, PROFILES, profiles)
    identifiers: list[UpdateOne | DeleteOne] = [
        UpdateOne({"_id": identifier_key(workspace_id, i)}, {"$set": {"p": part}}, upsert=True)
        for i, part in plan.holders.items()
    ]
    identifiers += [DeleteOne({"_id": identifier_key(workspace_id, i)}) for i in plan.freed]
    await _bulk(db, session, IDENTIFIERS, identifiers)
    await demotions.add(db, session, workspace_id, plan.demotions)
    await demotions.remove(db, session, workspace_id, plan.removed_demotions)


async def write_events(db: Database, session: Session, workspace_id: str, plan: Plan) -> None:
    """Assign events anew."""
    await log.reassign_events(db, session, workspace_id, plan.events)


async def record(db: Database, session: Session, workspace_id: str, plan: Plan) -> int:
    """Record a plan in the log. Returns the epoch from which it holds."""
    epoch = await workspaces.count(db, session, workspace_id, "e")
    sequence = await log.next_sequence(db, 1, now_us())
    await log.add_reassignments(db, session, workspace_id, epoch=epoch, sequence=sequence, items=plan.affected)
    return epoch


async def _bulk(db: Database, session: Session, collection: str, writes: Sequence[Any]) -> None:
    for chunk in _chunks(writes):
        await db[collection].bulk_write(list(chunk), ordered=False, session=session)


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
