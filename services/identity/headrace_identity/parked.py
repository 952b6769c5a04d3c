"""Events that could not be processed: kept as they came, with the reason, until somebody sends them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.domain.ids import event_key, new_time_ordered_id, partition_of
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams.client import Entry
from headrace.telemetry.logs import describe_exception
from headrace_identity.store import PARKED_EVENTS

_REPLAY_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that was put aside.

    Attributes:
        workspace_id: Its workspace.
        message_id: Its message id.
        event: The event as it came.
        segment_id: Segment that brought it.
        reason: Types of the errors, the outermost first: error texts may quote personal data.
        at: Where in the code.
        parked_at_us: When, in microseconds.
    """

    workspace_id: str
    message_id: str
    event: Event
    segment_id: str
    reason: tuple[str, ...]
    at: tuple[str, ...]
    parked_at_us: int


async def park(
    db: Database, workspace_id: str, event: Event, segment_id: str, index: int, error: BaseException
) -> None:
    """Put an event aside; doing so again replaces the reason."""
    described = describe_exception(error)
    await db[PARKED_EVENTS].replace_one(
        {"_id": event_key(workspace_id, event.message_id or f"{segment_id}/{index}")},
        {
            "w": workspace_id,
            "m": event.message_id,
            "e": _compressed(event.SerializeToString()),
            "g": segment_id,
            "why": described["types"],
            "at": described["at"],
            "t": now_us(),
        },
        upsert=True,
    )


async def park_entry(db: Database, entry: Entry, error: BaseException) -> None:
    """Put a stream entry aside that is no batch of events."""
    described = describe_exception(error)
    await db[PARKED_EVENTS].replace_one(
        {"_id": event_key("", f"{entry.stream}/{entry.id}")},
        {
            "w": "",
            "m": "",
            "e": _compressed(entry.payload),
            "g": "",
            "why": described["types"],
            "at": described["at"],
            "t": now_us(),
        },
        upsert=True,
    )


async def find_parked(db: Database, workspace_id: str, message_id: str) -> ParkedEvent | None:
    """One parked event, or None."""
    document = await db[PARKED_EVENTS].find_one({"_id": event_key(workspace_id, message_id), "w": workspace_id})
    return None if document is None else _parked(document)


async def list_parked(db: Database, workspace_id: str, *, after: str = "", limit: int = 100) -> list[ParkedEvent]:
    """Parked events of a workspace by message id, those after a message id."""
    query = {"w": workspace_id, "_id": {"$gt": event_key(workspace_id, after)}}
    return [_parked(d) async for d in db[PARKED_EVENTS].find(query).sort("_id").limit(limit)]


async def replay_parked(
    db: Database, workspace_id: str, message_ids: Sequence[str] | None = None, *, event_partitions: int
) -> int:
    """Append parked events to the log again; ingest's sweeper dispatches them within seconds.

    An event that fails again is parked again, and waits for another call. A crash in between at worst leaves one parked
    that was resolved.

    Args:
        db: Database.
        workspace_id: The workspace.
        message_ids: Which ones; None means all.
        event_partitions: Number of partitions of the events stream.

    Returns:
        Number of events.
    """
    query: Document = {"w": workspace_id, "t": {"$lte": now_us()}}
    if message_ids is not None:
        query["_id"] = {"$in": [event_key(workspace_id, m) for m in message_ids]}
    replayed = 0
    while True:
        documents = [d async for d in db[PARKED_EVENTS].find(query).limit(_REPLAY_AT_ONCE)]
        if not documents:
            return replayed
        segment_id = new_time_ordered_id()
        batch = EventBatch(segment_id=segment_id, workspace_id=workspace_id, events=[_event(d) for d in documents])
        await log.append_segments(db, [batch], [partition_of(segment_id, event_partitions)])
        await db[PARKED_EVENTS].delete_many(
            {"w": workspace_id, "$or": [{"_id": d["_id"], "t": d["t"]} for d in documents]}
        )
        replayed += len(documents)


def _compressed(payload: bytes) -> bytes:
    """As in the log: so whatever the log can hold can be parked."""
    return zstandard.ZstdCompressor(level=1).compress(payload)


def _event(document: Document) -> Event:
    return Event.FromString(zstandard.ZstdDecompressor().decompress(document["e"]))


def _parked(document: Document) -> ParkedEvent:
    return ParkedEvent(
        workspace_id=document["w"],
        message_id=document["m"],
        event=_event(document),
        segment_id=document["g"],
        reason=tuple(document["why"]),
        at=tuple(document["at"]),
        parked_at_us=document["t"],
    )
