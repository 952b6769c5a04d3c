"""Members and changes of audiences, asked of the audience service."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc

from headrace.api.audience.v1.audience_pb2 import Audience, Member, MembershipChange
from headrace.api.audience.v1.audience_service_pb2 import (
    GetAudienceRequest,
    ListMembershipChangesRequest,
    ListMembersRequest,
)
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub

_PAGE = 1_000
_NAME_KEPT_S = 60.0


class Audiences:
    """Reads audiences through `AudienceService`.

    Every method raises grpc.aio.AioRpcError when the service does not answer.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Ask over a channel of the service's own."""
        self._stub = AudienceServiceStub(channel)
        self._names: dict[str, tuple[float, str]] = {}

    async def get(self, name: str) -> Audience | None:
        """The audience of a resource name; None when there is none."""
        try:
            return (await self._stub.GetAudience(GetAudienceRequest(name=name))).audience
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def display_name(self, name: str) -> str:
        """The name for people of an audience, as of a minute ago at most; empty when there is no such audience."""
        known = self._names.get(name)
        if known is None or time.monotonic() - known[0] > _NAME_KEPT_S:
            audience = await self.get(name)
            known = self._names[name] = (time.monotonic(), audience.display_name if audience is not None else "")
        return known[1]

    async def members(self, name: str) -> AsyncIterator[Member]:
        """All members, by profile id; those who come or go meanwhile may be among them or not."""
        token = ""
        while True:
            members, token = await self.page(name, _PAGE, token)
            for member in members:
                yield member
            if not token:
                return

    async def page(self, name: str, size: int, token: str) -> tuple[list[Member], str]:
        """(members by profile id, token of the page after them): a page of members; the first one has no token."""
        answer = await self._stub.ListMembers(ListMembersRequest(parent=name, page_size=size, page_token=token))
        return list(answer.members), answer.next_page_token

    async def changes_since(self, name: str, since_us: int) -> AsyncIterator[MembershipChange]:
        """Recorded changes that were found at or after a moment in microseconds, newest first."""
        token = ""
        while True:
            request = ListMembershipChangesRequest(parent=name, page_size=_PAGE, page_token=token)
            answer = await self._stub.ListMembershipChanges(request)
            for change in answer.changes:
                if change.changed_at_us < since_us:
                    return
                yield change
            token = answer.next_page_token
            if not token:
                return
