"""The 360 degree view of a person: what identity knows, and what the other services say, in one call.

Everything is asked for at the same time, each with a limit of time. What cannot be read is named, and never a reason to
hide the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import grpc.aio
from pymongo.errors import PyMongoError

from headrace.api.audience.v1.audience_service_pb2 import ListProfileAudiencesRequest
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.api.identity.v1.profile_service_pb2 import (
    AudienceOfProfile,
    DeliveryOfProfile,
    GetProfileViewResponse,
)
from headrace.api.sync.v1.sync_service_pb2 import DeliveryState, ListDeliveriesRequest
from headrace.api.sync.v1.sync_service_pb2_grpc import SyncServiceStub
from headrace.rpc import names
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs
from headrace_identity.calls.link_messages import link_message
from headrace_identity.calls.profile_messages import profile_message
from headrace_identity.deletion.requests import Requests
from headrace_identity.explaining.graph_view import GraphView
from headrace_identity.links_store import LinksStore
from headrace_identity.people.history import Histories, Page
from headrace_identity.people.profiles import Person, Profiles
from headrace_identity.resolving.graph import TraitValue
from headrace_identity.workspaces import Workspaces

_log = logs.get_logger(__name__)

_TIMEOUT_S = 3.0
_MOST_MERGES = 100
_MOST_PARTS = 1_000
_NO_HISTORY: Page[TraitValue] = Page([], None)


@dataclass(slots=True)
class View:
    """The view of a person.

    Attributes:
        response: What is known.
        events: The newest events, with one more than asked for when there are more.
        trait_history: The newest values of traits.
    """

    response: GetProfileViewResponse
    events: list[ResolvedEvent] = field(default_factory=list)
    trait_history: Page[TraitValue] = _NO_HISTORY


class Viewer:
    """Puts views together."""

    def __init__(
        self,
        db: Database,
        profiles: Profiles,
        histories: Histories,
        deletions: Requests,
        *,
        audience: grpc.aio.Channel,
        sync: grpc.aio.Channel,
    ) -> None:
        """Ask the other services over channels that carry the service token."""
        self._profiles = profiles
        self._histories = histories
        self._deletions = deletions
        self._graph = GraphView(db)
        self._workspaces = Workspaces(db)
        self._links = LinksStore(db)
        self._audiences = AudienceServiceStub(audience)
        self._syncs = SyncServiceStub(sync)

    async def view(self, workspace_id: str, person: Person, *, events: int, deliveries: int, trait_values: int) -> View:
        """The view of a person.

        Args:
            workspace_id: The workspace.
            person: The person.
            events: So many of the newest events, and one more.
            deliveries: So many of the newest deliveries.
            trait_values: So many of the newest values of traits.
        """
        view = View(GetProfileViewResponse(profile=profile_message(workspace_id, person)))
        response = view.response
        parts = {
            "events": self._read_events(workspace_id, person, events, view),
            "trait_history": self._read_trait_history(workspace_id, person, trait_values, view),
            "audiences": self._add_audiences(workspace_id, person, response),
            "deliveries": self._add_deliveries(workspace_id, person, deliveries, response),
            "merges": self._add_merges(workspace_id, person, response),
            "manual_links": self._add_links(workspace_id, person, response),
            "deletion": self._add_deletion(workspace_id, person, response),
        }
        read = await asyncio.gather(*(_is_read(name, part) for name, part in parts.items()))
        response.unavailable.extend(name for name, done in zip(parts, read, strict=True) if not done)
        return view

    async def _read_events(self, workspace_id: str, person: Person, count: int, view: View) -> None:
        view.events = await self._profiles.events(workspace_id, person, limit=count + 1)

    async def _read_trait_history(self, workspace_id: str, person: Person, count: int, view: View) -> None:
        view.trait_history = await self._histories.trait(workspace_id, person.profile, "", None, count)

    async def _add_audiences(self, workspace_id: str, person: Person, response: GetProfileViewResponse) -> None:
        request = ListProfileAudiencesRequest(
            parent=names.format(names.WORKSPACE, workspace_id),
            profile_id=person.profile.id,
            parts=person.profile.parts[:_MOST_PARTS],
        )
        answer = await self._audiences.ListProfileAudiences(request, timeout=_TIMEOUT_S)
        response.audiences.extend(
            AudienceOfProfile(
                audience=found.audience,
                display_name=found.display_name,
                since_us=found.since_us,
                leaves_at_us=found.leaves_at_us,
            )
            for found in answer.audiences
        )

    async def _add_deliveries(
        self, workspace_id: str, person: Person, count: int, response: GetProfileViewResponse
    ) -> None:
        request = ListDeliveriesRequest(
            parent=names.format(names.WORKSPACE, workspace_id),
            profile_ids=person.profile.parts[:_MOST_PARTS],
            page_size=count,
        )
        answer = await self._syncs.ListDeliveries(request, timeout=_TIMEOUT_S)
        response.deliveries.extend(
            DeliveryOfProfile(
                sync=found.sync,
                item=found.message_id or found.operation,
                state=DeliveryState.Name(found.state).removeprefix("DELIVERY_STATE_").lower(),
                detail=found.reason,
                update_time=found.update_time if found.HasField("update_time") else found.create_time,
            )
            for found in answer.deliveries[:count]
        )

    async def _add_merges(self, workspace_id: str, person: Person, response: GetProfileViewResponse) -> None:
        merges = await self._graph.merges(workspace_id, person.profile, before=None, limit=_MOST_MERGES)
        response.merges.extend(merges)

    async def _add_deletion(self, workspace_id: str, person: Person, response: GetProfileViewResponse) -> None:
        profile = person.profile
        deletion, suppressed = await self._deletions.state_of(workspace_id, profile.parts, list(profile.identifiers))
        response.deletion, response.suppressed = deletion, suppressed

    async def _add_links(self, workspace_id: str, person: Person, response: GetProfileViewResponse) -> None:
        links = await self._links.read(await self._workspaces.read(workspace_id))
        found = links.concerning(person.profile.identifiers)
        response.manual_links.extend(link_message(workspace_id, link) for link in found)


async def _is_read(name: str, part: Awaitable[None]) -> bool:
    """Whether a part of the view could be read; it is awaited for some seconds."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await part
    except (TimeoutError, PyMongoError, grpc.aio.AioRpcError) as error:
        _log.warning("a part of a view cannot be read", part=name, failure=type(error).__name__)
        return False
    return True
