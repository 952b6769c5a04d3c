from __future__ import annotations

import asyncio
import uuid

import pytest

from headrace.api.workspace.v1 import workspace_service_pb2 as api
from headrace.rpc.errors import ApiError
from headrace.rpc.idempotency import RequestIds
from headrace.storage.mongo.client import Database

REQUEST = api.CreateWorkspaceRequest(workspace_id="a")


class Work:
    def __init__(self) -> None:
        self.done = 0

    async def __call__(self) -> api.CreateWorkspaceResponse:
        self.done += 1
        return api.CreateWorkspaceResponse(workspace=api.Workspace(name=f"workspaces/{self.done}"))


async def _once(db: Database, request_id: str, request: api.CreateWorkspaceRequest, work: Work) -> str:
    answer = await RequestIds(db).once(
        "acme", "CreateWorkspace", request_id, request, api.CreateWorkspaceResponse, work
    )
    return answer.workspace.name


async def test_a_repeated_call_gets_the_first_answer(db: Database) -> None:
    work, request_id = Work(), str(uuid.uuid4())
    assert [await _once(db, request_id, REQUEST, work) for _ in range(3)] == ["workspaces/1"] * 3
    assert await _once(db, request_id.upper(), REQUEST, work) == "workspaces/1"
    assert work.done == 1


async def test_without_an_id_each_call_is_carried_out(db: Database) -> None:
    work = Work()
    assert [await _once(db, "", REQUEST, work) for _ in range(2)] == ["workspaces/1", "workspaces/2"]


async def test_an_id_cannot_be_used_for_another_request(db: Database) -> None:
    work, request_id = Work(), str(uuid.uuid4())
    await _once(db, request_id, REQUEST, work)
    with pytest.raises(ApiError, match="another request"):
        await _once(db, request_id, api.CreateWorkspaceRequest(workspace_id="b"), work)


async def test_an_id_that_is_no_uuid_is_refused(db: Database) -> None:
    with pytest.raises(ApiError, match="UUID"):
        await _once(db, "1", REQUEST, Work())


async def test_what_failed_is_carried_out_again(db: Database) -> None:
    request_id = str(uuid.uuid4())

    async def fails() -> api.CreateWorkspaceResponse:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await RequestIds(db).once("acme", "CreateWorkspace", request_id, REQUEST, api.CreateWorkspaceResponse, fails)
    assert await _once(db, request_id, REQUEST, Work()) == "workspaces/1"


async def test_the_same_call_twice_at_a_time_is_answered_twice(db: Database) -> None:
    work, request_id = Work(), str(uuid.uuid4())
    answers = await asyncio.gather(*(_once(db, request_id, REQUEST, work) for _ in range(5)))
    assert all(answer.startswith("workspaces/") for answer in answers)
    assert await _once(db, request_id, REQUEST, work) in answers
