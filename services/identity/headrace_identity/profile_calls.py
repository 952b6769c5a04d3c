"""Reading profiles and their events one by one, as methods of ProfileService: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from headrace.api.identity.v1 import profile_service_pb2
from headrace.rpc import auth, names
from headrace.rpc.errors import invalid_argument, not_found
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ
from headrace_identity.journey import Journeys
from headrace_identity.profile_messages import profile_message
from headrace_identity.profiles import EventPosition, Person, Profiles
from headrace_identity.rules_store import RulesStore

pb = profile_service_pb2

_MOST_IN_A_BATCH = 1_000
_MOST_NAMES = 100


class ProfileCalls:
    """Serves what ProfileService says of profiles one by one."""

    def __init__(self, profiles: Profiles, rules: RulesStore, journeys: Journeys, pager: Pager) -> None:
        """Serve from what reads profiles, rules and journeys."""
        self._profiles = profiles
        self._rules = rules
        self._journeys = journeys
        self._pager = pager

    async def LookupProfile(self, request: pb.LookupProfileRequest, context: Any) -> pb.LookupProfileResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        identifier = request.identifier
        if not identifier.namespace:
            raise invalid_argument("identifier.namespace", "is required")
        if not identifier.value.strip():
            raise invalid_argument("identifier.value", "is required")
        _, rules = await self._rules.read(workspace_id)
        checked = rules.check(identifier.namespace, identifier.value)
        if checked.rule:
            raise invalid_argument("identifier", f"identifies nobody, by the rules of the workspace ({checked.rule})")
        person = await self._profiles.find(workspace_id, (identifier.namespace, checked.value))
        if person is None:
            # Not the value: it may be an email, and errors are logged.
            raise not_found(f"{request.parent}/profiles: a profile with this {identifier.namespace}")
        return pb.LookupProfileResponse(profile=profile_message(workspace_id, person))

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.name)
        return pb.GetProfileResponse(profile=profile_message(workspace_id, await self._person(request.name, "name")))

    async def BatchGetProfiles(self, request: pb.BatchGetProfilesRequest, context: Any) -> pb.BatchGetProfilesResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        if not 1 <= len(request.profile_ids) <= _MOST_IN_A_BATCH:
            raise invalid_argument("profile_ids", f"must be 1 to {_MOST_IN_A_BATCH} profile ids")
        people = await self._profiles.get(workspace_id, set(request.profile_ids))
        results = []
        for profile_id in request.profile_ids:
            person = people.get(profile_id)
            profile = profile_message(workspace_id, person) if person is not None else None
            results.append(pb.ProfileResult(profile_id=profile_id, profile=profile))
        return pb.BatchGetProfilesResponse(results=results)

    async def ListProfiles(self, request: pb.ListProfilesRequest, context: Any) -> pb.ListProfilesResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        size = page_size(request.page_size)
        arguments = [request.parent]
        after = self._pager.decode("ListProfiles", arguments, request.page_token) or ""
        people = await self._profiles.page(workspace_id, after, size + 1)
        token = ""
        if len(people) > size:
            token = self._pager.encode("ListProfiles", arguments, people[size - 1].profile.id)
        return pb.ListProfilesResponse(
            profiles=[profile_message(workspace_id, p) for p in people[:size]], next_page_token=token
        )

    async def ListProfileEvents(
        self, request: pb.ListProfileEventsRequest, context: Any
    ) -> pb.ListProfileEventsResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.parent, "parent")
        size = page_size(request.page_size)
        event_names = sorted(set(request.event_names))
        if len(event_names) > _MOST_NAMES:
            raise invalid_argument("event_names", f"must be at most {_MOST_NAMES} names")
        arguments = [request.parent, *event_names]
        position = self._pager.decode("ListProfileEvents", arguments, request.page_token)
        person = await self._person(request.parent, "parent")
        events = await self._profiles.events(
            workspace_id,
            person,
            before=EventPosition(*position) if position is not None else None,
            names=event_names,
            limit=size + 1,
        )
        token = ""
        if len(events) > size:
            last = events[size - 1]
            token = self._pager.encode(
                "ListProfileEvents", arguments, [last.event.timestamp_us, last.decision.sequence]
            )
        return pb.ListProfileEventsResponse(events=events[:size], next_page_token=token)

    async def GetEventJourney(self, request: pb.GetEventJourneyRequest, context: Any) -> pb.GetEventJourneyResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        if not request.message_id:
            raise invalid_argument("message_id", "is required")
        journey = await self._journeys.follow(workspace_id, request.message_id)
        if journey is None:
            raise not_found(f"{request.parent}/events: an event with this message id")
        return pb.GetEventJourneyResponse(event=journey.event, steps=journey.steps)

    async def _person(self, name: str, field: str) -> Person:
        workspace_id, profile_id = names.parse(names.PROFILE, name, field)
        people = await self._profiles.get(workspace_id, [profile_id])
        if profile_id not in people:
            raise not_found(name)
        return people[profile_id]


def _workspace(parent: str) -> str:
    workspace_id = auth.authorize_name(PROFILES_READ, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id
