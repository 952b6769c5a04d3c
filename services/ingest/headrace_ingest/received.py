"""What sources received: raw messages, refused messages, and their repair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
from pymongo import DESCENDING
from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Event
from headrace.rpc import errors, names
from headrace.storage.mongo.client import Database, Document
from headrace_ingest.committer import Committer, NotWritten, QueueFull, Work
from headrace_ingest.limits import Limits
from headrace_ingest.location import CountryOf
from headrace_ingest.refusal import Refused, person_erased
from headrace_ingest.rejected import read_again, unpacked
from headrace_ingest.sources import SourceCache
from headrace_ingest.store import REJECTED_MESSAGES, SOURCE_MESSAGES

_RECORD = "rejected message"


class Received:
    """Reads and repairs what sources received."""

    def __init__(
        self,
        db: Database,
        committer: Committer,
        sources: SourceCache,
        limits: Limits,
        is_erased: Callable[[Event], bool] = lambda _: False,
        country_of: CountryOf | None = None,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            committer: Makes repaired events durable.
            sources: Sources as they are now.
            limits: What one message and one batch may be.
            is_erased: Whether an event's person was deleted or suppressed.
            country_of: Finds the country of an IP address; None: no country is looked for.
        """
        self._country_of = country_of
        self._is_erased = is_erased
        self._raw = db[SOURCE_MESSAGES]
        self._rejected = db[REJECTED_MESSAGES]
        self._committer = committer
        self._sources = sources
        self._limits = limits

    async def raw_messages(self, workspace_id: str, source_id: str, before: str | None, limit: int) -> list[Document]:
        """Raw messages of a source, newest first, older than a position."""
        query: Document = {"w": workspace_id, "s": source_id}
        if before is not None:
            query["_id"] = {"$lt": before}
        return [d async for d in self._raw.find(query).sort("_id", DESCENDING).limit(limit)]

    async def rejected_messages(
        self, workspace_id: str, source_id: str, message_id: str, before: str | None, limit: int
    ) -> list[Document]:
        """Refused messages of a workspace, of one source, with one message id; newest first, before a position."""
        query: Document = {"w": workspace_id}
        if source_id:
            query["s"] = source_id
        if message_id:
            query["m"] = message_id
        if before is not None:
            query["_id"] = {"$lt": before}
        return [d async for d in self._rejected.find(query).sort("_id", DESCENDING).limit(limit)]

    async def repair(self, workspace_id: str, repairs: Sequence[tuple[str, bytes]]) -> list[errors.ApiError | None]:
        """Send refused messages again.

        Those that are accepted leave the list after their events are durable. A crash between the two leaves a record
        whose repair has no further effect, because its message id is the same each time.

        Args:
            workspace_id: The workspace.
            repairs: (record id, repaired body or nothing) pairs.

        Returns:
            For each repair None, or why it was not accepted.

        Raises:
            ApiError: UNAVAILABLE or LIMIT_EXCEEDED: nothing was accepted.
        """
        ids = [record_id for record_id, _ in repairs]
        query = {"_id": {"$in": ids}, "w": workspace_id}
        records = {d["_id"]: d async for d in self._rejected.find(query)}
        outcomes: list[errors.ApiError | None] = []
        events: list[Event] = []
        accepted: list[str] = []
        for record_id, body in repairs:
            try:
                read = await self._read(records.get(record_id), body, workspace_id)
            except errors.ApiError as error:
                outcomes.append(error)
                continue
            if any(map(self._is_erased, read)):
                outcomes.append(errors.person_erased(person_erased().reason))
                if not body:
                    accepted.append(record_id)  # the record is about somebody who is to be forgotten: it goes too
                continue
            events += read
            outcomes.append(None)
            accepted.append(record_id)
        try:
            await self._committer.commit(Work(events=events))
        except QueueFull:
            raise errors.limit_exceeded("queue", "Too much is waiting: send this again later.", 1.0) from None
        except (NotWritten, PyMongoError):
            raise errors.unavailable("The event log cannot be written at the moment: nothing was accepted.") from None
        if accepted:
            await self._rejected.delete_many({"_id": {"$in": accepted}, "w": workspace_id})
        return outcomes

    async def _read(self, record: Document | None, body: bytes, workspace_id: str) -> list[Event]:
        if record is None:
            raise errors.not_found(_RECORD)
        source = await self._sources.by_id(workspace_id, record["s"])
        if source is None:
            raise errors.wrong_state(
                "deleted", f"The source {names.format(names.SOURCE, workspace_id, record['s'])} was deleted."
            )
        try:
            whole = body or unpacked(record, self._limits)
            return read_again(record, whole, source, self._limits, self._country_of)
        except Refused as refused:
            field = refused.field or "body"
            raise errors.ApiError(
                grpc.StatusCode.INVALID_ARGUMENT,
                errors.INVALID_ARGUMENT,
                refused.reason,
                metadata={"code": refused.code, "field": field},
                violations=[(field, refused.reason)],
            ) from None
