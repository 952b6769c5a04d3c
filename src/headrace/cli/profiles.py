"""`headrace profiles ...`: people."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli import deletions
from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.output import Output, plain_of, time_of
from headrace.cli.platform import Platform, listed

app = group("People: look one up, read traits and events.")
app.add_typer(deletions.app)

Id = Annotated[str, Argument(help="Profile id or resource name; a merged part's id finds the survivor.")]


@command(app, "lookup")
async def lookup(
    platform: Platform,
    out: Output,
    namespace: Annotated[str, Argument(help='Namespace, such as "email".')],
    value: Annotated[str, Argument(help="Value; normalised as events are.")],
) -> None:
    """Show the profile that holds an identifier."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.profile_service_pb2 import LookupProfileRequest

    identifier = Identifier(namespace=namespace, value=value)
    request = LookupProfileRequest(parent=platform.parent, identifier=identifier)
    _show(out, (await platform.profiles.LookupProfile(request)).profile)


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a profile."""
    from headrace.api.identity.v1.profile_service_pb2 import GetProfileRequest

    request = GetProfileRequest(name=platform.name("profiles", id))
    _show(out, (await platform.profiles.GetProfile(request)).profile)


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the profiles, merged ones left out."""
    from headrace.api.identity.v1.profile_service_pb2 import ListProfilesRequest

    stub, parent = platform.profiles, platform.parent
    found = await listed(
        lambda size, token: stub.ListProfiles(ListProfilesRequest(parent=parent, page_size=size, page_token=token)),
        "profiles",
        limit=limit,
        everything=everything,
    )
    if out.as_json:
        out.rows(found, ())
        return
    rows = [{**plain_of(p), "identifiers": _identifiers(p), "parts": len(p.parts)} for p in found]
    out.rows(rows, ("name", "identifiers", "parts", "create_time"))


@command(app, "events")
async def events(
    platform: Platform,
    out: Output,
    id: Id,
    event: Annotated[list[str] | None, Option("--event", help="Only events of this name; may be repeated.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List a profile's events over all merged parts, newest first."""
    from headrace.api.identity.v1.profile_service_pb2 import ListProfileEventsRequest

    stub, parent = platform.profiles, platform.name("profiles", id)
    found = await listed(
        lambda size, token: stub.ListProfileEvents(
            ListProfileEventsRequest(parent=parent, page_size=size, page_token=token, event_names=event or ())
        ),
        "events",
        limit=limit,
        everything=everything,
    )
    if out.as_json:
        out.rows(found, ())
        return
    out.rows([_event_row(e) for e in found], ("time", "message_id", "kind", "name", "source", "decision"))


def _event_row(resolved: Any) -> dict[str, Any]:
    plain = plain_of(resolved.event)
    return {
        "time": time_of(resolved.event.timestamp_us),
        "message_id": plain["message_id"],
        "kind": plain["kind"],
        "name": plain["name"],
        "source": plain["source_id"],
        "decision": plain_of(resolved.decision)["action"],
    }


def _identifiers(profile: Any) -> list[str]:
    return [f"{i.namespace}:{i.value}" for i in profile.identifiers]


def _show(out: Output, profile: Any) -> None:
    plain = plain_of(profile)
    if not out.as_json:
        plain["identifiers"] = _identifiers(profile)
        plain["traits"] = {trait["name"]: trait["value"] for trait in plain["traits"]}
    out.item(plain)
