"""`headrace destinations ...`: configured connectors, and which connectors there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import json_argument, new_request_id, read_lines
from headrace.cli.output import Output
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import DONE, FAILED, UsageProblem

app = group("Destinations and connectors.")

Id = Annotated[str, Argument(help="Destination id or resource name.")]
_CONSENT_HELP = "Purpose that people must have granted before anything is sent, e.g. ad_user_data; can be repeated."
_SETTINGS_HELP = "Settings as JSON, or @FILE; a secret given as its mask stays as it is."


@command(app, "connectors")
async def connectors(platform: Platform, out: Output) -> None:
    """List the connectors that plugins offer, and plugins that failed to load."""
    from headrace.api.sync.v1.destination_service_pb2 import ListConnectorsRequest

    answer = await platform.destinations.ListConnectors(ListConnectorsRequest(parent=platform.parent))
    out.rows(list(answer.connectors), ("name", "title", "plugin", "version", "capabilities", "error"))


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the destinations."""
    from headrace.api.sync.v1.destination_service_pb2 import ListDestinationsRequest

    stub, parent = platform.destinations, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListDestinations(
                ListDestinationsRequest(parent=parent, page_size=size, page_token=token)
            ),
            "destinations",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "connector", "state", "state_reason", "update_time"),
    )


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a destination, secrets masked."""
    from headrace.api.sync.v1.destination_service_pb2 import GetDestinationRequest

    request = GetDestinationRequest(name=platform.name("destinations", id))
    out.item((await platform.destinations.GetDestination(request)).destination)


_ALERT_URL_HELP = "Where alerts about it and its syncs go by POST."
_ALERT_SECRET_HELP = "Key with which they are signed: whsec_ and Base64, or any text."  # noqa: S105 - a text of help


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    connector: Annotated[str, Option("--connector", help="Name of the connector.")],
    settings: Annotated[str, Option("--settings", help="Settings as JSON, or @FILE.")] = "{}",
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
    require_consent: Annotated[list[str] | None, Option("--require-consent", help=_CONSENT_HELP)] = None,
    alert_url: Annotated[str, Option("--alert-url", help=_ALERT_URL_HELP)] = "",
    alert_secret: Annotated[str, Option("--alert-secret", help=_ALERT_SECRET_HELP)] = "",
) -> None:
    """Make a destination."""
    from headrace.api.sync.v1.destination_service_pb2 import AlertHook, CreateDestinationRequest, Destination

    destination = Destination(
        display_name=display_name or id,
        connector=connector,
        settings=json_argument("--settings", settings),
        required_consents=require_consent or (),
        alert_hook=AlertHook(url=alert_url, secret=alert_secret) if alert_url or alert_secret else None,
    )
    request = CreateDestinationRequest(
        parent=platform.parent, destination_id=id, destination=destination, request_id=new_request_id()
    )
    out.item((await platform.destinations.CreateDestination(request)).destination)


@command(app, "update")
async def update(
    platform: Platform,
    out: Output,
    id: Id,
    display_name: Annotated[str | None, Option("--display-name", help="Name for people.")] = None,
    settings: Annotated[str | None, Option("--settings", help=_SETTINGS_HELP)] = None,
    paused: Annotated[
        bool | None, Option("--pause/--resume", help="Let deliveries wait, or deliver.", show_default=False)
    ] = None,
    require_consent: Annotated[list[str] | None, Option("--require-consent", help=_CONSENT_HELP)] = None,
    no_consents: Annotated[bool, Option("--require-no-consent", help="Require none any more.")] = False,
    alert_url: Annotated[str | None, Option("--alert-url", help=f"{_ALERT_URL_HELP} '' for none of its own.")] = None,
    alert_secret: Annotated[str, Option("--alert-secret", help=_ALERT_SECRET_HELP)] = "",
) -> None:
    """Change a destination; what is not given stays."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.api.sync.v1.destination_service_pb2 import (
        AlertHook,
        Destination,
        DestinationState,
        UpdateDestinationRequest,
    )

    destination = Destination(name=platform.name("destinations", id))
    paths = []
    if display_name is not None:
        destination.display_name = display_name
        paths.append("display_name")
    if settings is not None:
        destination.settings = json_argument("--settings", settings)
        paths.append("settings")
    if paused is not None:
        states = DestinationState.DESTINATION_STATE_ACTIVE, DestinationState.DESTINATION_STATE_PAUSED
        destination.state = states[paused]
        paths.append("state")
    if require_consent and no_consents:
        raise UsageProblem("give --require-consent or --require-no-consent, not both")
    if require_consent or no_consents:
        destination.required_consents.extend(require_consent or ())
        paths.append("required_consents")
    if alert_secret and alert_url is None:
        raise UsageProblem("give --alert-url with --alert-secret")
    if alert_url is not None:
        destination.alert_hook.CopyFrom(AlertHook(url=alert_url, secret=alert_secret))
        paths.append("alert_hook")
    if not paths:
        raise UsageProblem("nothing to change was given")
    request = UpdateDestinationRequest(
        destination=destination, update_mask=FieldMask(paths=paths), request_id=new_request_id()
    )
    out.item((await platform.destinations.UpdateDestination(request)).destination)


@command(app, "delete")
async def delete(platform: Platform, out: Output, id: Id) -> None:
    """Delete a destination that no sync uses."""
    from headrace.api.sync.v1.destination_service_pb2 import DeleteDestinationRequest

    name = platform.name("destinations", id)
    request = DeleteDestinationRequest(name=name, request_id=new_request_id())
    out.done(f"deleted {name}", await platform.destinations.DeleteDestination(request))


@command(app, "check")
async def check(platform: Platform, out: Output, id: Id) -> int:
    """Ask the vendor whether a destination's settings work and the permissions are there; nothing is changed.

    Exit status 1 when something does not work.
    """
    from headrace.api.sync.v1.destination_service_pb2 import CheckDestinationRequest, DestinationCheckState

    request = CheckDestinationRequest(name=platform.name("destinations", id))
    checks = (await platform.destinations.CheckDestination(request)).checks
    out.rows(list(checks), ("title", "state", "problem"))
    failed = DestinationCheckState.DESTINATION_CHECK_STATE_FAILED
    return FAILED if any(one.state == failed for one in checks) else DONE


@command(app, "check-mapping")
async def check_mapping(
    platform: Platform,
    out: Output,
    id: Id,
    mapping: Annotated[str, Option("--mapping", help="The mapping as JSON, or @FILE; else the connector's own.")] = "",
    audience: Annotated[
        str, Option("--audience", help="Look at members of this audience; else at people of the workspace.")
    ] = "",
) -> None:
    """Check a mapping against real people: who would match by each field, and what could fill the others."""
    from headrace.api.sync.v1.destination_service_pb2 import CheckMappingRequest

    request = CheckMappingRequest(
        name=platform.name("destinations", id),
        mapping=json_argument("--mapping", mapping) if mapping else "",
        audience=platform.name("audiences", audience) if audience else "",
    )
    found = await platform.destinations.CheckMapping(request)
    if out.as_json:
        out.item(found)
        return
    columns = ("name", "given", "usable", "consented", "wrong_type", "expression", "proposal", "remarks")
    out.rows(found.fields, columns)
    out.done(f"{found.sampled} people were looked at" + (f"; {found.problem}" if found.problem else ""), found)


@command(app, "test")
async def test(
    platform: Platform,
    out: Output,
    events: Annotated[Path, Argument(help="NDJSON with sample events; - is standard input.")],
    id: Annotated[str, Option("--destination", help="Id of a destination that is saved.")] = "",
    connector: Annotated[str, Option("--connector", help="Name of the connector, when none is saved.")] = "",
    settings: Annotated[
        str, Option("--settings", help="Settings to try, as JSON or @FILE; default: those that are saved.")
    ] = "",
    mapping: Annotated[str, Option("--mapping", help="Field: expression, as JSON or @FILE.")] = "",
) -> int:
    """Show the requests that a destination, saved or not, would send for sample events. Nothing is sent.

    Exit status 1 when the destination fails on an event.
    """
    from headrace.api.sync.v1.destination_service_pb2 import Destination, TestDestinationRequest

    if bool(id) == bool(connector):
        raise UsageProblem("give either --destination or --connector")
    destination = Destination(
        name=platform.name("destinations", id) if id else "",
        connector=connector,
        settings=json_argument("--settings", settings) if settings else "",
    )
    request = TestDestinationRequest(
        parent=platform.parent,
        destination=destination,
        mapping=json_argument("--mapping", mapping) if mapping else "",
        events=[line for line in read_lines(events) if line.strip()],
    )
    answer = await platform.destinations.TestDestination(request)
    out.item(answer)
    return FAILED if any(one.is_failure for one in answer.skipped) else DONE


@command(app, "lists")
async def lists(platform: Platform, out: Output, id: Id, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the lists that the vendor has: the ids go into settings, or into `syncs create --list`."""
    from headrace.api.sync.v1.destination_service_pb2 import ListVendorListsRequest

    stub, parent = platform.destinations, platform.name("destinations", id)
    out.rows(
        await listed(
            lambda _, token: stub.ListVendorLists(ListVendorListsRequest(parent=parent, page_token=token)),
            "lists",
            limit=limit,
            everything=everything,
        ),
        ("id", "display_name", "size"),
    )


@command(app, "create-list")
async def create_list(
    platform: Platform, out: Output, id: Id, display_name: Annotated[str, Argument(help="Name for people.")]
) -> None:
    """Make a list at the vendor, and show its id, which goes into `syncs create --list` or into the settings."""
    from headrace.api.sync.v1.destination_service_pb2 import CreateVendorListRequest

    request = CreateVendorListRequest(
        parent=platform.name("destinations", id), display_name=display_name, request_id=new_request_id()
    )
    out.item((await platform.destinations.CreateVendorList(request)).list)
