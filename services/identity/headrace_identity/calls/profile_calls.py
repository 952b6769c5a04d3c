"""Reading profiles and their events one by one, as methods of ProfileService: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

import asyncio
from typing import Any

from headrace.api.identity.v1 import profile_service_pb2
from headrace.rpc import auth
from headrace.rpc.errors import invalid_argument, not_found
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ
from headrace_identity.calls.profile_messages import profile_message
from headrace_identity.calls.profile_requests import (
    events_arguments,
    events_token,
    person_named,
    reading,
    with_canonical,
)
from headrace_identity.people.journey import Journeys
from headrace_identity.people.profiles import EventPosition, Profiles
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
        workspace_id = reading(request.parent)
        identifier = request.identifier
        if not identifier.namespace:
            raise invalid_argument("identifier.namespace", "is required")
        if not identifier.value.strip():
            raise invalid_argument("identifier.value", "is required")
        # Rules rarely change: the holder by the rules as last read is asked for beside what the rules are now.
        last_read = self._rules.last_read(workspace_id)
        presumed = last_read.check(identifier.namespace, identifier.value)
        (_, rules), part = await asyncio.gather(
            self._rules.read(workspace_id),
            self._profiles.holder(workspace_id, (identifier.namespace, presumed.value)),
        )
        checked = rules.check(identifier.namespace, identifier.value)
        if checked.rule:
            raise invalid_argument("identifier", f"identifies nobody, by the rules of the workspace ({checked.rule})")
        if checked != presumed:
            part = await self._profiles.holder(workspace_id, (identifier.namespace, checked.value))
        person = await self._profiles.of_part(workspace_id, part)
        if person is None:
            # Not the value: it may be an email, and errors are logged.
            raise not_found(f"{request.parent}/profiles: a profile with this {identifier.namespace}")
        return pb.LookupProfileResponse(profile=profile_message(workspace_id, person))

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.name)
        person = await person_named(self._profiles, request.name)
        return pb.GetProfileResponse(profile=profile_message(workspace_id, person))

    async def BatchGetProfiles(self, request: pb.BatchGetProfilesRequest, context: Any) -> pb.BatchGetProfilesResponse:
        """See the proto."""
        workspace_id = reading(request.parent)
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
        workspace_id = reading(request.parent)
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
        for field, values in (("event_names", request.event_names), ("source_ids", request.source_ids)):
            if len(values) > _MOST_NAMES:
                raise invalid_argument(field, f"must be at most {_MOST_NAMES}")
        if request.from_us < 0 or request.to_us < 0 or 0 < request.to_us <= request.from_us:
            raise invalid_argument("to_us", "must be after from_us, and both at or after 1970")
        position = self._pager.decode("ListProfileEvents", events_arguments(request), request.page_token)
        person = await person_named(self._profiles, request.parent, "parent")
        events = await self._profiles.events(
            workspace_id,
            person,
            before=EventPosition(*position) if position is not None else None,
            names=with_canonical(request.event_names),
            source_ids=request.source_ids,
            from_us=request.from_us,
            to_us=request.to_us,
            limit=size + 1,
        )
        token = events_token(self._pager, request, events, size)
        return pb.ListProfileEventsResponse(events=events[:size], next_page_token=token)

    async def GetEventJourney(self, request: pb.GetEventJourneyRequest, context: Any) -> pb.GetEventJourneyResponse:
        """See the proto."""
        workspace_id = reading(request.parent)
        if not request.message_id:
            raise invalid_argument("message_id", "is required")
        journey = await self._journeys.follow(workspace_id, request.message_id)
        if journey is None:
            raise not_found(f"{request.parent}/events: an event with this message id")
        return pb.GetEventJourneyResponse(event=journey.event, steps=journey.steps)
