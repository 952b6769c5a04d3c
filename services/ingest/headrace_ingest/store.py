"""The collections of the ingest service: documents, ids and indexes.

``sources`` holds where events come from. ``source_messages`` holds raw webhook bodies, ``rejected_messages`` what was
refused; both are insert-only and expire. ``ingest_marks`` remembers up to where everything is finished. The log's
``segments`` are in `headrace.storage.mongo.log`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bson.binary import Binary
from pymongo import ASCENDING, DESCENDING, IndexModel

from headrace.domain.ids import new_time_ordered_id
from headrace.storage.mongo.client import Database, Document
from headrace.storage.mongo.log import SEGMENTS, SEGMENTS_DONE

SOURCES = "sources"
SOURCE_MESSAGES = "source_messages"
REJECTED_MESSAGES = "rejected_messages"
MARKS = "ingest_marks"

INDEXES: dict[str, list[IndexModel]] = {
    SOURCES: [
        IndexModel([("w", ASCENDING), ("i", ASCENDING)], name="workspace_source"),
        IndexModel([("k", ASCENDING)], name="secret", unique=True),
    ],
    SOURCE_MESSAGES: [
        IndexModel([("w", ASCENDING), ("s", ASCENDING), ("_id", DESCENDING)], name="workspace_source_time"),
        IndexModel([("w", ASCENDING), ("m", ASCENDING)], name="workspace_message"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    REJECTED_MESSAGES: [
        IndexModel([("w", ASCENDING), ("_id", DESCENDING)], name="workspace_time"),
        IndexModel([("w", ASCENDING), ("s", ASCENDING), ("_id", DESCENDING)], name="workspace_source_time"),
        IndexModel(
            [("w", ASCENDING), ("m", ASCENDING), ("_id", DESCENDING)],
            name="workspace_message_time",
            partialFilterExpression={"m": {"$gt": ""}},
        ),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
}
"""Indexes beside those on _id; made by `headrace admin indexes`."""


def raw_message_document(
    *,
    id: str,
    workspace_id: str,
    source_id: str,
    received_at_us: int,
    body: bytes,
    content_type: str,
    message_ids: Sequence[str],
    expires: datetime,
) -> Document:
    """The stored form of a raw message."""
    return {
        "_id": id,
        "w": workspace_id,
        "s": source_id,
        "t": received_at_us,
        "c": content_type,
        "b": Binary(body),
        "m": list(message_ids),
        "x": expires,
    }


def rejected_document(
    *,
    workspace_id: str,
    source_id: str,
    received_at_us: int,
    code: str,
    reason: str,
    field: str,
    message_id: str,
    body: bytes,
    max_body: int,
    form: str,
    sent_at: str | float | None,
    content_type: str,
    traceparent: str,
    country: str,
    expires: datetime,
) -> Document:
    """The stored form of a refused message.

    Args:
        workspace_id: Its workspace.
        source_id: Its source.
        received_at_us: When it came.
        code: Why it was refused.
        reason: The same in a sentence.
        field: The field at fault.
        message_id: The message's own id, when it could be read.
        body: As it came.
        max_body: How much of the body is kept, in bytes.
        form: What the body is: a kind of `messages.KINDS`, "message", "body", "event", "record" or "webhook".
        sent_at: `sentAt` of the batch that it came in.
        content_type: As it was sent.
        traceparent: Trace context of the request.
        country: Country of the address that it came from; "" for none.
        expires: When it is forgotten.
    """
    return {
        "_id": new_time_ordered_id(),
        "w": workspace_id,
        "s": source_id,
        "t": received_at_us,
        "code": code,
        "reason": reason,
        "field": field,
        "m": message_id,
        "b": Binary(body[:max_body]),
        "n": len(body),
        "form": form,
        "sent": sent_at,
        "c": content_type,
        "tp": traceparent,
        "co": country,
        "x": expires,
    }


async def waiting_segments(
    db: Database, after_id: str, before_id: str, limit: int, skip_partitions: Sequence[int] = ()
) -> tuple[list[tuple[str, int]], str]:
    """One page of the log: which of its segments are not finished.

    Args:
        db: Database.
        after_id: Where the page begins, without it.
        before_id: Where the log ends for this look, without it.
        limit: Most segments of the page.
        skip_partitions: Partitions that are of no interest now.

    Returns:
        (segment id, partition) pairs, oldest first, and the id of the page's last segment; "" when the page is the
        last one.
    """
    query: Document = {"_id": {"$gt": after_id, "$lt": before_id}}
    if skip_partitions:
        query["q"] = {"$nin": list(skip_partitions)}
    found = await db[SEGMENTS].find(query, {"_id": 1, "q": 1}).sort("_id", ASCENDING).limit(limit).to_list(None)
    if not found:
        return [], ""
    page = [(d["_id"], d["q"]) for d in found]
    last = page[-1][0]
    done = await _ids(db, SEGMENTS_DONE, {"$gt": after_id, "$lte": last})
    return [entry for entry in page if entry[0] not in done], last if len(page) == limit else ""


async def expire_segments(db: Database, before_id: str, page: int = 5_000) -> int:
    """Remove finished segments older than an id, page by page; unfinished ones stay whatever their age.

    A mark goes only after its segment: a segment without a mark would look unfinished.

    Returns:
        Number of removed segments.
    """
    removed = 0
    after = ""
    while True:
        bounds = {"$gt": after, "$lt": before_id}
        found = await db[SEGMENTS].find({"_id": bounds}, {"_id": 1}).sort("_id", ASCENDING).limit(page).to_list(None)
        ids = [d["_id"] for d in found]
        upper = ids[-1] if len(ids) == page else before_id
        span = {"$gt": after, "$lte": upper}
        done = await _ids(db, SEGMENTS_DONE, span)
        finished = done.intersection(ids)
        if len(finished) == len(ids):
            result = await db[SEGMENTS].delete_many({"_id": {"$gt": after, "$lte": ids[-1]}}) if ids else None
        else:
            result = await db[SEGMENTS].delete_many({"_id": {"$in": list(finished)}}) if finished else None
        removed += result.deleted_count if result is not None else 0
        if done:
            await db[SEGMENTS_DONE].delete_many({"_id": span})
        if len(ids) < page:
            return removed
        after = upper


async def _ids(db: Database, collection: str, bounds: Document) -> set[str]:
    return {d["_id"] for d in await db[collection].find({"_id": bounds}, {"_id": 1}).to_list(None)}


async def read_mark(db: Database, name: str) -> str:
    """A remembered position; "" when there is none."""
    document = await db[MARKS].find_one({"_id": name})
    return str(document["v"]) if document else ""


async def write_mark(db: Database, name: str, position: str) -> None:
    """Remember a position; it only goes forward, whoever writes it."""
    await db[MARKS].update_one({"_id": name}, {"$max": {"v": position}}, upsert=True)
