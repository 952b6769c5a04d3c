"""GroupService in gRPC: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.api.identity.v1 import group_service_pb2 as pb
from headrace.api.identity.v1.group_service_pb2_grpc import GroupServiceServicer
from headrace.rpc import auth, names
from headrace.rpc.errors import invalid_argument, not_found
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import PROFILES_READ
from headrace_identity.calls.profile_messages import profile_message, time_of_sequence, trait_message
from headrace_identity.groups.store import Group, GroupReader
from headrace_identity.people.profiles import EventPosition, Person, Profiles

_MOST_COUNTED = 10_000
"""Members of a group are counted person by person up to here, and part by part above."""
_COUNTED_AT_ONCE = 1_000
_LONGEST_ID = 512


class GroupServicer(GroupServiceServicer):
    """Serves GroupService."""

    def __init__(self, groups: GroupReader, profiles: Profiles, pager: Pager) -> None:
        """Serve from what reads groups and profiles."""
        self._groups = groups
        self._profiles = profiles
        self._pager = pager

    async def GetGroup(self, request: pb.GetGroupRequest, context: Any) -> pb.GetGroupResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        group = await self._group(workspace_id, request.group_id)
        message = _message(workspace_id, group)
        message.member_count = await self._count(workspace_id, group.id)
        return pb.GetGroupResponse(group=message)

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        size = page_size(request.page_size)
        bound = ("ListGroups", [request.parent, request.prefix])
        after = self._pager.decode(*bound, request.page_token) or ""
        found = await self._groups.page(workspace_id, request.prefix, after, size + 1)
        token = self._pager.encode(*bound, found[size - 1].id) if len(found) > size else ""
        return pb.ListGroupsResponse(groups=[_message(workspace_id, g) for g in found[:size]], next_page_token=token)

    async def ListGroupMembers(self, request: pb.ListGroupMembersRequest, context: Any) -> pb.ListGroupMembersResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        size = page_size(request.page_size)
        bound = ("ListGroupMembers", [request.parent, request.group_id])
        after = self._pager.decode(*bound, request.page_token) or ""
        group = await self._group(workspace_id, request.group_id)
        parts = await self._groups.parts(workspace_id, group.id, after, size + 1)
        page = parts[:size]
        people = await self._profiles.get(workspace_id, page)
        first = await self._first_parts(workspace_id, group.id, people.values())
        # Somebody may belong to it by several parts, and is shown at the first of them.
        shown = [people[part] for part in page if part in people and first[people[part].profile.id] == part]
        token = self._pager.encode(*bound, page[-1]) if len(parts) > size else ""
        return pb.ListGroupMembersResponse(
            profiles=[profile_message(workspace_id, person) for person in shown], next_page_token=token
        )

    async def ListGroupEvents(self, request: pb.ListGroupEventsRequest, context: Any) -> pb.ListGroupEventsResponse:
        """See the proto."""
        workspace_id = _workspace(request.parent)
        size = page_size(request.page_size)
        bound = ("ListGroupEvents", [request.parent, request.group_id])
        position = self._pager.decode(*bound, request.page_token)
        group = await self._group(workspace_id, request.group_id)
        before = EventPosition(*position) if position is not None else None
        events = await self._profiles.events_of_group(workspace_id, group.id, before=before, limit=size + 1)
        token = ""
        if len(events) > size:
            last = events[size - 1]
            token = self._pager.encode(*bound, [last.event.timestamp_us, last.decision.sequence])
        return pb.ListGroupEventsResponse(events=events[:size], next_page_token=token)

    async def _group(self, workspace_id: str, group_id: str) -> Group:
        if not 1 <= len(group_id) <= _LONGEST_ID:
            raise invalid_argument("group_id", f"must be 1 to {_LONGEST_ID} characters")
        group = await self._groups.get(workspace_id, group_id)
        if group is None:
            raise not_found(f"{names.format(names.WORKSPACE, workspace_id)}: a group with this id")
        return group

    async def _first_parts(self, workspace_id: str, group_id: str, people: Iterable[Person]) -> dict[str, str]:
        """Of each person the first part that belongs to a group, by the person's id."""
        parts = {part: person.profile.id for person in people for part in person.profile.parts}
        first: dict[str, str] = {}
        for part in sorted(await self._groups.which_belong(workspace_id, group_id, parts)):
            first.setdefault(parts[part], part)
        return first

    async def _count(self, workspace_id: str, group_id: str) -> int:
        count = await self._groups.count_parts(workspace_id, group_id)
        if count > _MOST_COUNTED:
            return count
        people: set[str] = set()
        after = ""
        while True:
            parts = await self._groups.parts(workspace_id, group_id, after, _COUNTED_AT_ONCE)
            people.update(await self._profiles.survivors_of(workspace_id, parts))
            if len(parts) < _COUNTED_AT_ONCE:
                return len(people)
            after = parts[-1]


def _workspace(parent: str) -> str:
    workspace_id = auth.authorize_name(PROFILES_READ, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id


def _message(workspace_id: str, group: Group) -> pb.Group:
    return pb.Group(
        parent=names.format(names.WORKSPACE, workspace_id),
        group_id=group.id,
        traits=[trait_message(name, trait) for name, trait in group.traits.items()],
        create_time=time_of_sequence(group.created),
    )
