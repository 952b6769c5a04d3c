"""The gRPC server and channels, over a real connection, with WorkspaceService as the example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.api.workspace.v1 import workspace_service_pb2 as api
from headrace.api.workspace.v1.workspace_service_pb2_grpc import (
    WorkspaceServiceServicer,
    WorkspaceServiceStub,
    add_WorkspaceServiceServicer_to_server,
)
from headrace.rpc import auth, errors
from headrace.rpc.channel import connect, with_token
from headrace.rpc.server import LIVENESS, READINESS, Hosted, serving
from headrace.settings import ServiceSettings

SERVICE = "headrace.api.workspace.v1.WorkspaceService"
SETTINGS = ServiceSettings(service_token="s" * 40, master_key="k", drain_seconds=5)
CALLER = auth.Caller(workspace_id="acme", scopes=frozenset({"workspace:admin"}))


class Tokens:
    async def authenticate(self, secret: str) -> auth.Caller | None:
        return {"good": CALLER, "poor": auth.Caller("acme", frozenset()), "s" * 40: auth.SERVICE}.get(secret)


class Servicer(WorkspaceServiceServicer):
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.time_left: list[float | None] = []

    async def GetWorkspace(self, request: Any, context: Any) -> api.GetWorkspaceResponse:
        auth.authorize_name("workspace:admin", request.name)
        self.time_left.append(context.time_remaining())
        return api.GetWorkspaceResponse(workspace=api.Workspace(name=request.name))

    async def CreateWorkspace(self, request: Any, context: Any) -> api.CreateWorkspaceResponse:
        raise RuntimeError("ada@example.com")

    async def ListWorkspaces(self, request: Any, context: Any) -> api.ListWorkspacesResponse:
        self.entered.set()
        await self.go_on.wait()
        return api.ListWorkspacesResponse()


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, Servicer, dict[str, bool]]]:
    servicer, ready = Servicer(), {"ready": True}  # type: ignore[abstract]  # the other methods are not called
    hosted = Hosted(SERVICE, lambda server: add_WorkspaceServiceServicer_to_server(servicer, server))
    async with serving([hosted], authenticator=Tokens(), settings=SETTINGS, is_ready=lambda: ready["ready"]) as address:
        yield address, servicer, ready


async def _refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


@pytest.mark.parametrize(
    ("token", "name", "code", "reason"),
    [
        ("", "workspaces/acme", "UNAUTHENTICATED", "UNAUTHENTICATED"),
        ("bad", "workspaces/acme", "UNAUTHENTICATED", "UNAUTHENTICATED"),
        ("good", "workspaces/other", "PERMISSION_DENIED", "WORKSPACE_MISMATCH"),
        ("poor", "workspaces/acme", "PERMISSION_DENIED", "SCOPE_MISSING"),
        ("good", "nonsense", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ],
)
async def test_refusals_carry_code_and_reason(
    served: tuple[str, Servicer, Any], token: str, name: str, code: str, reason: str
) -> None:
    async with with_token(served[0], token) as channel:
        error = await _refused(WorkspaceServiceStub(channel).GetWorkspace(api.GetWorkspaceRequest(name=name)))
    assert error.code().name == code
    assert errors.reason_of(error) == reason


async def test_a_service_may_act_in_any_workspace_and_gets_a_deadline(served: tuple[str, Servicer, Any]) -> None:
    address, servicer, _ = served
    async with connect(address, SETTINGS) as channel:
        answer = await WorkspaceServiceStub(channel).GetWorkspace(api.GetWorkspaceRequest(name="workspaces/x"))
    assert answer.workspace.name == "workspaces/x"
    left = servicer.time_left[0]
    assert left is not None and left <= 31  # of 30: gRPC rounds up what it sends


async def test_a_defect_shows_an_error_id_and_nothing_else(served: tuple[str, Servicer, Any]) -> None:
    async with with_token(served[0], "good") as channel:
        error = await _refused(WorkspaceServiceStub(channel).CreateWorkspace(api.CreateWorkspaceRequest()))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "ada" not in str(error)
    info = errors.error_info(error)
    assert info is not None and info.metadata["error_id"] in (error.details() or "")


async def test_a_call_that_takes_too_long_ends(served: tuple[str, Servicer, Any]) -> None:
    async with with_token(served[0], "good") as channel:
        error = await _refused(WorkspaceServiceStub(channel).ListWorkspaces(api.ListWorkspacesRequest(), timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_health_follows_readiness_and_liveness_does_not(served: tuple[str, Servicer, dict[str, bool]]) -> None:
    address, _, ready = served
    async with with_token(address, "") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

        assert await status(READINESS) == await status(SERVICE) == health_pb2.HealthCheckResponse.SERVING
        ready["ready"] = False
        while await status(READINESS) == health_pb2.HealthCheckResponse.SERVING:
            await asyncio.sleep(0.05)
        assert await status(LIVENESS) == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_shows_the_service(served: tuple[str, Servicer, Any]) -> None:
    async with with_token(served[0], "") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert SERVICE in {s.name for s in answers[0].list_services_response.service}
    files = [FileDescriptorProto.FromString(raw) for raw in answers[1].file_descriptor_response.file_descriptor_proto]
    assert any(f.package == "headrace.api.workspace.v1" for f in files)


async def test_draining_lets_calls_in_progress_finish() -> None:
    servicer = Servicer()  # type: ignore[abstract]  # the other methods are not called
    hosted = Hosted(SERVICE, lambda server: add_WorkspaceServiceServicer_to_server(servicer, server))
    block = serving([hosted], authenticator=Tokens(), settings=SETTINGS)
    address = await block.__aenter__()
    async with with_token(address, "good") as channel:
        call = asyncio.ensure_future(WorkspaceServiceStub(channel).ListWorkspaces(api.ListWorkspacesRequest()))
        await servicer.entered.wait()
        closing = asyncio.create_task(block.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        late = await _refused(WorkspaceServiceStub(channel).GetWorkspace(api.GetWorkspaceRequest(name="workspaces/a")))
        assert late.code() == grpc.StatusCode.UNAVAILABLE
        servicer.go_on.set()
        assert await call == api.ListWorkspacesResponse()
        await closing


async def test_a_taken_port_is_said_clearly(served: tuple[str, Servicer, Any]) -> None:
    port = int(served[0].rpartition(":")[2])
    with pytest.raises(OSError, match="is the port taken"):
        async with serving([], authenticator=Tokens(), settings=SETTINGS.model_copy(update={"grpc_port": port})):
            pass
