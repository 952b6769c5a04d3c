"""ErasureService of the sync service: maps protobuf to the eraser. For other services only."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from pymongo.errors import PyMongoError

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import require_service
from headrace_sync.erasure import Eraser, Result, Whom

MOST_MESSAGES = 10_000

_OUTCOMES = {
    Result.REMOVED: pb.ERASURE_OUTCOME_REMOVED,
    Result.REQUESTED: pb.ERASURE_OUTCOME_REQUESTED,
    Result.NOT_SUPPORTED: pb.ERASURE_OUTCOME_NOT_SUPPORTED,
    Result.FAILED: pb.ERASURE_OUTCOME_FAILED,
}


class ErasureServicer(ErasureServiceServicer):
    """Removes what the sync service keeps about people who are to be deleted, and asks destinations."""

    def __init__(self, eraser: Eraser) -> None:
        """Serve from what removes."""
        self._eraser = eraser

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        """See the proto."""
        require_service()
        (workspace_id,) = names.parse(names.WORKSPACE, request.parent, "parent")
        if not request.deletion_id:
            raise errors.invalid_argument("deletion_id", "is required")
        if len(request.message_ids) > MOST_MESSAGES:
            raise errors.invalid_argument("message_ids", f"must be at most {MOST_MESSAGES}")
        identifiers: dict[str, list[str]] = {}
        for identifier in request.identifiers:
            identifiers.setdefault(identifier.namespace, []).append(identifier.value)
        whom = Whom(
            workspace_id,
            request.deletion_id,
            list(dict.fromkeys(request.profile_ids)),
            identifiers,
            list(dict.fromkeys(request.message_ids)),
        )
        try:
            places = await self._eraser.erase(whom)
        except PyMongoError:
            raise errors.unavailable("The database cannot be reached: ask again.") from None
        return pb.ErasePersonResponse(
            places=[
                pb.ErasedPlace(place=p.name, outcome=_OUTCOMES[p.result], count=p.count, detail=p.detail)
                for p in places
            ]
        )
