"""The calls of IdentityService that correct: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.rpc import auth, names
from headrace.rpc.errors import invalid_argument
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import IDENTITY_READ, IDENTITY_WRITE
from headrace.storage.mongo.client import Session
from headrace_identity.calls.identity_handlers import Corrected, Corrections, Remember
from headrace_identity.calls.link_messages import link_message
from headrace_identity.resolving.links import Kind

_KINDS: dict[pb.LinkKind.ValueType, Kind] = {
    pb.LinkKind.LINK_KIND_TOGETHER: "together",
    pb.LinkKind.LINK_KIND_APART: "apart",
}

M = TypeVar("M", bound=Message)


class LinkCalls:
    """Serves the calls of IdentityService that undo merges and link by hand."""

    def __init__(self, corrections: Corrections, request_ids: RequestIds, pager: Pager) -> None:
        """Serve from what corrects."""
        self._corrections = corrections
        self._request_ids = request_ids
        self._pager = pager

    async def UndoMerge(self, request: pb.UndoMergeRequest, context: Any) -> pb.UndoMergeResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_WRITE, request.name)
        _, merge_id = names.parse(names.MERGE, request.name)

        def answer(corrected: Corrected) -> pb.UndoMergeResponse:
            return pb.UndoMergeResponse(
                links=[link_message(workspace_id, link) for link in corrected.links],
                profiles=_profiles(workspace_id, corrected),
                moved_events=corrected.moved_events,
            )

        return await self._once(
            workspace_id,
            "UndoMerge",
            request,
            pb.UndoMergeResponse,
            answer,
            lambda remember: self._corrections.undo_merge(workspace_id, merge_id, request.reason, remember=remember),
        )

    async def AddManualLink(self, request: pb.AddManualLinkRequest, context: Any) -> pb.AddManualLinkResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_WRITE, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        link = request.link
        kind = _KINDS.get(link.kind)
        if kind is None:
            raise invalid_argument("link.kind", "must be LINK_KIND_TOGETHER or LINK_KIND_APART")

        def answer(corrected: Corrected) -> pb.AddManualLinkResponse:
            return pb.AddManualLinkResponse(
                link=link_message(workspace_id, corrected.links[0]),
                profiles=_profiles(workspace_id, corrected),
                moved_events=corrected.moved_events,
            )

        return await self._once(
            workspace_id,
            "AddManualLink",
            request,
            pb.AddManualLinkResponse,
            answer,
            lambda remember: self._corrections.add_link(
                workspace_id, kind, link.first, link.second, link.reason, remember=remember
            ),
        )

    async def GetManualLink(self, request: pb.GetManualLinkRequest, context: Any) -> pb.GetManualLinkResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.name)
        _, link_id = names.parse(names.IDENTITY_LINK, request.name)
        link = await self._corrections.get_link(workspace_id, link_id)
        return pb.GetManualLinkResponse(link=link_message(workspace_id, link))

    async def ListManualLinks(self, request: pb.ListManualLinksRequest, context: Any) -> pb.ListManualLinksResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        after = self._pager.decode("ListManualLinks", [request.parent], request.page_token) or ""
        links = await self._corrections.list_links(workspace_id, after, size + 1)
        token = ""
        if len(links) > size:
            token = self._pager.encode("ListManualLinks", [request.parent], links[size - 1].id)
        return pb.ListManualLinksResponse(
            links=[link_message(workspace_id, link) for link in links[:size]], next_page_token=token
        )

    async def DeleteManualLink(self, request: pb.DeleteManualLinkRequest, context: Any) -> pb.DeleteManualLinkResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_WRITE, request.name)
        _, link_id = names.parse(names.IDENTITY_LINK, request.name)

        def answer(corrected: Corrected) -> pb.DeleteManualLinkResponse:
            return pb.DeleteManualLinkResponse(
                profiles=_profiles(workspace_id, corrected), moved_events=corrected.moved_events
            )

        return await self._once(
            workspace_id,
            "DeleteManualLink",
            request,
            pb.DeleteManualLinkResponse,
            answer,
            lambda remember: self._corrections.delete_link(workspace_id, link_id, remember=remember),
        )

    async def _once(
        self,
        workspace_id: str,
        method: str,
        request: Any,
        response: type[M],
        answer: Callable[[Corrected], M],
        act: Callable[[Remember], Awaitable[Corrected]],
    ) -> M:
        """Carry out a correction once per request id; its answer is stored in its own transaction."""

        async def remember(session: Session, corrected: Corrected) -> None:
            await self._request_ids.remember(
                session, workspace_id, method, request.request_id, request, answer(corrected)
            )

        async def carry_out() -> M:
            return answer(await act(remember))

        return await self._request_ids.once(workspace_id, method, request.request_id, request, response, carry_out)


def _profiles(workspace_id: str, corrected: Corrected) -> list[str]:
    return [names.format(names.PROFILE, workspace_id, profile_id) for profile_id in corrected.profiles]
