"""A console service in this process, and what tests of others need from it: workspaces and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from headrace_console.bootstrap import open_service
from headrace_console.settings import Settings
from headrace_console.store import INDEXES

if TYPE_CHECKING:
    from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceAsyncStub

from headrace.api.workspace.v1 import workspace_service_pb2 as pb
from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from headrace.rpc.channel import with_token
from headrace.rpc.errors import reason_of


@dataclass
class Console:
    """A running console service."""

    address: str
    url: str
    service_token: str

    @asynccontextmanager
    async def calling(self, token: str) -> AsyncIterator[WorkspaceServiceAsyncStub]:
        """A stub that shows a token."""
        async with with_token(self.address, token) as channel:
            yield WorkspaceServiceStub(channel)

    async def make_workspace(self, workspace_id: str) -> None:
        """Make a workspace."""
        async with self.calling(self.service_token) as stub:
            workspace = pb.Workspace(display_name=workspace_id)
            await stub.CreateWorkspace(pb.CreateWorkspaceRequest(workspace_id=workspace_id, workspace=workspace))

    async def make_token(self, workspace_id: str, scopes: Sequence[str] = ("*",)) -> str:
        """Make a token of an existing workspace; returns its secret."""
        async with self.calling(self.service_token) as stub:
            token = pb.ApiToken(display_name="test", scopes=scopes)
            parent = f"workspaces/{workspace_id}"
            answer = await stub.CreateApiToken(pb.CreateApiTokenRequest(parent=parent, api_token=token))
            return answer.secret


@asynccontextmanager
async def console_running(make_settings: Callable[..., Any], mongo: Any) -> AsyncIterator[Console]:
    """Serve inside the block, on the database of `make_settings`."""
    settings: Settings = make_settings(Settings)
    for collection, models in INDEXES.items():
        await mongo[settings.mongo_database][collection].create_indexes(models)
    async with open_service(settings) as running:
        yield Console(running.grpc_address, running.http_address, settings.service_token.get_secret_value())


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """The code and reason with which a call is refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), reason_of(error)
    raise AssertionError("the call was answered")
