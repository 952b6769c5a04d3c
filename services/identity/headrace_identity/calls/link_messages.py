"""Manual links as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.rpc import names
from headrace_identity.resolving.links import ManualLink
from headrace_identity.resolving.rules import Identifier

_KINDS = {"together": pb.LinkKind.LINK_KIND_TOGETHER, "apart": pb.LinkKind.LINK_KIND_APART}


def link_message(workspace_id: str, link: ManualLink) -> pb.ManualLink:
    """A manual link as a message."""
    return pb.ManualLink(
        name=names.format(names.IDENTITY_LINK, workspace_id, link.id),
        kind=_KINDS[link.kind],
        first=identifier_message(link.first),
        second=identifier_message(link.second),
        reason=link.reason,
        undone_merge=names.format(names.MERGE, workspace_id, link.undone_merge) if link.undone_merge else "",
        create_time=Timestamp(seconds=link.created_us // 1_000_000, nanos=link.created_us % 1_000_000 * 1_000),
    )


def identifier_message(identifier: Identifier) -> IdentifierMessage:
    """An identifier as a message."""
    return IdentifierMessage(namespace=identifier[0], value=identifier[1])
