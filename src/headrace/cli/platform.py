"""A running platform as commands call it: one channel per service, opened when it is first needed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from headrace.cli.connection import Connection
from headrace.cli.problems import say

if TYPE_CHECKING:
    import grpc

    from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceAsyncStub
    from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceAsyncStub
    from headrace.api.identity.v1.group_service_pb2_grpc import GroupServiceAsyncStub
    from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceAsyncStub
    from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceAsyncStub
    from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceAsyncStub
    from headrace.api.sync.v1.destination_service_pb2_grpc import DestinationServiceAsyncStub
    from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceAsyncStub
    from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceAsyncStub

PAGE = 1_000


class Platform:
    """Calls the services of a running platform."""

    def __init__(self, connection: Connection) -> None:
        """Call what the connection names; nothing is opened yet."""
        self.connection = connection
        self.last_service = ""
        """Short name of the service that was last asked for a stub: what a failed call was about."""
        self._channels: dict[str, grpc.aio.Channel] = {}

    @property
    def parent(self) -> str:
        """Resource name of the workspace."""
        return self.connection.parent

    def name(self, collection: str, id: str) -> str:
        """Resource name of something in the workspace; a whole resource name is taken as it is."""
        return id if id.startswith("workspaces/") else f"{self.parent}/{collection}/{id}"

    @property
    def sources(self) -> SourceServiceAsyncStub:
        """SourceService."""
        from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub

        return SourceServiceStub(self.channel("ingest"))

    @property
    def profiles(self) -> ProfileServiceAsyncStub:
        """ProfileService."""
        from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub

        return ProfileServiceStub(self.channel("identity"))

    @property
    def groups(self) -> GroupServiceAsyncStub:
        """GroupService."""
        from headrace.api.identity.v1.group_service_pb2_grpc import GroupServiceStub

        return GroupServiceStub(self.channel("identity"))

    @property
    def identity(self) -> IdentityServiceAsyncStub:
        """IdentityService."""
        from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

        return IdentityServiceStub(self.channel("identity"))

    @property
    def computed_traits(self) -> ComputedTraitServiceAsyncStub:
        """ComputedTraitService."""
        from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceStub

        return ComputedTraitServiceStub(self.channel("identity"))

    @property
    def audiences(self) -> AudienceServiceAsyncStub:
        """AudienceService."""
        from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub

        return AudienceServiceStub(self.channel("audience"))

    @property
    def destinations(self) -> DestinationServiceAsyncStub:
        """DestinationService."""
        from headrace.api.sync.v1.destination_service_pb2_grpc import DestinationServiceStub

        return DestinationServiceStub(self.channel("sync"))

    @property
    def syncs(self) -> SyncServiceAsyncStub:
        """SyncService."""
        from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub

        return SyncServiceStub(self.channel("sync"))

    @property
    def workspaces(self) -> WorkspaceServiceAsyncStub:
        """WorkspaceService."""
        from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceStub

        return WorkspaceServiceStub(self.channel("workspace"))

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service."""
        from headrace.rpc.channel import with_token

        self.last_service = service
        if service not in self._channels:
            self._channels[service] = with_token(self.connection.address(service), self.connection.token)
        return self._channels[service]

    def use_token(self, token: str) -> None:
        """Show another token from now on."""
        assert not self._channels, "channels are open already"
        self.connection = dataclasses.replace(self.connection, token=token)

    async def close(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


async def listed(
    fetch: Callable[[int, str], Awaitable[Any]], items: str, *, limit: int, everything: bool, page: int = PAGE
) -> list[Any]:
    """The items of a listing, over as many pages as needed, as messages.

    When there are more than were asked for, standard error says so.

    Args:
        fetch: Makes the call with (page_size, page_token).
        items: Name of the field that holds the items.
        limit: At most this many, unless everything is wanted.
        everything: True for all of them.
        page: Largest size of a page.
    """
    found: list[Any] = []
    token = ""
    while everything or len(found) < limit:
        answer = await fetch(page if everything else min(page, limit - len(found)), token)
        found += getattr(answer, items)
        token = answer.next_page_token
        if not token:
            return found
    say(f"the first {len(found)} are shown: --limit N shows more, --all shows all")
    return found
