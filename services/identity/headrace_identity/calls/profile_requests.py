"""What requests about people have in common: who may read, whom a name means, where a timeline goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from headrace.api.identity.v1 import profile_service_pb2 as pb
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.event_names import canonical
from headrace.rpc import auth, names
from headrace.rpc.errors import not_found
from headrace.rpc.page_tokens import Pager
from headrace.rpc.scopes import PROFILES_READ
from headrace_identity.people.profiles import Person, Profiles


def reading(parent: str) -> str:
    """The workspace of a parent, in which the caller may read profiles."""
    workspace_id = auth.authorize_name(PROFILES_READ, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id


async def person_named(profiles: Profiles, name: str, field: str = "name") -> Person:
    """Whom the resource name of a profile means; that of a merged part means the survivor."""
    workspace_id, profile_id = names.parse(names.PROFILE, name, field)
    people = await profiles.get(workspace_id, [profile_id])
    if profile_id not in people:
        raise not_found(name)
    return people[profile_id]


def with_canonical(event_names: Iterable[str]) -> list[str]:
    """Names of events as given, for titles of pages, and as stored, for tracks."""
    return sorted({found for name in event_names for found in (name, canonical(name.strip()))})


def events_arguments(request: pb.ListProfileEventsRequest) -> list[str]:
    """What a page token of ListProfileEvents is bound to."""
    filters = [sorted(request.event_names), sorted(request.source_ids), request.from_us, request.to_us]
    return [request.parent, json.dumps(filters)]


def events_token(pager: Pager, request: pb.ListProfileEventsRequest, events: Sequence[ResolvedEvent], size: int) -> str:
    """The token of the page after one of this size; "" when these are all events."""
    if len(events) <= size:
        return ""
    last = events[size - 1]
    position = [last.event.timestamp_us, last.decision.sequence]
    return pager.encode("ListProfileEvents", events_arguments(request), position)
