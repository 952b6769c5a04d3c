"""ErasureService of ingest: maps protobuf to the eraser. For other services only."""

# ruff: noqa: N802 - the methods are named by the proto
from __future__ import annotations

from typing import Any

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import require_service
from headrace_ingest.erasure import Erased, Eraser

_MOST_MESSAGES = 10_000


class ErasureServicer(ErasureServiceServicer):
    """Removes what ingest keeps about people who are to be deleted."""

    def __init__(self, eraser: Eraser) -> None:
        """Serve from what removes."""
        self._eraser = eraser

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        """Removes everything about a person."""
        require_service()
        (workspace_id,) = names.parse(names.WORKSPACE, request.parent, "parent")
        if not request.deletion_id:
            raise errors.invalid_argument("deletion_id", "is required")
        if len(request.message_ids) > _MOST_MESSAGES:
            raise errors.invalid_argument("message_ids", f"must be at most {_MOST_MESSAGES}")
        whom = Erased(
            workspace_id,
            frozenset((i.namespace, i.value) for i in (*request.identifiers, *request.raw_identifiers)),
            frozenset(request.message_ids),
            tuple(request.segment_ids),
        )
        try:
            counts = await self._eraser.erase(whom)
        except (PyMongoError, RedisError, OSError):
            raise errors.unavailable("A store cannot be reached: not everything is removed, ask again.") from None
        return pb.ErasePersonResponse(
            places=[
                pb.ErasedPlace(place=place, outcome=pb.ErasureOutcome.ERASURE_OUTCOME_REMOVED, count=count)
                for place, count in counts.items()
            ]
        )
