"""`headrace sources ...`: where events come from, and what came."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import json_argument, new_request_id, read_text
from headrace.cli.output import Output
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import FAILED, UsageProblem

app = group("Sources and what they received.")

Id = Annotated[str, Argument(help="Source id or resource name.")]
_MESSAGES_PAGE = 500


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the sources."""
    from headrace.api.ingest.v1.source_service_pb2 import ListSourcesRequest

    stub, parent = platform.sources, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListSources(ListSourcesRequest(parent=parent, page_size=size, page_token=token)),
            "sources",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "kind", "disabled", "update_time"),
    )


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a source with its write key or webhook token."""
    from headrace.api.ingest.v1.source_service_pb2 import GetSourceRequest

    request = GetSourceRequest(name=platform.name("sources", id))
    out.item((await platform.sources.GetSource(request)).source)


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    kind: Annotated[str, Option("--kind", help='"http", "website" or "webhook".')] = "http",
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
    origin: Annotated[list[str] | None, Option("--origin", help="Allowed origin of browsers; may be repeated.")] = None,
    mapping: Annotated[str, Option("--mapping", help="For webhooks: the mapping as JSON, or @FILE.")] = "",
) -> None:
    """Make a source; shows its write key or webhook token."""
    from headrace.api.ingest.v1.source_service_pb2 import CreateSourceRequest, Source

    source = Source(
        display_name=display_name or id,
        kind=kind,
        allowed_origins=origin or (),
        mapping=json_argument("--mapping", mapping) if mapping else "",
    )
    request = CreateSourceRequest(parent=platform.parent, source_id=id, source=source, request_id=new_request_id())
    out.item((await platform.sources.CreateSource(request)).source)


@command(app, "update")
async def update(
    platform: Platform,
    out: Output,
    id: Id,
    display_name: Annotated[str | None, Option("--display-name", help="Name for people.")] = None,
    origin: Annotated[list[str] | None, Option("--origin", help="Allowed origin of browsers; may be repeated.")] = None,
    any_origin: Annotated[bool, Option("--any-origin", help="Let browsers of any origin send.")] = False,
    mapping: Annotated[str | None, Option("--mapping", help="For webhooks: the mapping as JSON, or @FILE.")] = None,
    disabled: Annotated[
        bool | None, Option("--disable/--enable", help="Refuse or take what it sends.", show_default=False)
    ] = None,
) -> None:
    """Change a source; what is not given stays."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.api.ingest.v1.source_service_pb2 import Source, UpdateSourceRequest

    if origin and any_origin:
        raise UsageProblem("give --origin or --any-origin, not both")
    source = Source(name=platform.name("sources", id))
    paths = []
    if display_name is not None:
        source.display_name = display_name
        paths.append("display_name")
    if origin or any_origin:
        source.allowed_origins.extend(origin or ())
        paths.append("allowed_origins")
    if mapping is not None:
        source.mapping = json_argument("--mapping", mapping) if mapping else ""
        paths.append("mapping")
    if disabled is not None:
        source.disabled = disabled
        paths.append("disabled")
    if not paths:
        raise UsageProblem("nothing to change was given")
    request = UpdateSourceRequest(source=source, update_mask=FieldMask(paths=paths), request_id=new_request_id())
    out.item((await platform.sources.UpdateSource(request)).source)


@command(app, "delete")
async def delete(platform: Platform, out: Output, id: Id) -> None:
    """Delete a source; its events stay."""
    from headrace.api.ingest.v1.source_service_pb2 import DeleteSourceRequest

    name = platform.name("sources", id)
    answer = await platform.sources.DeleteSource(DeleteSourceRequest(name=name, request_id=new_request_id()))
    out.done(f"deleted {name}", answer)


@command(app, "messages")
async def messages(platform: Platform, out: Output, id: Id, limit: Limit = 50, everything: All = False) -> None:
    """List the raw messages that a webhook source received, newest first."""
    from headrace.api.ingest.v1.source_service_pb2 import ListSourceMessagesRequest

    stub, parent = platform.sources, platform.name("sources", id)
    out.rows(
        await listed(
            lambda size, token: stub.ListSourceMessages(
                ListSourceMessagesRequest(parent=parent, page_size=size, page_token=token)
            ),
            "messages",
            limit=limit,
            everything=everything,
            page=_MESSAGES_PAGE,
        ),
        ("receive_time", "id", "content_type", "message_ids", "body"),
    )


@command(app, "rejected")
async def rejected(
    platform: Platform,
    out: Output,
    source: Annotated[str, Option("--source", help="Only what this source sent.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List the messages that were refused, with the reason, newest first."""
    from headrace.api.ingest.v1.source_service_pb2 import ListRejectedMessagesRequest

    stub, parent = platform.sources, platform.parent
    name = platform.name("sources", source) if source else ""
    out.rows(
        await listed(
            lambda size, token: stub.ListRejectedMessages(
                ListRejectedMessagesRequest(parent=parent, source=name, page_size=size, page_token=token)
            ),
            "messages",
            limit=limit,
            everything=everything,
            page=_MESSAGES_PAGE,
        ),
        ("receive_time", "id", "source", "code", "field", "reason"),
    )


@command(app, "repair")
async def repair(
    platform: Platform,
    out: Output,
    ids: Annotated[list[str], Argument(help="Ids of rejected messages, as `rejected` lists them.")],
    body: Annotated[
        Path | None, Option("--body", help="File with the repaired message, for one id; - is standard input.")
    ] = None,
) -> int:
    """Send refused messages again, as they are or repaired; those accepted leave the list."""
    from headrace.api.ingest.v1.source_service_pb2 import Repair, RepairMessagesRequest

    if body is not None and len(ids) != 1:
        raise UsageProblem("--body repairs one message: give one id")
    repaired = read_text(body).encode() if body is not None else b""
    repairs = [Repair(id=id, body=repaired) for id in ids]
    request = RepairMessagesRequest(parent=platform.parent, repairs=repairs, request_id=new_request_id())
    answer = await platform.sources.RepairMessages(request)
    results = [
        {"id": id, "accepted": status.code == 0, "reason": status.message}
        for id, status in zip(ids, answer.results, strict=True)
    ]
    out.rows(results, ("id", "accepted", "reason"))
    return 0 if all(r["accepted"] for r in results) else FAILED
