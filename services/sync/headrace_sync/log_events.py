"""The events of stored deliveries: in the delivery itself for event syncs, in the log for forwarding."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.common.v1.event_pb2 import Event
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document


class LogEvents:
    """Finds events of deliveries."""

    def __init__(self, db: Database) -> None:
        """Read the log of a database."""
        self._db = db

    async def load(self, documents: Sequence[Document]) -> dict[str, Event]:
        """Events by delivery id; those that are nowhere are left out."""
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
        return found
