"""WorkspaceService in gRPC: maps messages to calls of the handlers and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.workspace.v1 import workspace_service_pb2 as pb
from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceServicer
from headrace.rpc import auth, names
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import WORKSPACE_ADMIN
from headrace_console.handlers import Workspaces
from headrace_console.store import ApiToken, Workspace


class WorkspaceServicer(WorkspaceServiceServicer):
    """Serves WorkspaceService."""

    def __init__(self, workspaces: Workspaces, pager: Pager, requests: RequestIds) -> None:
        """Serve from the handlers."""
        self._workspaces = workspaces
        self._pager = pager
        self._requests = requests

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, context: Any) -> pb.CreateWorkspaceResponse:
        """See the proto."""
        auth.require_service()

        async def act() -> pb.CreateWorkspaceResponse:
            workspace = await self._workspaces.create_workspace(
                request.workspace_id, request.workspace.display_name, request.request_id
            )
            return pb.CreateWorkspaceResponse(workspace=_workspace(workspace))

        workspace_id = names.check_id("workspace_id", request.workspace_id)
        return await self._requests.once(
            workspace_id, "CreateWorkspace", request.request_id, request, pb.CreateWorkspaceResponse, act
        )

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Any) -> pb.GetWorkspaceResponse:
        """See the proto."""
        workspace_id = _authorized(request.name, "name")
        names.parse(names.WORKSPACE, request.name)
        return pb.GetWorkspaceResponse(workspace=_workspace(await self._workspaces.workspace(workspace_id)))

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Any) -> pb.ListWorkspacesResponse:
        """See the proto."""
        size = page_size(request.page_size)
        after = self._pager.decode("ListWorkspaces", [], request.page_token) or ""
        found = await self._workspaces.workspaces(after, size + 1)
        more = self._pager.encode("ListWorkspaces", [], found[size - 1].id) if len(found) > size else ""
        return pb.ListWorkspacesResponse(workspaces=[_workspace(w) for w in found[:size]], next_page_token=more)

    async def CreateApiToken(self, request: pb.CreateApiTokenRequest, context: Any) -> pb.CreateApiTokenResponse:
        """See the proto."""
        workspace_id = _authorized(request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        token, secret = await self._workspaces.create_token(
            workspace_id, request.api_token.display_name, request.api_token.scopes
        )
        return pb.CreateApiTokenResponse(api_token=_token(token), secret=secret)

    async def ListApiTokens(self, request: pb.ListApiTokensRequest, context: Any) -> pb.ListApiTokensResponse:
        """See the proto."""
        workspace_id = _authorized(request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        arguments = [request.parent]
        after = self._pager.decode("ListApiTokens", arguments, request.page_token) or ""
        found = await self._workspaces.tokens(workspace_id, after, size + 1)
        more = self._pager.encode("ListApiTokens", arguments, found[size - 1].id) if len(found) > size else ""
        return pb.ListApiTokensResponse(api_tokens=[_token(t) for t in found[:size]], next_page_token=more)

    async def RevokeApiToken(self, request: pb.RevokeApiTokenRequest, context: Any) -> pb.RevokeApiTokenResponse:
        """See the proto."""
        workspace_id = _authorized(request.name, "name")
        _, token_id = names.parse(names.API_TOKEN, request.name)
        return pb.RevokeApiTokenResponse(api_token=_token(await self._workspaces.revoke_token(workspace_id, token_id)))

    async def AuthenticateToken(
        self, request: pb.AuthenticateTokenRequest, context: Any
    ) -> pb.AuthenticateTokenResponse:
        """See the proto."""
        token = await self._workspaces.authenticate(request.secret)
        return pb.AuthenticateTokenResponse(workspace_id=token.workspace_id, scopes=token.scopes)


def _authorized(name: str, field: str) -> str:
    """The workspace of a name, once the caller is known to be allowed there."""
    return auth.authorize_name(WORKSPACE_ADMIN, name, field)


def _workspace(workspace: Workspace) -> pb.Workspace:
    return pb.Workspace(
        name=names.format(names.WORKSPACE, workspace.id),
        display_name=workspace.display_name,
        create_time=_time(workspace.created_us),
    )


def _token(token: ApiToken) -> pb.ApiToken:
    return pb.ApiToken(
        name=names.format(names.API_TOKEN, token.workspace_id, token.id),
        display_name=token.display_name,
        scopes=token.scopes,
        create_time=_time(token.created_us),
        revoke_time=_time(token.revoked_us) if token.revoked_us else None,
    )


def _time(moment_us: int) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(moment_us)
    return time
