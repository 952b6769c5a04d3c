"""ErasureService: the same frame in every service that keeps something about people. For other services only."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.common.v1 import erasure_service_pb2 as pb
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import require_service

MOST_MESSAGES = 10_000
"""Message ids in one call."""

Erase = Callable[[str, pb.ErasePersonRequest], Awaitable[Sequence[pb.ErasedPlace]]]
"""Removes a person of a workspace (its id) and says what became of each place."""


class ErasureServicer(ErasureServiceServicer):
    """Serves what a service does to remove people who are to be deleted."""

    def __init__(self, erase: Erase) -> None:
        """Serve a service's own way of removing; doing it again must be harmless."""
        self._erase = erase

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        """See the proto."""
        require_service()
        (workspace_id,) = names.parse(names.WORKSPACE, request.parent, "parent")
        if not request.deletion_id:
            raise errors.invalid_argument("deletion_id", "is required")
        if len(request.message_ids) > MOST_MESSAGES:
            raise errors.invalid_argument("message_ids", f"must be at most {MOST_MESSAGES}")
        try:
            places = await self._erase(workspace_id, request)
        except (PyMongoError, RedisError, OSError):
            raise errors.unavailable("A store cannot be reached: not everything is removed, ask again.") from None
        return pb.ErasePersonResponse(places=places)
