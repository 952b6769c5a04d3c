"""Finding people and what they did, as methods of ProfileService: search, view, the past, histories, watching."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1 import profile_pb2
from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.rpc import auth, errors, names
from headrace.rpc.errors import invalid_argument
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ
from headrace_identity.calls.profile_messages import (
    consent_message,
    group_link_message,
    profile_message,
    time_of_sequence,
    trait_message,
)
from headrace_identity.calls.profile_requests import events_token, person_named, reading
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.people.finder import Finder, Found, Position
from headrace_identity.people.history import Histories
from headrace_identity.people.history import Position as HistoryPosition
from headrace_identity.people.past import Past
from headrace_identity.people.profiles import Person, Profiles
from headrace_identity.people.search import MAX_TEXT, TraitQuery
from headrace_identity.people.view import Viewer
from headrace_identity.people.watching import MOST_WATCHERS, CursorExpired, TooManyWatchers, Watching
from headrace_identity.rules_store import RulesStore

_DEFAULT_EVENTS = 50
_DEFAULT_DELIVERIES = 20
_DEFAULT_TRAIT_VALUES = 50
_MOST_IN_A_VIEW = 200
_LONGEST_NAME = 512
_MOST_WATCHED = 1_000


class PeopleCalls:
    """Serves what ProfileService says of finding people and of what they did."""

    def __init__(
        self,
        profiles: Profiles,
        rules: RulesStore,
        finder: Finder,
        viewer: Viewer,
        histories: Histories,
        computed: ComputedValues,
        watching: Watching,
        pager: Pager,
    ) -> None:
        """Serve from these."""
        self._profiles = profiles
        self._rules = rules
        self._finder = finder
        self._viewer = viewer
        self._histories = histories
        self._computed = computed
        self._watching = watching
        self._pager = pager

    async def SearchProfiles(self, request: pb.SearchProfilesRequest, context: Any) -> pb.SearchProfilesResponse:
        """See the proto."""
        workspace_id = reading(request.parent)
        size = page_size(request.page_size)
        prefix, trait = request.identifier_prefix, request.trait
        if request.HasField("identifier_prefix") == request.HasField("trait"):
            raise invalid_argument("trait", "exactly one of identifier_prefix and trait must be given")
        asked = [prefix.namespace, prefix.value, trait.name, trait.value, str(trait.prefix)]
        bound = ("SearchProfiles", [request.parent, *asked])
        position = self._pager.decode(*bound, request.page_token)
        after: Position | None = (position[0], position[1]) if position is not None else None
        found: Found
        if request.HasField("trait"):
            _require("trait.name", trait.name, _LONGEST_NAME)
            _require("trait.value", trait.value, MAX_TEXT)
            query = TraitQuery.of(trait.name, trait.value, prefix=trait.prefix)
            found = await self._finder.by_trait(workspace_id, query, after, size)
        else:
            _require("identifier_prefix.value", prefix.value.strip(), _LONGEST_NAME)
            _, rules = await self._rules.read(workspace_id)
            found = await self._finder.by_identifier(
                workspace_id, prefix.namespace, prefix.value, rules.default_country, after, size
            )
        token = self._pager.encode(*bound, found.position) if found.position is not None else ""
        return pb.SearchProfilesResponse(
            profiles=[profile_message(workspace_id, person) for person in found.people], next_page_token=token
        )

    async def GetProfileView(self, request: pb.GetProfileViewRequest, context: Any) -> pb.GetProfileViewResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.name)
        events = _count("event_count", request.event_count, _DEFAULT_EVENTS)
        deliveries = _count("delivery_count", request.delivery_count, _DEFAULT_DELIVERIES)
        trait_values = _count("trait_value_count", request.trait_value_count, _DEFAULT_TRAIT_VALUES)
        person = await person_named(self._profiles, request.name)
        view = await self._viewer.view(
            workspace_id, person, events=events, deliveries=deliveries, trait_values=trait_values
        )
        response = view.response
        response.events.extend(view.events[:events])
        following = pb.ListProfileEventsRequest(parent=request.name)
        response.next_events_page_token = events_token(self._pager, following, view.events, events)
        response.trait_history.extend(trait_message(e.position.name, e.value) for e in view.trait_history.entries)
        if view.trait_history.position is not None:
            bound = _trait_history_of(request.name, "")
            response.next_trait_history_page_token = self._pager.encode(*bound, view.trait_history.position)
        return response

    async def GetProfileAt(self, request: pb.GetProfileAtRequest, context: Any) -> pb.GetProfileAtResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.name)
        if request.at_us <= 0:
            raise invalid_argument("at_us", "is required: a moment in microseconds since 1970 UTC")
        person = await person_named(self._profiles, request.name)
        root = person.profile
        past = await self._histories.state_at(workspace_id, root, request.at_us)
        computed = await self._computed.values_at(workspace_id, {root.id: root.parts}, request.at_us)
        profile = _past_message(workspace_id, person, past)
        profile.computed_traits.extend(computed[root.id])
        return pb.GetProfileAtResponse(profile=profile, event_count=past.events)

    async def ListTraitHistory(self, request: pb.ListTraitHistoryRequest, context: Any) -> pb.ListTraitHistoryResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.parent, "parent")
        size = page_size(request.page_size)
        if len(request.trait) > _LONGEST_NAME:
            raise invalid_argument("trait", f"must be at most {_LONGEST_NAME} characters")
        bound = _trait_history_of(request.parent, request.trait)
        after = self._history_position(bound, request.page_token)
        person = await person_named(self._profiles, request.parent, "parent")
        page = await self._histories.trait(workspace_id, person.profile, request.trait, after, size)
        return pb.ListTraitHistoryResponse(
            values=[trait_message(e.position.name, e.value) for e in page.entries],
            next_page_token=self._pager.encode(*bound, page.position) if page.position is not None else "",
        )

    async def ListConsentHistory(
        self, request: pb.ListConsentHistoryRequest, context: Any
    ) -> pb.ListConsentHistoryResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(PROFILES_READ, request.parent, "parent")
        size = page_size(request.page_size)
        bound = ("ListConsentHistory", [request.parent, request.purpose])
        after = self._history_position(bound, request.page_token)
        person = await person_named(self._profiles, request.parent, "parent")
        page = await self._histories.consent(workspace_id, person.profile, request.purpose, after, size)
        return pb.ListConsentHistoryResponse(
            consents=[consent_message(e.position.name, e.value) for e in page.entries],
            next_page_token=self._pager.encode(*bound, page.position) if page.position is not None else "",
        )

    async def WatchProfiles(
        self, request: pb.WatchProfilesRequest, context: Any
    ) -> AsyncIterator[pb.WatchProfilesResponse]:
        """See the proto."""
        workspace_id = reading(request.parent)
        if len(request.names) > _MOST_WATCHED:
            raise invalid_argument("names", f"must be at most {_MOST_WATCHED:,}")
        wanted = set()
        for name in request.names:
            owner, profile_id = names.parse(names.PROFILE, name, "names")
            if owner != workspace_id:
                raise invalid_argument("names", "must be profiles of the workspace in parent")
            wanted.add(profile_id)
        # Bound to the workspace alone: who watches other profiles from now on goes on with the same cursor.
        bound = ("WatchProfiles", [request.parent])
        try:
            positions = self._pager.decode(*bound, request.cursor)
        except errors.ApiError:
            raise invalid_argument("cursor", "was not given by WatchProfiles for this workspace") from None
        try:
            async for changes in self._watching.follow(workspace_id, wanted, positions):
                yield pb.WatchProfilesResponse(
                    names=[names.format(names.PROFILE, workspace_id, p) for p in changes.profile_ids],
                    cursor=self._pager.encode(*bound, changes.positions),
                )
        except CursorExpired:
            raise errors.cursor_expired() from None
        except TooManyWatchers:
            message = f"{MOST_WATCHERS} callers watch here already: try again, another replica may have room."
            raise errors.limit_exceeded("watchers", message, 1.0) from None
        except RedisError:
            message = "Changes cannot be followed at the moment: go on later with the last cursor."
            raise errors.unavailable(message) from None

    def _history_position(self, bound: tuple[str, list[str]], token: str) -> HistoryPosition | None:
        position = self._pager.decode(*bound, token)
        return HistoryPosition(*position) if position is not None else None


def _trait_history_of(profile: str, trait: str) -> tuple[str, list[str]]:
    """What a page token of a trait's history is bound to."""
    return "ListTraitHistory", [profile, trait]


def _require(field: str, value: str, longest: int) -> None:
    if not value:
        raise invalid_argument(field, "is required")
    if len(value) > longest:
        raise invalid_argument(field, f"must be at most {longest} characters")


def _count(field: str, asked: int, default: int) -> int:
    if not 0 <= asked <= _MOST_IN_A_VIEW:
        raise invalid_argument(field, f"must be 0 to {_MOST_IN_A_VIEW}")
    return asked or default


def _past_message(workspace_id: str, person: Person, past: Past) -> profile_pb2.Profile:
    profile = person.profile
    return profile_pb2.Profile(
        name=names.format(names.PROFILE, workspace_id, profile.id),
        identifiers=[Identifier(namespace=n, value=v) for n, v in sorted(past.identifiers)],
        traits=[trait_message(n, past.traits[n]) for n in sorted(past.traits) if past.traits[n].value != b"null"],
        parts=[part for part in profile.parts if part in past.parts],
        create_time=time_of_sequence(profile.created),
        merge_count=past.merges,
        consents=[consent_message(purpose, past.consents[purpose]) for purpose in sorted(past.consents)],
        groups=[group_link_message(group_id, past.groups[group_id]) for group_id in sorted(past.groups)],
    )
