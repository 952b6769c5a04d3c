"""The first workspace of a new platform, with the keys to try it: made once, found again at later starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc

from headrace.api.ingest.v1 import source_service_pb2 as sources
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub
from headrace.api.workspace.v1 import workspace_service_pb2 as workspaces
from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from headrace.embedded.folder import read_json, write_private_json
from headrace.rpc.channel import with_token
from headrace.rpc.scopes import EVERYTHING

if TYPE_CHECKING:
    from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceAsyncStub
    from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceAsyncStub

WORKSPACE = "default"
SOURCE = "http"

_PARENT = f"workspaces/{WORKSPACE}"
_EXISTS = (grpc.StatusCode.ALREADY_EXISTS,)


class Keys(NamedTuple):
    """What a user needs to send events and to call the services."""

    workspace: str
    write_key: str
    api_token: str


async def open_workspace(*, workspace_address: str, ingest_address: str, service_token: str, keys_path: Path) -> Keys:
    """Make the workspace, an API token for everything in it, and an HTTP source, as far as they do not exist.

    Args:
        workspace_address: gRPC address of WorkspaceService.
        ingest_address: gRPC address of SourceService.
        service_token: The platform's service token.
        keys_path: File that keeps the API token, which is shown only once.

    Raises:
        grpc.aio.AioRpcError: A service refused or could not be reached.
        EmbeddedError: The file is damaged.
    """
    async with (
        with_token(workspace_address, service_token) as workspace_channel,
        with_token(ingest_address, service_token) as ingest_channel,
    ):
        service: WorkspaceServiceAsyncStub = WorkspaceServiceStub(workspace_channel)
        await _ensure_workspace(service)
        api_token = await _ensure_api_token(service, keys_path)
        write_key = await _ensure_source(SourceServiceStub(ingest_channel))
    return Keys(WORKSPACE, write_key, api_token)


async def _ensure_workspace(service: WorkspaceServiceAsyncStub) -> None:
    try:
        await service.CreateWorkspace(
            workspaces.CreateWorkspaceRequest(
                workspace_id=WORKSPACE, workspace=workspaces.Workspace(display_name="Default")
            )
        )
    except grpc.aio.AioRpcError as error:
        if error.code() not in _EXISTS:
            raise


async def _ensure_api_token(service: WorkspaceServiceAsyncStub, keys_path: Path) -> str:
    kept = (read_json(keys_path) or {}).get("api_token", "")
    if kept and await _works(service, kept):
        return str(kept)
    answer = await service.CreateApiToken(
        workspaces.CreateApiTokenRequest(
            parent=_PARENT, api_token=workspaces.ApiToken(display_name="headrace up", scopes=[EVERYTHING])
        )
    )
    write_private_json(keys_path, {"api_token": answer.secret})
    return answer.secret


async def _works(service: WorkspaceServiceAsyncStub, token: str) -> bool:
    try:
        answer = await service.AuthenticateToken(workspaces.AuthenticateTokenRequest(secret=token))
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return answer.workspace_id == WORKSPACE


async def _ensure_source(service: SourceServiceAsyncStub) -> str:
    try:
        created = await service.CreateSource(
            sources.CreateSourceRequest(
                parent=_PARENT, source_id=SOURCE, source=sources.Source(display_name="HTTP API", kind="http")
            )
        )
    except grpc.aio.AioRpcError as error:
        if error.code() not in _EXISTS:
            raise
        found = await service.GetSource(sources.GetSourceRequest(name=f"{_PARENT}/sources/{SOURCE}"))
        return found.source.write_key
    return created.source.write_key
