"""What is done about events that tombstones refuse: they are counted, and what brought them is emptied.

A refused event is stored nowhere: no message id, no payload. It came in a segment of the log all the same, and perhaps
in the raw body of a webhook, when ingest had not yet heard of the tombstone. Ingest is asked to empty those; until it
has, the segment is not marked done, so that its sweeper brings the event here again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import grpc

from headrace.api.common.v1.erasure_service_pb2 import ErasePersonRequest, ErasureOutcome
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.rpc import names
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs, metrics
from headrace_identity.documents import SEPARATOR
from headrace_identity.store import REFUSED_COUNTS

_log = logs.get_logger(__name__)

NO_DELETION = "refused"
"""Stands for the id of a deletion where events are emptied that came after one."""

_KEPT_DAYS = 31
_CLEAN_SECONDS = 10.0

_refused = metrics.counter("headrace_identity_refused", "Events that were refused, by reason (deleted, suppressed).")


def count_refused(reasons: Mapping[str, int]) -> None:
    """Count refused events by reason in the metrics."""
    for reason, count in reasons.items():
        _refused.add(count, {"reason": reason})


class Refusals:
    """Counts refused events by day, and has what brought them emptied."""

    def __init__(self, db: Database, ingest: grpc.aio.Channel | None) -> None:
        """Count in a database.

        Args:
            db: Database.
            ingest: Channel to ingest; None leaves what brought the events as it is.
        """
        self._counts = db[REFUSED_COUNTS]
        self._ingest = ErasureServiceStub(ingest) if ingest is not None else None

    async def add(self, workspace_id: str, count: int) -> None:
        """Count refused events on today's account."""
        if count <= 0:
            return
        now = datetime.now(UTC)
        await self._counts.update_one(
            {"_id": f"{workspace_id}{SEPARATOR}{now:%Y-%m-%d}"},
            {"$inc": {"n": count}, "$set": {"w": workspace_id, "x": now + timedelta(days=_KEPT_DAYS)}},
            upsert=True,
        )

    async def by_day(self, workspace_id: str) -> list[tuple[str, int]]:
        """(day, count) pairs, newest first."""
        query: Document = {"w": workspace_id}
        cursor = self._counts.find(query).sort("_id", -1).limit(_KEPT_DAYS)
        return [(d["_id"].rpartition(SEPARATOR)[2], d["n"]) async for d in cursor]

    async def handle(self, workspace_id: str, refused: Sequence[tuple[str, str]]) -> bool:
        """Count refused events and have what brought them emptied.

        Args:
            workspace_id: The workspace.
            refused: (segment id, message id) of each.

        Returns:
            True when nothing is left of them; else their segments must come again.
        """
        if self._ingest is None:
            await self.add(workspace_id, len(refused))
            return True
        request = ErasePersonRequest(
            parent=names.format(names.WORKSPACE, workspace_id),
            deletion_id=NO_DELETION,
            message_ids=sorted({message_id for _, message_id in refused}),
            segment_ids=sorted({segment_id for segment_id, _ in refused if segment_id}),
        )
        try:
            answer = await self._ingest.ErasePerson(request, timeout=_CLEAN_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.warning("what brought refused events could not be emptied: they come again", failure=error)
            return False
        outcomes = Counter(place.outcome for place in answer.places)
        if outcomes[ErasureOutcome.ERASURE_OUTCOME_FAILED]:
            return False
        await self.add(workspace_id, len(refused))
        return True
