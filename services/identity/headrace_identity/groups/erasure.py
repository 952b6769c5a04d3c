"""What the events of a deleted person said of groups goes with them: the remaining events decide, as if alone.

A group that no other event names is removed. Memberships go with the person's parts, see `group_fold`.
"""

from __future__ import annotations

from collections.abc import Collection

from pymongo import DESCENDING, UpdateOne

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import event_key
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.documents import trait_row, traits_of_rows
from headrace_identity.groups.statements import Mention
from headrace_identity.groups.store import STRIPES, group_key, stripe_key
from headrace_identity.resolving.graph import TraitValue
from headrace_identity.store import GROUP_TRAITS, GROUPS

_MOST_EVENTS = 20_000
"""So many of the newest remaining events of a group are read for what it is like; older ones say no more."""


async def forget(db: Database, session: Session, workspace_id: str, message_ids: Collection[str]) -> int:
    """Forget what events said of groups, in the transaction that deletes them, and before it does.

    Args:
        db: Database.
        session: The transaction.
        workspace_id: The workspace.
        message_ids: The events.

    Returns:
        Number of traits and groups that were removed.
    """
    keys = [event_key(workspace_id, m) for m in message_ids]
    query: Document = {"_id": {"$in": keys}, "gr": {"$exists": True}}
    named = {d["gr"] async for d in db[log.EVENTS].find(query, {"gr": 1}, session=session)}
    removed = 0
    for group_id in sorted(named):
        removed += await _forget(db, session, workspace_id, group_id, frozenset(message_ids))
    return removed


async def _forget(
    db: Database, session: Session, workspace_id: str, group_id: str, message_ids: Collection[str]
) -> int:
    keys = [stripe_key(workspace_id, group_id, stripe) for stripe in range(STRIPES)]
    lost: set[str] = set()
    kept: dict[str, dict[str, TraitValue]] = {}
    async for document in db[GROUP_TRAITS].find({"_id": {"$in": keys}}, session=session):
        traits = traits_of_rows(document["tr"])
        gone = {name for name, trait in traits.items() if trait.message_id in message_ids}
        kept[document["_id"]] = {name: trait for name, trait in traits.items() if name not in gone}
        lost |= gone
    remaining: Document = {
        "w": workspace_id,
        "gr": group_id,
        "_id": {"$nin": [event_key(workspace_id, m) for m in message_ids]},
    }
    if await db[log.EVENTS].find_one(remaining, {"_id": 1}, session=session) is None:
        await db[GROUP_TRAITS].delete_many({"_id": {"$in": keys}}, session=session)
        result = await db[GROUPS].delete_one({"_id": group_key(workspace_id, group_id)}, session=session)
        return len(lost) + int(result.deleted_count)
    if not lost:
        return 0
    # Another stripe may hold an older value of what is lost here, or none the newest one that remains.
    kept[keys[0]] = kept.get(keys[0], {}) | await _newest(db, session, remaining, lost)
    writes = [
        UpdateOne({"_id": key}, {"$set": {"tr": [trait_row(n, t) for n, t in traits.items()]}}, upsert=True)
        for key, traits in kept.items()
    ]
    await db[GROUP_TRAITS].bulk_write(writes, ordered=False, session=session)
    return len(lost)


async def _newest(db: Database, session: Session, query: Document, names: Collection[str]) -> dict[str, TraitValue]:
    """The newest values of some traits of a group that the events of a query set."""
    found: dict[str, TraitValue] = {}
    cursor = db[log.EVENTS].find(query, {"e": 1}, session=session)
    async for document in cursor.sort([("t", DESCENDING), ("s", DESCENDING)]).limit(_MOST_EVENTS):
        event = Event.FromString(document["e"])
        if len(found) == len(names) and event.timestamp_us < min(t.time_us for t in found.values()):
            break
        for name, value in Mention.of(event, "", 0).traits.items():
            trait = TraitValue(value, event.timestamp_us, event.message_id, event.source_id)
            if name in names and (name not in found or trait.newer_than(found[name])):
                found[name] = trait
    return found
