"""Every method of every service: refuses callers without credentials, of another workspace, and without the scope."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import headrace.api
from headrace.api.workspace.v1 import workspace_service_pb2 as workspace_api
from headrace.rpc.errors import reason_of
from headrace.rpc.scopes import SCOPES
from tests.support.up import Up

DENIED = grpc.StatusCode.PERMISSION_DENIED

SERVED_BY = {
    "IngestService": "ingest",
    "SourceService": "ingest",
    "ProfileService": "identity",
    "IdentityService": "identity",
    "GroupService": "identity",
    "ComputedTraitService": "identity",
    "AudienceService": "audience",
    "DestinationService": "sync",
    "SyncService": "sync",
    "WorkspaceService": "workspace",
    "ErasureService": "sync",  # and ingest and audience, by the same code
}
COLLECTION = {
    "IngestService": "sources",
    "SourceService": "sources",
    "ProfileService": "profiles",
    "IdentityService": "identity",
    "GroupService": "profiles",
    "ComputedTraitService": "profiles",
    "AudienceService": "audiences",
    "DestinationService": "destinations",
    "SyncService": "syncs",
    "ErasureService": "profiles",
}
PARENT_IS_A_RESOURCE = {"ListSourceMessages", "ListProfileEvents", "ListMembers", "ListSyncRuns", "ReplayDeliveries"}
SERVICES_ONLY = {"CreateWorkspace", "AuthenticateToken", "ErasePerson", "CheckErased", "FollowTombstones"}
NAMES_NO_WORKSPACE = {"ListWorkspaces"}
"""Shows what the caller may see, whatever it asks."""
READS = ("Get", "List", "Lookup", "BatchGet", "Search", "Watch", "Explain", "Check", "Preview", "Verify", "Compare")


@dataclass(frozen=True)
class Method:
    """A method as its proto declares it."""

    service: str
    name: str
    path: str
    request: Any
    response: Any
    takes_stream: bool
    gives_stream: bool

    @property
    def scope(self) -> str:
        """The scope that its service's proto names for it."""
        if self.service == "IngestService":
            return "events:write"
        if self.service == "WorkspaceService":
            return "workspace:admin"
        return f"{COLLECTION[self.service]}:{'read' if self.name.startswith(READS) else 'write'}"

    def in_workspace(self, workspace: str) -> Message:
        """A request about something in a workspace."""
        parent = f"workspaces/{workspace}"
        if self.service == "WorkspaceService":
            resource = parent if self.name == "GetWorkspace" else f"{parent}/apiTokens/x"
        else:
            resource = f"{parent}/{COLLECTION[self.service]}/x"
        request: Any = self.request()
        for field in request.DESCRIPTOR.fields:
            if field.name == "parent":
                request.parent = resource if self.name in PARENT_IS_A_RESOURCE else parent
            elif field.name == "name" or (self.service == "IngestService" and field.name == "source"):
                setattr(request, field.name, resource)
            elif self.name.startswith("Update") and field.name.replace("_", "") == self.name[len("Update") :].lower():
                getattr(request, field.name).name = resource
        return request  # type: ignore[no-any-return]  # the class is made from the descriptor


def every_method() -> Iterator[Method]:
    for module in pkgutil.walk_packages(headrace.api.__path__, "headrace.api."):
        if not module.name.endswith("_pb2") or module.name.startswith("headrace.api.connector."):
            continue  # what plugins serve, to the host alone, is no service of the platform
        for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield Method(
                    service.name,
                    method.name,
                    f"/{service.full_name}/{method.name}",
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                    method.client_streaming,
                    method.server_streaming,
                )


METHODS = list(every_method())
IN_A_WORKSPACE = [m for m in METHODS if m.name not in SERVICES_ONLY | NAMES_NO_WORKSPACE]


def answer(up: Up, method: Method, request: Message, token: str) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    serializer, deserializer = method.request.SerializeToString, method.response.FromString
    with grpc.insecure_channel(up.ready["grpc"][SERVED_BY[method.service]]) as channel:
        try:
            if method.takes_stream:
                stream = channel.stream_stream(
                    method.path, request_serializer=serializer, response_deserializer=deserializer
                )
                list(stream(iter([request]), metadata=metadata, timeout=30))
            elif method.gives_stream:
                watch = channel.unary_stream(
                    method.path, request_serializer=serializer, response_deserializer=deserializer
                )
                list(watch(request, metadata=metadata, timeout=2))  # it ends when the caller does
            else:
                unary = channel.unary_unary(
                    method.path, request_serializer=serializer, response_deserializer=deserializer
                )
                unary(request, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code(), reason_of(error)
    return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def tokens(up: Up) -> dict[tuple[str, ...], str]:
    """Tokens by their scopes: for each scope one that has it alone, and one that has all others."""
    made: dict[tuple[str, ...], str] = {}
    create = next(m for m in METHODS if m.name == "CreateApiToken")
    with grpc.insecure_channel(up.ready["grpc"]["workspace"]) as channel:
        call = channel.unary_unary(
            create.path,
            request_serializer=create.request.SerializeToString,
            response_deserializer=create.response.FromString,
        )
        for scope in SCOPES:
            for scopes in [(scope,), tuple(sorted(SCOPES - {scope}))]:
                token = workspace_api.ApiToken(display_name="test", scopes=scopes)
                request = workspace_api.CreateApiTokenRequest(
                    parent=f"workspaces/{up.ready['workspace']}", api_token=token
                )
                metadata = (("authorization", f"Bearer {up.ready['api_token']}"),)
                made[scopes] = call(request, metadata=metadata, timeout=30).secret
    return made


def test_every_method_is_here() -> None:
    assert {m.service for m in METHODS} == set(SERVED_BY)
    assert len(METHODS) == len({m.path for m in METHODS}) >= 50


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_callers_without_credentials_are_refused(up: Up, method: Method) -> None:
    request = method.in_workspace(up.ready["workspace"])
    for token in ["", "hr_unknown"]:
        assert answer(up, method, request, token) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.parametrize("method", IN_A_WORKSPACE, ids=lambda m: m.name)
def test_a_token_cannot_leave_its_workspace(up: Up, method: Method) -> None:
    request = method.in_workspace("another")
    assert answer(up, method, request, up.ready["api_token"]) == (DENIED, "WORKSPACE_MISMATCH")


@pytest.mark.parametrize("method", [m for m in METHODS if m.name in SERVICES_ONLY], ids=lambda m: m.name)
def test_what_is_for_services_is_refused_to_tokens(up: Up, method: Method) -> None:
    assert answer(up, method, method.request(), up.ready["api_token"]) == (DENIED, "SCOPE_MISSING")


@pytest.mark.parametrize("method", [m for m in METHODS if m.name not in SERVICES_ONLY], ids=lambda m: m.name)
def test_a_token_needs_the_scope_and_no_other(up: Up, method: Method, tokens: dict[tuple[str, ...], str]) -> None:
    request = method.in_workspace(up.ready["workspace"])
    without = tokens[tuple(sorted(SCOPES - {method.scope}))]
    assert answer(up, method, request, without) == (DENIED, "SCOPE_MISSING")
    code, reason = answer(up, method, request, tokens[(method.scope,)])
    assert code not in {DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}, (code, reason)
    assert reason != "INTERNAL"
