"""`headrace groups ...`: companies, accounts, households."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.output import Output, plain_of
from headrace.cli.platform import Platform, listed
from headrace.cli.profiles import show_events, show_profiles

app = group("Groups of people: companies, accounts, households.")

Group = Annotated[str, Argument(help="The group's id, as the events name it.")]


@command(app, "list")
async def list_(
    platform: Platform,
    out: Output,
    prefix: Annotated[str, Option("--prefix", help="Only groups whose id begins with this.")] = "",
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List the groups, by id."""
    from headrace.api.identity.v1.group_service_pb2 import ListGroupsRequest

    stub, request = platform.groups, ListGroupsRequest(parent=platform.parent, prefix=prefix)

    def page(size: int, token: str) -> Any:
        request.page_size, request.page_token = size, token
        return stub.ListGroups(request)

    found = await listed(page, "groups", limit=limit, everything=everything)
    if out.as_json:
        out.rows(found, ())
        return
    out.rows([_readable(g) for g in found], ("group_id", "traits", "create_time"))


@command(app, "get")
async def get(platform: Platform, out: Output, id: Group) -> None:
    """Show a group with its traits."""
    from headrace.api.identity.v1.group_service_pb2 import GetGroupRequest

    found = (await platform.groups.GetGroup(GetGroupRequest(parent=platform.parent, group_id=id))).group
    out.item(found if out.as_json else _readable(found))


@command(app, "members")
async def members(
    platform: Platform, out: Output, id: Group, limit: Limit = DEFAULT_LIMIT, everything: All = False
) -> None:
    """List the people of a group."""
    from headrace.api.identity.v1.group_service_pb2 import ListGroupMembersRequest

    stub, request = platform.groups, ListGroupMembersRequest(parent=platform.parent, group_id=id)

    def page(size: int, token: str) -> Any:
        request.page_size, request.page_token = size, token
        return stub.ListGroupMembers(request)

    show_profiles(out, await listed(page, "profiles", limit=limit, everything=everything))


@command(app, "events")
async def events(
    platform: Platform, out: Output, id: Group, limit: Limit = DEFAULT_LIMIT, everything: All = False
) -> None:
    """List the events that name a group, newest first."""
    from headrace.api.identity.v1.group_service_pb2 import ListGroupEventsRequest

    stub, request = platform.groups, ListGroupEventsRequest(parent=platform.parent, group_id=id)

    def page(size: int, token: str) -> Any:
        request.page_size, request.page_token = size, token
        return stub.ListGroupEvents(request)

    show_events(out, await listed(page, "events", limit=limit, everything=everything))


def _readable(found: Any) -> dict[str, Any]:
    plain: dict[str, Any] = plain_of(found)
    plain["traits"] = {trait["name"]: trait["value"] for trait in plain["traits"]}
    return plain
