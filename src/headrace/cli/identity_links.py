"""`headrace identity undo | link | links | unlink`: who is who, corrected by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command
from headrace.cli.files import new_request_id
from headrace.cli.output import Output, plain_of
from headrace.cli.platform import Platform, listed

COLUMNS = ("manual link=name", "kind", "first", "second", "reason", "undone merge=undone_merge", "made=create_time")

_CORRECTED = ("profiles", "moved events=moved_events")

Reason = Annotated[str, Option("--reason", help="Why, for the record.")]


async def undo(
    platform: Platform,
    out: Output,
    merge: Annotated[str, Argument(help="Merge as `headrace identity merges` names it, or the merged profile's id.")],
    reason: Reason,
) -> None:
    """Split a profile at a merge, as if it had never been; the two stay apart."""
    from headrace.api.identity.v1.identity_service_pb2 import UndoMergeRequest

    request = UndoMergeRequest(name=platform.name("merges", merge), reason=reason, request_id=new_request_id())
    answer = await platform.identity.UndoMerge(request)
    if out.as_json:
        out.item(answer)
        return
    out.rows([link_row(link) for link in answer.links], COLUMNS)
    _corrected(out, answer)


async def link(
    platform: Platform,
    out: Output,
    namespace: Annotated[str, Argument(help='Namespace of one identifier, such as "email".')],
    value: Annotated[str, Argument(help="Its value; normalised as events are.")],
    other_namespace: Annotated[str, Argument(help="Namespace of the other one.")],
    other_value: Annotated[str, Argument(help="Its value.")],
    reason: Reason,
    apart: Annotated[bool, Option("--apart", help="Force them apart; without it together.")] = False,
) -> None:
    """Force two identifiers together or apart, over all other rules."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.identity_service_pb2 import AddManualLinkRequest, LinkKind, ManualLink

    made = ManualLink(
        kind=LinkKind.LINK_KIND_APART if apart else LinkKind.LINK_KIND_TOGETHER,
        first=Identifier(namespace=namespace, value=value),
        second=Identifier(namespace=other_namespace, value=other_value),
        reason=reason,
    )
    request = AddManualLinkRequest(parent=platform.parent, link=made, request_id=new_request_id())
    answer = await platform.identity.AddManualLink(request)
    if out.as_json:
        out.item(answer)
        return
    out.rows([link_row(answer.link)], COLUMNS)
    _corrected(out, answer)


async def links(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List manual links, those of undone merges included."""
    from headrace.api.identity.v1.identity_service_pb2 import ListManualLinksRequest

    stub, parent = platform.identity, platform.parent
    found = await listed(
        lambda size, token: stub.ListManualLinks(
            ListManualLinksRequest(parent=parent, page_size=size, page_token=token)
        ),
        "links",
        limit=limit,
        everything=everything,
    )
    out.rows(found if out.as_json else [link_row(one) for one in found], COLUMNS)


async def unlink(
    platform: Platform,
    out: Output,
    link: Annotated[str, Argument(help="Id or resource name of a manual link.")],
) -> None:
    """Take a manual link back: what the events alone say holds again."""
    from headrace.api.identity.v1.identity_service_pb2 import DeleteManualLinkRequest

    request = DeleteManualLinkRequest(name=platform.name("identityLinks", link), request_id=new_request_id())
    answer = await platform.identity.DeleteManualLink(request)
    if out.as_json:
        out.item(answer)
        return
    _corrected(out, answer)


def register(app: typer.Typer) -> None:
    """Add the commands to a group."""
    for body in (undo, link, links, unlink):
        command(app, body.__name__)(body)


def link_row(link: Any) -> dict[str, Any]:
    """A manual link as a row."""
    return {**plain_of(link), "first": _text(link.first), "second": _text(link.second)}


def _corrected(out: Output, answer: Any) -> None:
    out.rows([{"profiles": list(answer.profiles), "moved_events": answer.moved_events}], _CORRECTED)


def _text(identifier: Any) -> str:
    return f"{identifier.namespace}:{identifier.value}"
