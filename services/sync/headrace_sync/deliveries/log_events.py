"""The events of stored deliveries: in the delivery itself for event syncs, in the log for forwarding."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import DESCENDING

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import event_key
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document

LogPosition = tuple[int, int]
"""Time of an event and its sequence number."""


class LogEvents:
    """Finds events of deliveries."""

    def __init__(self, db: Database) -> None:
        """Read the log of a database."""
        self._db = db

    async def load(self, documents: Sequence[Document]) -> dict[str, Event]:
        """Events by delivery id; those that are nowhere are left out.

        The profile of a forwarded event is that of the log: it may have changed since the delivery was planned, and is
        put into the document.
        """
        found: dict[str, Event] = {}
        wanted: dict[str, list[Document]] = {}
        for document in documents:
            if "e" in document:
                found[document["_id"]] = Event.FromString(document["e"])
            else:
                wanted.setdefault(document["w"], []).append(document)
        for workspace_id, own in wanted.items():
            events = await log.events_by_id(self._db, workspace_id, {d["m"] for d in own})
            for document in own:
                resolved = events.get(document["m"])
                if resolved is not None:
                    found[document["_id"]] = resolved.event
                    document["p"] = resolved.profile_id
        return found

    async def one(self, workspace_id: str, message_id: str) -> list[tuple[LogPosition, ResolvedEvent]]:
        """The event of a message id, if it is in the log."""
        query = {"_id": event_key(workspace_id, message_id), "w": workspace_id}
        return [_placed(d) async for d in self._db[log.EVENTS].find(query)]

    async def newest(
        self, workspace_id: str, profile_ids: Sequence[str], *, before: LogPosition | None, limit: int
    ) -> list[tuple[LogPosition, ResolvedEvent]]:
        """Events of profiles, newest first, those after a position (time, sequence), each with its own."""
        query: Document = {"p": {"$in": list(profile_ids)}, "w": workspace_id}
        if before is not None:
            query["$or"] = [{"t": {"$lt": before[0]}}, {"t": before[0], "s": {"$lt": before[1]}}]
        cursor = self._db[log.EVENTS].find(query).sort([("t", DESCENDING), ("s", DESCENDING)]).limit(limit)
        return [_placed(d) async for d in cursor]

    async def profiles(self, workspace_id: str, message_ids: Sequence[str]) -> dict[str, str]:
        """The profile that each event belongs to, by message id; events that are not in the log are left out."""
        events = await log.events_by_id(self._db, workspace_id, message_ids)
        return {message_id: resolved.profile_id for message_id, resolved in events.items()}


def _placed(document: Document) -> tuple[LogPosition, ResolvedEvent]:
    return (int(document["t"]), int(document["s"])), log.resolved_event(document)
