"""Keeping computed traits: adding the events of a micro-batch, and making parts anew from their events.

    computed_values  _id workspace + part + day, p workspace + part, s by generation [oldest_us, newest_us, summary],
                     x when MongoDB may remove it (buckets of days only)

Both run inside the transaction that changes the events themselves. So each event is in the buckets exactly once, and
whoever changes the same part at the same time conflicts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pymongo import UpdateOne

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import DAY_US, now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.computed.buckets import (
    LAST_DAY,
    BucketKey,
    Kept,
    bucket_key,
    loaded,
    needed_until_us,
    part_key,
    stored,
    unite,
)
from headrace_identity.computed.traits import Additions, ComputedTraits, additions
from headrace_identity.emitter import Resolved
from headrace_identity.store import COMPUTED_VALUES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def fold(
    db: Database, session: Session, workspace_id: str, traits: ComputedTraits, resolved: Iterable[Resolved]
) -> None:
    """Add the events of a micro-batch, in the transaction that stores them.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same parts, among others.
    """
    if not traits.all:
        return
    added = additions(traits, ((r.profile_id, r.event) for r in resolved), now_us())
    if not added:
        return
    keys = {bucket_key(workspace_id, key): key for key in added}
    query = {"_id": {"$in": list(keys)}}
    async for document in db[COMPUTED_VALUES].find(query, {"s": 1}, session=session):
        bucket = added[keys[document["_id"]]]
        for generation, form in document["s"].items():
            if generation in bucket:
                function = traits.by_generation[generation].function
                bucket[generation] = unite(function, loaded(function, form), bucket[generation])
    await _write(db, session, workspace_id, traits, added)


async def gather(
    db: Database,
    workspace_id: str,
    traits: ComputedTraits,
    parts: Sequence[str],
    sequences: Document,
    into: Additions,
    session: Session | None = None,
) -> int:
    """Gather what stored events of some parts add to their buckets.

    Args:
        db: Database.
        workspace_id: The workspace.
        traits: The computed traits concerned.
        parts: Ids of the parts.
        sequences: Which events, as a condition on their place in the recorded order.
        into: What earlier calls gathered; a part may have more events than should be in memory at once.
        session: A transaction, to read in its snapshot.

    Returns:
        Number of events read.
    """
    events = 0
    at_us = now_us()
    query: Document = {"p": {"$in": list(parts)}, "n": {"$in": traits.names}, "s": sequences, "w": workspace_id}
    async for document in db[log.EVENTS].find(query, {"p": 1, "e": 1}, session=session):
        event = Event.FromString(document["e"])
        for key, bucket in additions(traits, [(document["p"], event)], at_us).items():
            whole = into.setdefault(key, {})
            for generation, kept in bucket.items():
                whole[generation] = unite(traits.by_generation[generation].function, whole.get(generation), kept)
        events += 1
    return events


async def replace(
    db: Database, session: Session, workspace_id: str, traits: ComputedTraits, gathered: Additions
) -> None:
    """Put what all events of some parts add in the place of what is kept of these traits; other traits stay.

    A micro-batch that adds an event to one of these parts at the same time writes a bucket that this writes, or one in
    which there was no event before: so it conflicts, or does not matter.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same parts, among others.
    """
    await _write(db, session, workspace_id, traits, gathered)


async def rewrite(
    db: Database,
    session: Session,
    workspace_id: str,
    traits: ComputedTraits,
    old_parts: Collection[str],
    events_by_part: Mapping[str, Sequence[ResolvedEvent]],
) -> None:
    """Make everything that is kept of some parts anew, from events that are given: see `Fold.rewrite`.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same parts, among others.
    """
    gone = [part_key(workspace_id, part) for part in {*old_parts, *events_by_part}]
    await db[COMPUTED_VALUES].delete_many({"p": {"$in": gone}}, session=session)
    pairs = ((part, r.event) for part, events in events_by_part.items() for r in events)
    await _write(db, session, workspace_id, traits, additions(traits, pairs, now_us()))


async def _write(db: Database, session: Session, workspace_id: str, traits: ComputedTraits, added: Additions) -> None:
    writes = [_update(workspace_id, traits, key, bucket) for key, bucket in added.items()]
    if writes:
        await db[COMPUTED_VALUES].bulk_write(writes, ordered=False, session=session)


def _update(workspace_id: str, traits: ComputedTraits, key: BucketKey, bucket: Mapping[str, Kept]) -> UpdateOne:
    update: Document = {
        "$set": {f"s.{g}": stored(traits.by_generation[g].function, kept) for g, kept in bucket.items()},
        "$setOnInsert": {"p": part_key(workspace_id, key.part)},
    }
    if key.day is not None:
        windows = [w for g in bucket if (w := traits.by_generation[g].definition.within_us) is not None]
        update["$max"] = {"x": _date(needed_until_us(max(windows), key.day))}
    return UpdateOne({"_id": bucket_key(workspace_id, key)}, update, upsert=True)


def _date(moment_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(max(moment_us, 0), LAST_DAY * DAY_US))
