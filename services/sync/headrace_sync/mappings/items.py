"""What connectors take, made of events, profiles and a sync's mapping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.sync.v1.sync_service_pb2 import IdentifierValues
from headrace.connector import wire
from headrace.plugins.mapping import CompiledMapping, MappingError, compile_mapping
from headrace_sdk import EventItem, Member, Profile
from headrace_sync.config import SyncConfig
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.people.audiences import Audiences
from headrace_sync.people.consents import Allowed, evidence, refusal
from headrace_sync.people.profiles import Person, Profiles
from headrace_sync.people.visits import Visit, Visits
from headrace_sync.planning.rules import ERASED, MERGED

NO_PROFILE = "no_profile"
"""Reason of a member whose profile does not exist any more."""

_KINDS: Mapping[int, str] = {
    value.number: value.name.removeprefix("EVENT_KIND_").lower() for value in EventKind.DESCRIPTOR.values
}
_KEPT_MAPPINGS = 10_000


class ItemBuilder:
    """Makes items, with profiles read from identity when they are made."""

    def __init__(
        self, profiles: Profiles, audiences: Audiences, visits: Visits, is_erased: Callable[[str, str], bool]
    ) -> None:
        """Read profiles from here.

        Args:
            profiles: Reads profiles.
            audiences: Knows the names of audiences.
            visits: Reads what people's last events said.
            is_erased: Whether the person of a (workspace, profile) is being deleted or was lately.
        """
        self._profiles = profiles
        self._audiences = audiences
        self._visits = visits
        self._is_erased = is_erased
        self._mappings: dict[tuple[str, str, str], CompiledMapping] = {}

    def mapping(self, sync: SyncConfig, info: wire.ConnectorInfo) -> CompiledMapping:
        """The mapping of a sync, ready to be used.

        Raises:
            MappingError: It was checked when it was saved, but does not fit the connector that is installed now.
        """
        key = (sync.key, sync.mapping, info.version)
        found = self._mappings.get(key)
        if found is None:
            if len(self._mappings) >= _KEPT_MAPPINGS:
                self._mappings.clear()
            found = self._mappings[key] = compile_mapping(sync.mapping, info)
        return found

    async def event_items(
        self, outlet: Outlet, pairs: Sequence[tuple[SyncConfig, Event, str, str]]
    ) -> list[Allowed[EventItem] | Verdict]:
        """An item for each (sync, event, profile id, trace context), or why there is none.

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
        """
        wanted: dict[str, set[str]] = {}
        for _, event, profile_id, _ in pairs:
            if profile_id:
                wanted.setdefault(event.workspace_id, set()).add(profile_id)
        found = await asyncio.gather(*(self._profiles.get(w, ids) for w, ids in wanted.items()))
        people = dict(zip(wanted, found, strict=True))
        pairs = await self._told(outlet, pairs)
        made: list[Allowed[EventItem] | Verdict] = []
        for sync, event, profile_id, traceparent in pairs:
            if self._is_erased(event.workspace_id, profile_id):
                made.append(Verdict(Kind.GONE, ERASED))  # the delivery itself is being removed
                continue
            person = people[event.workspace_id].get(profile_id) if profile_id else None
            made.append(self._event_item(outlet, sync, event, person, traceparent))
        return made

    async def _told(
        self, outlet: Outlet, pairs: Sequence[tuple[SyncConfig, Event, str, str]]
    ) -> Sequence[tuple[SyncConfig, Event, str, str]]:
        """The same with what only we know in events of event syncs: the audience's name, the people's last visits."""
        own = [(sync, profile_id) for sync, _, profile_id, _ in pairs if sync.is_event]
        if not own:
            return pairs
        names = {sync.key: await self._audiences.display_name(sync.audience_name) for sync, _ in own}
        visits: dict[tuple[str, str], Visit] = {}
        if any(item.anonymous for item in outlet.info.fields):
            for workspace_id in {sync.workspace_id for sync, _ in own}:
                ids = [profile_id for sync, profile_id in own if sync.workspace_id == workspace_id]
                found = await self._visits.of(workspace_id, ids)
                visits |= {(workspace_id, profile_id): visit for profile_id, visit in found.items()}
        return [
            (sync, completed(event, names[sync.key], visits.get((sync.workspace_id, profile_id))), profile_id, trace)
            if sync.is_event
            else (sync, event, profile_id, trace)
            for sync, event, profile_id, trace in pairs
        ]

    async def members(
        self, outlet: Outlet, sync: SyncConfig, profile_ids: Sequence[str]
    ) -> dict[str, Allowed[Member] | Verdict]:
        """A member per profile id, or why there is none.

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
        """
        people = await self._profiles.get(sync.workspace_id, profile_ids)
        return {id: self._member(outlet, sync, id, people.get(id)) for id in profile_ids}

    def _event_item(
        self, outlet: Outlet, sync: SyncConfig, event: Event, person: Person | None, traceparent: str
    ) -> Allowed[EventItem] | Verdict:
        refused = refusal(outlet.required_consents, person.consents if person else None)
        if refused is not None:
            return refused
        info = outlet.info
        try:
            item = event_item(event, person.profile if person else None, traceparent)
            fields = self.mapping(sync, info).event_fields(chosen(item, sync.identifier_values))
        except MappingError as error:
            return Verdict(Kind.REJECTED, f"mapping: {error}")
        missing = info.missing(fields)
        if missing:
            return Verdict(Kind.SKIPPED, f"{missing}: required, and the mapping gives no value")
        consents = evidence(outlet.required_consents, person.consents) if person else {}
        return Allowed(replace(item, fields=fields) if fields else item, consents)

    def _member(
        self, outlet: Outlet, sync: SyncConfig, profile_id: str, person: Person | None
    ) -> Allowed[Member] | Verdict:
        if self._is_erased(sync.workspace_id, profile_id):
            return Verdict(Kind.SKIPPED, ERASED)
        if person is None:
            return Verdict(Kind.SKIPPED, NO_PROFILE)
        if person.profile.id != profile_id:
            return Verdict(Kind.GONE, MERGED)
        refused = refusal(outlet.required_consents, person.consents)
        if refused is not None:
            return refused
        info = outlet.info
        try:
            fields = self.mapping(sync, info).member_fields(with_values(person.profile, sync.identifier_values))
        except MappingError as error:
            return Verdict(Kind.SKIPPED, f"mapping: {error}")
        missing = info.missing(fields)
        if missing:
            return Verdict(Kind.SKIPPED, f"{missing}: required, and the mapping gives no value")
        consents = evidence(outlet.required_consents, person.consents)
        return Allowed(Member(profile_id=profile_id, fields=fields), consents)


def with_values(profile: Profile, values: int) -> Profile:
    """A profile with the values of its identifiers that a sync wants, an IdentifierValues."""
    if values == IdentifierValues.IDENTIFIER_VALUES_UNSPECIFIED:
        return profile
    place = 0 if values == IdentifierValues.IDENTIFIER_VALUES_FIRST else -1
    return replace(profile, identifiers={name: [found[place]] for name, found in profile.identifiers.items() if found})


def chosen(item: EventItem, values: int) -> EventItem:
    """An event with the values of its person's identifiers that a sync wants."""
    return replace(item, profile=with_values(item.profile, values)) if item.profile else item


def completed(event: Event, audience_name: str, visit: Visit | None) -> Event:
    """The event of a membership with the audience's name and the person's last visit."""
    made = Event()
    made.CopyFrom(event)
    if audience_name:
        made.properties = msgspec.json.encode({**_object(event.properties), "audience_name": audience_name})
    if visit is not None:
        for namespace, values in visit.identifiers.items():
            made.identifiers.extend(Identifier(namespace=namespace, value=value) for value in values)
        made.context = msgspec.json.encode({**visit.context, **_object(event.context)})
    return made


def event_item(event: Event, profile: Profile | None, traceparent: str) -> EventItem:
    """An event as connectors know it, its fields not yet filled."""
    identifiers: dict[str, list[str]] = {}
    for identifier in event.identifiers:
        identifiers.setdefault(identifier.namespace, []).append(identifier.value)
    return EventItem(
        message_id=event.message_id,
        kind=_KINDS[event.kind],
        name=event.name,
        timestamp_us=event.timestamp_us,
        received_at_us=event.received_at_us,
        source_id=event.source_id,
        identifiers=identifiers,
        group_id=event.group_id,
        previous_id=event.previous_id,
        traits=_object(event.traits),
        properties=_object(event.properties),
        context=_object(event.context),
        profile=profile,
        traceparent=traceparent,
    )


def _object(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any]) if data else {}
