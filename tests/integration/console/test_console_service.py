"""WorkspaceService on a real store: workspaces, tokens, who may see what, and the HTTP port."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from headrace_console.store import API_TOKENS

from headrace.api.workspace.v1 import workspace_service_pb2 as pb
from headrace.rpc import auth
from headrace.rpc.channel import with_token
from headrace.rpc.errors import field_violations
from tests.support.console import Console, console_running, refused

if TYPE_CHECKING:
    from headrace.api.workspace.v1.workspace_service_pb2_grpc import WorkspaceServiceAsyncStub

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def console(make_settings: Any, mongo: Any) -> AsyncIterator[Console]:
    async with console_running(make_settings, mongo) as running:
        yield running


@pytest.fixture
async def service(console: Console) -> AsyncIterator[WorkspaceServiceAsyncStub]:
    async with console.calling(console.service_token) as stub:
        yield stub


def creation(workspace_id: str, name: str = "Shop", request_id: str = "") -> pb.CreateWorkspaceRequest:
    return pb.CreateWorkspaceRequest(
        workspace_id=workspace_id, workspace=pb.Workspace(display_name=name), request_id=request_id
    )


async def test_workspaces_are_made_read_and_listed_in_pages(service: WorkspaceServiceAsyncStub) -> None:
    for workspace_id in ["c", "a", "b"]:
        made = (await service.CreateWorkspace(creation(workspace_id))).workspace
        read = (await service.GetWorkspace(pb.GetWorkspaceRequest(name=f"workspaces/{workspace_id}"))).workspace
        assert read == made
        assert made.create_time.seconds > 0
    names: list[str] = []
    token = ""
    while True:
        page = await service.ListWorkspaces(pb.ListWorkspacesRequest(page_size=2, page_token=token))
        names += [w.name for w in page.workspaces]
        token = page.next_page_token
        if not token:
            break
    assert names == ["workspaces/a", "workspaces/b", "workspaces/c"]


async def test_a_repeated_creation_is_answered_the_same_and_another_of_that_id_is_refused(
    console: Console, service: WorkspaceServiceAsyncStub, mongo: Any, settings_env: dict[str, str]
) -> None:
    request = creation("shop", request_id=str(uuid.uuid4()))
    first = await service.CreateWorkspace(request)
    assert await service.CreateWorkspace(request) == first
    # As after a crash between making the workspace and remembering the answer.
    await mongo[settings_env["HEADRACE_MONGO_DATABASE"]]["request_ids"].delete_many({})
    assert await service.CreateWorkspace(request) == first
    taken = (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert await refused(service.CreateWorkspace(creation("shop"))) == taken
    assert await refused(service.CreateWorkspace(creation("shop", request_id=str(uuid.uuid4())))) == taken


@pytest.mark.parametrize(
    ("workspace_id", "name", "field"),
    [
        ("", "Shop", "workspace_id"),
        ("Shop", "Shop", "workspace_id"),
        ("a" * 64, "Shop", "workspace_id"),
        ("a/b", "Shop", "workspace_id"),
        ("shop", "", "workspace.display_name"),
        ("shop", " \t", "workspace.display_name"),
        ("shop", "a\0b", "workspace.display_name"),
        ("shop", "n" * 201, "workspace.display_name"),
    ],
)
async def test_a_bad_workspace_is_refused_with_its_field(
    service: WorkspaceServiceAsyncStub, workspace_id: str, name: str, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.CreateWorkspace(creation(workspace_id, name))
    assert raised.value.code() == INVALID
    assert [f for f, _ in field_violations(raised.value)] == [field]


async def test_only_services_make_workspaces_and_ask_about_secrets(console: Console) -> None:
    await console.make_workspace("shop")
    async with console.calling(await console.make_token("shop")) as stub:
        assert await refused(stub.CreateWorkspace(creation("other"))) == (DENIED, "SCOPE_MISSING")
        asked = stub.AuthenticateToken(pb.AuthenticateTokenRequest(secret=auth.new_token()))
        assert await refused(asked) == (DENIED, "SCOPE_MISSING")


async def test_a_token_sees_its_own_workspace_alone(console: Console) -> None:
    await console.make_workspace("one")
    await console.make_workspace("two")
    async with console.calling(await console.make_token("one", ["workspace:admin"])) as stub:
        listed = (await stub.ListWorkspaces(pb.ListWorkspacesRequest())).workspaces
        assert [w.name for w in listed] == ["workspaces/one"]
        # What exists elsewhere cannot be found out: a missing workspace is refused as an existing one is.
        for name in ["workspaces/two", "workspaces/missing"]:
            for call in [
                stub.GetWorkspace(pb.GetWorkspaceRequest(name=name)),
                stub.ListApiTokens(pb.ListApiTokensRequest(parent=name)),
                stub.CreateApiToken(pb.CreateApiTokenRequest(parent=name)),
                stub.RevokeApiToken(pb.RevokeApiTokenRequest(name=f"{name}/apiTokens/x")),
            ]:
                assert await refused(call) == (DENIED, "WORKSPACE_MISMATCH")


async def test_a_token_without_the_scope_is_refused(console: Console) -> None:
    await console.make_workspace("shop")
    async with console.calling(await console.make_token("shop", ["profiles:read"])) as stub:
        name = "workspaces/shop"
        for call in [
            stub.GetWorkspace(pb.GetWorkspaceRequest(name=name)),
            stub.ListWorkspaces(pb.ListWorkspacesRequest()),
            stub.ListApiTokens(pb.ListApiTokensRequest(parent=name)),
            stub.CreateApiToken(pb.CreateApiTokenRequest(parent=name)),
            stub.RevokeApiToken(pb.RevokeApiTokenRequest(name=f"{name}/apiTokens/x")),
        ]:
            assert await refused(call) == (DENIED, "SCOPE_MISSING")


@pytest.mark.parametrize(
    ("display_name", "scopes", "fields"),
    [
        ("", ["*"], ["api_token.display_name"]),
        ("x", [], ["api_token.scopes"]),
        ("x", ["profiles:read", "profile:read", "**"], ["api_token.scopes[1]", "api_token.scopes[2]"]),
    ],
)
async def test_a_bad_token_is_refused_with_its_fields(
    console: Console, service: WorkspaceServiceAsyncStub, display_name: str, scopes: list[str], fields: list[str]
) -> None:
    await console.make_workspace("shop")
    token = pb.ApiToken(display_name=display_name, scopes=scopes)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.CreateApiToken(pb.CreateApiTokenRequest(parent="workspaces/shop", api_token=token))
    assert raised.value.code() == INVALID
    assert [f for f, _ in field_violations(raised.value)] == fields


async def test_tokens_of_no_workspace_are_not_made(service: WorkspaceServiceAsyncStub) -> None:
    token = pb.ApiToken(display_name="x", scopes=["*"])
    call = service.CreateApiToken(pb.CreateApiTokenRequest(parent="workspaces/missing", api_token=token))
    assert await refused(call) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_secret_is_shown_once_and_stored_as_a_digest(
    console: Console, service: WorkspaceServiceAsyncStub, mongo: Any, settings_env: dict[str, str]
) -> None:
    await console.make_workspace("shop")
    token = pb.ApiToken(display_name="ci", scopes=["syncs:read", "profiles:read", "syncs:read"])
    made = await service.CreateApiToken(pb.CreateApiTokenRequest(parent="workspaces/shop", api_token=token))
    assert list(made.api_token.scopes) == ["profiles:read", "syncs:read"]
    listed = await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/shop"))
    assert list(listed.api_tokens) == [made.api_token]
    database = mongo[settings_env["HEADRACE_MONGO_DATABASE"]]
    for collection in await database.list_collection_names():
        async for document in database[collection].find():
            assert made.secret not in str(document)
    answer = await service.AuthenticateToken(pb.AuthenticateTokenRequest(secret=made.secret))
    assert answer.workspace_id == "shop"
    assert list(answer.scopes) == ["profiles:read", "syncs:read"]


async def test_a_revoked_token_is_unknown_and_stays_listed(
    console: Console, service: WorkspaceServiceAsyncStub
) -> None:
    await console.make_workspace("shop")
    secret = await console.make_token("shop")
    (token,) = (await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/shop"))).api_tokens
    revoked = (await service.RevokeApiToken(pb.RevokeApiTokenRequest(name=token.name))).api_token
    assert revoked.HasField("revoke_time")
    again = (await service.RevokeApiToken(pb.RevokeApiTokenRequest(name=token.name))).api_token
    assert again == revoked
    unknown = service.AuthenticateToken(pb.AuthenticateTokenRequest(secret=secret))
    assert await refused(unknown) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    async with console.calling(secret) as stub:
        assert await refused(stub.ListWorkspaces(pb.ListWorkspacesRequest())) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
        )
    listed = (await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/shop"))).api_tokens
    assert list(listed) == [revoked]


async def test_tokens_are_revoked_in_their_workspace(console: Console, service: WorkspaceServiceAsyncStub) -> None:
    await console.make_workspace("one")
    await console.make_workspace("two")
    secret = await console.make_token("one")
    (token,) = (await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/one"))).api_tokens
    elsewhere = token.name.replace("workspaces/one", "workspaces/two")
    call = service.RevokeApiToken(pb.RevokeApiTokenRequest(name=elsewhere))
    assert (await refused(call))[0] == grpc.StatusCode.NOT_FOUND
    assert (await service.AuthenticateToken(pb.AuthenticateTokenRequest(secret=secret))).workspace_id == "one"


async def test_tokens_of_one_workspace_are_paged(console: Console, service: WorkspaceServiceAsyncStub) -> None:
    # "shop" and "shop-2" are neighbours: a page of one must not run into the other.
    for workspace_id in ["shop", "shop-2"]:
        await console.make_workspace(workspace_id)
        for _ in range(3):
            await console.make_token(workspace_id)
    seen: list[str] = []
    page_token = ""
    while True:
        page = await service.ListApiTokens(
            pb.ListApiTokensRequest(parent="workspaces/shop", page_size=2, page_token=page_token)
        )
        seen += [t.name for t in page.api_tokens]
        page_token = page.next_page_token
        if not page_token:
            break
    assert len(seen) == len(set(seen)) == 3
    assert all(name.startswith("workspaces/shop/") for name in seen)
    first = await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/shop", page_size=1))
    other = pb.ListApiTokensRequest(parent="workspaces/shop-2", page_token=first.next_page_token)
    assert await refused(service.ListApiTokens(other)) == (INVALID, "INVALID_PAGE_TOKEN")
    negative = pb.ListApiTokensRequest(parent="workspaces/shop", page_size=-1)
    assert await refused(service.ListApiTokens(negative)) == (INVALID, "INVALID_ARGUMENT")


@pytest.mark.parametrize("token", ["", "hr_unknown", "x" * 5000, "Basic abc"])
async def test_unknown_credentials_are_refused(console: Console, token: str) -> None:
    async with console.calling(token) as stub:
        code, reason = await refused(stub.ListWorkspaces(pb.ListWorkspacesRequest()))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_other_services_stop_taking_a_revoked_token(console: Console, service: WorkspaceServiceAsyncStub) -> None:
    await console.make_workspace("shop")
    secret = await console.make_token("shop", ["profiles:read"])
    async with with_token(console.address, console.service_token) as channel:
        elsewhere = auth.ApiTokenAuthenticator(channel, ttl_s=0.05, unknown_ttl_s=0.05)
        caller = await elsewhere.authenticate(secret)
        assert caller == auth.Caller(workspace_id="shop", scopes=frozenset({"profiles:read"}))
        (token,) = (await service.ListApiTokens(pb.ListApiTokensRequest(parent="workspaces/shop"))).api_tokens
        await service.RevokeApiToken(pb.RevokeApiTokenRequest(name=token.name))
        await asyncio.sleep(0.06)
        assert await elsewhere.authenticate(secret) is None


async def test_http_tells_health_and_what_runs_here(console: Console) -> None:
    async with aiohttp.ClientSession(console.url) as http:
        async with http.get("/") as answer:
            assert answer.status == 200
            assert "WorkspaceService" in await answer.text()
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        ready = await http.get("/readyz")
        while ready.status == 503:  # until the store has answered for the first time
            assert ready.headers["Retry-After"] == "1"
            await asyncio.sleep(0.02)
            ready = await http.get("/readyz")
        assert await ready.json() == {"status": "ready"}
        async with http.get("/nothing") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
        async with http.post("/healthz") as answer:
            assert (answer.status, (await answer.json())["code"]) == (405, "method_not_allowed")


async def test_the_store_is_asked_by_index(console: Console, mongo: Any, settings_env: dict[str, str]) -> None:
    database = mongo[settings_env["HEADRACE_MONGO_DATABASE"]]
    plan = await database[API_TOKENS].find({"digest": "x", "revoked_us": 0}).explain()
    assert "by_digest" in str(plan["queryPlanner"]["winningPlan"])
