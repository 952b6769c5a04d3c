"""The event log, the backbone that services share (ADR 3).

Ingest appends segments: one document holds the events of one workspace and partition as one
compressed protobuf batch. Identity inserts one document per event, with the profile and the
decision, in the same transaction as its own changes, and then marks the segment done. Nothing
of that is ever updated, except that what was a deleted person's is emptied: a segment is done when its id stands in
`segments_done`.

Events are assigned anew when a merge is undone, identifiers are linked by hand, the graph is rebuilt or a person is
deleted (ADR 10). Identity then changes the profile and the decision of the events concerned, or removes them, and
records that in `reassignments`, which are part of the log: whoever keeps something per profile follows them too.

Everybody else only reads: the tail by sequence, or the events of given profiles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

import zstandard
from bson.binary import Binary
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.api.identity.v1.profile_pb2 import Decision, DecisionAction, ResolvedEvent
from headrace.domain.ids import event_key, new_time_ordered_id
from headrace.storage.mongo.client import Database, Document, Session

SEGMENTS = "segments"
SEGMENTS_DONE = "segments_done"
EVENTS = "events"
COUNTERS = "counters"
REASSIGNMENTS = "reassignments"
REPEATED_EVENTS = "repeated_events"

DUPLICATE_KEY = 11000

PROFILE_LINKS = "profile_links"
"""Name of the index of the events that did something to the graph of identifiers."""

_ITEMS_A_DOCUMENT = 1_000
_REPEATS_KEPT = timedelta(days=90)

# Looking these up in the enums costs much, for every event.
_CREATED = DecisionAction.DECISION_ACTION_CREATED

_EVENTS_TAG = bytes((EventBatch.EVENTS_FIELD_NUMBER << 3 | 2,))
"""What protobuf writes before the length of each event of a batch."""

INDEXES: dict[str, list[IndexModel]] = {
    EVENTS: [
        IndexModel([("s", ASCENDING)], name="sequence"),
        IndexModel([("p", ASCENDING), ("t", DESCENDING), ("s", DESCENDING)], name="profile_time"),
        # Nearly all events only repeat what is known of their person, and do not stand in it.
        IndexModel(
            [("p", ASCENDING), ("s", ASCENDING), ("l", ASCENDING)],
            name=PROFILE_LINKS,
            partialFilterExpression={"l": {"$gt": 0}},
        ),
        # Only events that name a group stand in it.
        IndexModel(
            [("w", ASCENDING), ("gr", ASCENDING), ("t", DESCENDING), ("s", DESCENDING)],
            name="group_time",
            partialFilterExpression={"gr": {"$exists": True}},
        ),
    ],
    REPEATED_EVENTS: [
        IndexModel([("k", ASCENDING)], name="event"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    REASSIGNMENTS: [
        IndexModel([("s", ASCENDING)], name="sequence"),
        IndexModel([("w", ASCENDING), ("s", ASCENDING)], name="workspace_sequence"),
        IndexModel([("u", ASCENDING), ("s", ASCENDING)], name="unsent", partialFilterExpression={"u": True}),
    ],
}
"""Indexes of the log's collections, beside those on _id; made by `headrace admin indexes`."""


class Linked(IntEnum):
    """What an event did to the graph of identifiers, the most that holds; the field `l` of events that did something.

    An event that created a profile and had nothing set aside has none: its profile has its sequence.
    """

    BLOCKED = 1
    DEMOTED = 2
    JOINED = 3


_BLOCKED, _DEMOTED, _JOINED = map(int, Linked)


class Segment(NamedTuple):
    """A segment whose events are serialised already: stored and sent on as it is, without reading it.

    Attributes:
        id: New and time-ordered.
        workspace_id: The workspace of all its events.
        partition: Its partition on the events stream.
        event_count: Number of its events.
        payload: The EventBatch, serialised.
        traceparents: Trace contexts of its events, known while tracing is on and the segment is new.
    """

    id: str
    workspace_id: str
    partition: int
    event_count: int
    payload: bytes
    traceparents: Sequence[str] = ()


class Reassigned(NamedTuple):
    """What became of a profile whose events were assigned anew.

    Attributes:
        profile_id: The profile.
        parts: All parts of it now, itself included; empty when it is no profile of its own any more.
        survivor: The profile that holds it now when it is merged into another, else "".
    """

    profile_id: str
    parts: Sequence[str]
    survivor: str = ""


class StoredReassignment(NamedTuple):
    """A recorded reassignment, or a part of a large one.

    Attributes:
        id: Its key.
        workspace_id: The workspace.
        sequence: Place in the recorded order.
        epoch: Epoch of the workspace from which it holds.
        erased: Whether the person was deleted.
        items: The profiles concerned.
    """

    id: str
    workspace_id: str
    sequence: int
    epoch: int
    erased: bool
    items: list[Reassigned]


def segment_of(workspace_id: str, partition: int, events: Sequence[bytes], traceparents: Sequence[str] = ()) -> Segment:
    """A new segment of events that are serialised already.

    Serialised messages can be put together: that spares a copy of each event as an object.
    """
    segment_id = new_time_ordered_id()
    parts = [EventBatch(segment_id=segment_id, workspace_id=workspace_id).SerializeToString()]
    for event in events:
        parts += (_EVENTS_TAG, _varint(len(event)), event)
    return Segment(segment_id, workspace_id, partition, len(events), b"".join(parts), traceparents)


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


async def append(db: Database, segments: Sequence[Segment]) -> None:
    """Make segments durable.

    Raises:
        pymongo.errors.PyMongoError: None, some or all may be stored; nothing may be acknowledged.
    """
    compress = zstandard.ZstdCompressor(level=1).compress
    await db[SEGMENTS].insert_many(
        [
            {
                "_id": segment.id,
                "w": segment.workspace_id,
                "q": segment.partition,
                "n": segment.event_count,
                "b": Binary(compress(segment.payload)),
            }
            for segment in segments
        ],
        ordered=False,
    )


async def append_segments(db: Database, batches: Sequence[EventBatch], partitions: Sequence[int]) -> None:
    """Make segments durable that are messages still.

    Args:
        db: Database.
        batches: The segments; each segment_id is new and time-ordered.
        partitions: Partition of each segment on the events stream.

    Raises:
        pymongo.errors.PyMongoError: None, some or all may be stored; nothing may be acknowledged.
    """
    await append(
        db,
        [
            Segment(batch.segment_id, batch.workspace_id, partition, len(batch.events), batch.SerializeToString())
            for batch, partition in zip(batches, partitions, strict=True)
        ],
    )


async def stored_segments(db: Database, segment_ids: Sequence[str]) -> list[Segment]:
    """The segments of these ids that are stored, in order of id, without reading their events."""
    decompress = zstandard.ZstdDecompressor().decompress
    cursor = db[SEGMENTS].find({"_id": {"$in": list(segment_ids)}}).sort("_id", ASCENDING)
    return [Segment(d["_id"], d["w"], d["q"], d["n"], decompress(d["b"])) async for d in cursor]


async def read_segments(db: Database, segment_ids: Sequence[str]) -> list[tuple[int, EventBatch]]:
    """(partition, segment) of each id that is stored, in order of id."""
    return [(s.partition, EventBatch.FromString(s.payload)) for s in await stored_segments(db, segment_ids)]


async def erase_events(db: Database, segment_id: str, is_unwanted: Callable[[Event], bool]) -> int:
    """Empty events of a segment, because their person is deleted; the others keep their places.

    Args:
        db: Database.
        segment_id: The segment; an unknown one is passed over.
        is_unwanted: Which events go.

    Returns:
        Number of events that went.
    """
    while True:
        document = await db[SEGMENTS].find_one({"_id": segment_id}, {"b": 1})
        if document is None:
            return 0
        batch = EventBatch.FromString(zstandard.ZstdDecompressor().decompress(document["b"]))
        erased = erase_from(batch, is_unwanted)
        if not erased:
            return 0
        payload = Binary(zstandard.ZstdCompressor(level=1).compress(batch.SerializeToString()))
        # Only if nobody else emptied another event meanwhile; then that one stays empty too.
        result = await db[SEGMENTS].update_one({"_id": segment_id, "b": document["b"]}, {"$set": {"b": payload}})
        if result.modified_count:
            return erased


async def add_repeats(db: Database, workspace_id: str, repeats: Iterable[tuple[str, str]]) -> None:
    """Remember that stored events came again, in other segments: whoever removes them must find those too.

    Args:
        db: Database.
        workspace_id: The workspace.
        repeats: (message id, segment id) pairs.
    """
    expires = datetime.now(UTC) + _REPEATS_KEPT
    documents: list[Document] = [
        {"_id": f"{key}\x1f{segment_id}", "k": key, "g": segment_id, "x": expires}
        for message_id, segment_id in repeats
        for key in (event_key(workspace_id, message_id),)
    ]
    try:
        if documents:
            await db[REPEATED_EVENTS].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(e["code"] != DUPLICATE_KEY for e in error.details["writeErrors"]):
            raise


async def repeats_of(db: Database, workspace_id: str, message_ids: Iterable[str]) -> AsyncIterator[tuple[str, str]]:
    """(message id, segment id) of the other segments that brought these events again."""
    by_key = {event_key(workspace_id, m): m for m in message_ids}
    async for document in db[REPEATED_EVENTS].find({"k": {"$in": list(by_key)}}):
        yield by_key[document["k"]], document["g"]


async def forget_repeats(db: Database, session: Session, workspace_id: str, message_ids: Iterable[str]) -> None:
    """Forget in which other segments events came again."""
    keys = [event_key(workspace_id, m) for m in message_ids]
    await db[REPEATED_EVENTS].delete_many({"k": {"$in": keys}}, session=session)


def erase_from(batch: EventBatch, is_unwanted: Callable[[Event], bool]) -> int:
    """Empty events of a batch in place; returns how many."""
    erased = 0
    for event in batch.events:
        if not is_erased(event) and is_unwanted(event):
            event.Clear()
            erased += 1
    return erased


def is_erased(event: Event) -> bool:
    """Whether this is only the place of an event whose person was deleted."""
    return not event.message_id and event.ByteSize() == 0


async def unfinished_segments(db: Database, after_id: str, before_id: str, limit: int) -> list[str]:
    """Ids of segments in (after_id, before_id) whose events are not all resolved, oldest first."""
    bounds = {"_id": {"$gt": after_id, "$lt": before_id}}
    done = {d["_id"] async for d in db[SEGMENTS_DONE].find(bounds, {"_id": 1})}
    unfinished: list[str] = []
    async for document in db[SEGMENTS].find(bounds, {"_id": 1}).sort("_id", ASCENDING):
        if document["_id"] not in done:
            unfinished.append(document["_id"])
            if len(unfinished) >= limit:
                break
    return unfinished


async def mark_done(db: Database, segment_ids: Iterable[str]) -> None:
    """Say that all events of these segments are resolved and sent on; saying it again is harmless."""
    documents: list[Document] = [{"_id": segment_id} for segment_id in segment_ids]
    if not documents:
        return
    try:
        await db[SEGMENTS_DONE].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(e["code"] != DUPLICATE_KEY for e in error.details["writeErrors"]):
            raise


async def next_sequence(db: Database, count: int, now_us: int) -> int:
    """Reserve `count` consecutive sequence numbers; returns the first.

    A sequence number is unique, ever increasing and at least the clock in microseconds, so a range of
    numbers is also a range of time. To give a valid order of transactions it must be taken after the
    transaction's first read and before its commit.
    """
    document = await db[COUNTERS].find_one_and_update(
        {"_id": "sequence"},
        [{"$set": {"v": {"$add": [{"$max": [{"$ifNull": ["$v", 0]}, now_us]}, count]}}}],
        upsert=True,
        return_document=True,
    )
    assert document is not None  # an upsert that returns the new document always has one
    return int(document["v"]) - count


def event_document(resolved: ResolvedEvent) -> Document:
    """The stored form of a resolved event."""
    return event_document_of(
        resolved.event,
        resolved.event.SerializeToString(),
        profile_id=resolved.profile_id,
        sequence=resolved.decision.sequence,
        decision=resolved.decision.SerializeToString(),
        resolved_at_us=resolved.resolved_at_us,
        segment_id=resolved.segment_id,
        segment_index=resolved.segment_index,
        linked=linked_of(resolved.decision),
    )


def linked_of(decision: Decision) -> int:
    """What an event did to the graph, as a value of `Linked`; 0 for nothing. A function of the decision alone."""
    set_aside = decision.set_aside
    if decision.action == _CREATED and not set_aside:
        return 0
    if decision.brought or decision.merges or decision.handovers:
        return _JOINED
    if not set_aside:
        return 0
    return _DEMOTED if any(s.action == "demoted" for s in set_aside) else _BLOCKED


def event_document_of(
    event: Event,
    serialised: bytes,
    *,
    profile_id: str,
    sequence: int,
    decision: bytes,
    resolved_at_us: int,
    segment_id: str,
    segment_index: int,
    linked: int,
) -> Document:
    """The stored form of a resolved event, for who has the event and the decision serialised already."""
    document: Document = {
        "_id": event_key(event.workspace_id, event.message_id),
        "w": event.workspace_id,
        "p": profile_id,
        "t": event.timestamp_us,
        "n": event.name,
        "o": event.source_id,
        "s": sequence,
        "r": resolved_at_us,
        "g": segment_id,
        "i": segment_index,
        "e": serialised,  # bytes are stored as binary; wrapping them in Binary costs more than serialising
        "d": decision,
    }
    if linked:
        document["l"] = linked
    if event.group_id:
        document["gr"] = event.group_id
    return document


def resolved_event(document: Document) -> ResolvedEvent:
    """A resolved event from its stored form; profile_id is the profile at the time of resolving."""
    return ResolvedEvent(
        event=Event.FromString(document["e"]),
        profile_id=document["p"],
        decision=Decision.FromString(document["d"]),
        resolved_at_us=document["r"],
        segment_id=document["g"],
        segment_index=document["i"],
    )


async def events_by_id(
    db: Database, workspace_id: str, message_ids: Iterable[str], session: Session | None = None
) -> dict[str, ResolvedEvent]:
    """The stored events among these message ids, by message id."""
    keys = [event_key(workspace_id, m) for m in message_ids]
    documents = await db[EVENTS].find({"_id": {"$in": keys}}, session=session).to_list(None)
    found = map(resolved_event, documents)
    return {r.event.message_id: r for r in found}


async def events_between(
    db: Database, from_sequence: int, to_sequence: int, workspace_id: str | None = None
) -> AsyncIterator[ResolvedEvent]:
    """Events with from_sequence <= sequence < to_sequence, in recorded order.

    A transaction that is still open may yet insert lower numbers: who keeps a position must read
    again from some seconds before it.
    """
    query: Document = {"s": {"$gte": from_sequence, "$lt": to_sequence}}
    if workspace_id is not None:
        query["w"] = workspace_id
    async for document in db[EVENTS].find(query).sort("s", ASCENDING):
        yield resolved_event(document)


async def events_of_profiles(
    db: Database, workspace_id: str, profile_ids: Sequence[str]
) -> AsyncIterator[ResolvedEvent]:
    """All events that were resolved to any of these profile ids (parts, not survivors), in no order."""
    query = {"p": {"$in": list(profile_ids)}, "w": workspace_id}
    async for document in db[EVENTS].find(query):
        yield resolved_event(document)


async def reassign_events(
    db: Database, session: Session, workspace_id: str, assigned: Iterable[tuple[str, str, bytes]]
) -> None:
    """Assign stored events anew.

    Args:
        db: Database.
        session: Transaction of the reassignment.
        workspace_id: The workspace.
        assigned: (message id, profile id, decision as bytes) of each event.
    """
    writes = []
    for message_id, profile_id, decision in assigned:
        linked = linked_of(Decision.FromString(decision))
        update: Document = {"$set": {"p": profile_id, "d": decision}}
        if linked:
            update["$set"]["l"] = linked
        else:
            update["$unset"] = {"l": ""}
        writes.append(UpdateOne({"_id": event_key(workspace_id, message_id)}, update))
    if writes:
        await db[EVENTS].bulk_write(writes, ordered=False, session=session)


async def delete_events(db: Database, session: Session, workspace_id: str, message_ids: Iterable[str]) -> int:
    """Remove stored events, because their person is deleted; returns how many there were."""
    keys = [event_key(workspace_id, m) for m in message_ids]
    result = await db[EVENTS].delete_many({"_id": {"$in": keys}}, session=session)
    return result.deleted_count


async def add_reassignments(
    db: Database,
    session: Session,
    workspace_id: str,
    *,
    epoch: int,
    sequence: int,
    items: Sequence[Reassigned],
    erased: bool = False,
) -> None:
    """Record a reassignment in its transaction.

    Args:
        db: Database.
        session: Transaction of the reassignment.
        workspace_id: The workspace.
        epoch: Epoch of the workspace from which it holds.
        sequence: Reserved in this transaction, one for all of it.
        items: The profiles concerned.
        erased: Whether the person was deleted.
    """
    documents: list[Document] = [
        {
            "_id": f"{workspace_id}\x1f{epoch:012d}\x1f{start:09d}",
            "w": workspace_id,
            "s": sequence,
            "e": epoch,
            "x": erased,
            "u": True,
            "a": [[i.profile_id, list(i.parts), i.survivor] for i in items[start : start + _ITEMS_A_DOCUMENT]],
        }
        for start in range(0, len(items), _ITEMS_A_DOCUMENT)
    ]
    if documents:
        await db[REASSIGNMENTS].insert_many(documents, ordered=False, session=session)


async def unsent_reassignments(db: Database, limit: int) -> list[StoredReassignment]:
    """Reassignments that have not been sent to the streams yet, or not for certain, in recorded order."""
    cursor = db[REASSIGNMENTS].find({"u": True}).sort([("s", ASCENDING), ("_id", ASCENDING)]).limit(limit)
    return [stored_reassignment(d) async for d in cursor]


async def mark_sent(db: Database, reassignments: Iterable[StoredReassignment]) -> None:
    """Say that these reassignments are on the streams; saying it again is harmless."""
    await db[REASSIGNMENTS].update_many({"_id": {"$in": [r.id for r in reassignments]}}, {"$unset": {"u": ""}})


async def reassignments_since(
    db: Database, from_sequence: int, workspace_id: str | None = None
) -> AsyncIterator[StoredReassignment]:
    """Reassignments with sequence >= from_sequence, in recorded order.

    A transaction that is still open may yet insert lower numbers: who keeps a position must read again from some
    seconds before it.
    """
    query: Document = {"s": {"$gte": from_sequence}}
    if workspace_id is not None:
        query["w"] = workspace_id
    async for document in db[REASSIGNMENTS].find(query).sort([("s", ASCENDING), ("_id", ASCENDING)]):
        yield stored_reassignment(document)


def stored_reassignment(document: Document) -> StoredReassignment:
    """A reassignment from its stored form."""
    return StoredReassignment(
        document["_id"],
        document["w"],
        document["s"],
        document["e"],
        document["x"],
        [Reassigned(profile_id, parts, survivor) for profile_id, parts, survivor in document["a"]],
    )
