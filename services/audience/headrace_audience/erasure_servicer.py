"""ErasureService of the audience service: maps protobuf to the eraser. For other services only."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from pymongo.errors import PyMongoError

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import require_service
from headrace_audience.erasure import Eraser, Whom

MOST_MESSAGES = 10_000


class ErasureServicer(ErasureServiceServicer):
    """Removes what the audience service keeps about people who are to be deleted."""

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
        whom = Whom(workspace_id, request.deletion_id, frozenset(request.profile_ids), frozenset(request.message_ids))
        try:
            places = await self._eraser.erase(whom)
        except PyMongoError:
            raise errors.unavailable("The database cannot be reached: nothing is removed yet, ask again.") from None
        return pb.ErasePersonResponse(
            places=[
                pb.ErasedPlace(
                    place=place.name,
                    outcome=pb.ERASURE_OUTCOME_FAILED if place.fault else pb.ERASURE_OUTCOME_REMOVED,
                    count=place.count,
                    detail=place.fault,
                )
                for place in places
            ]
        )
