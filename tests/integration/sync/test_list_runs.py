"""Passes of list syncs as they are shown: whether they run, came to everybody, failed or were interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import field_mask_pb2

from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind, SyncRunStatus
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Others

PLUGINS = "meta-audience"
LIST = "1234567890"


class Slow(FakeMeta):
    """A vendor that answers once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def _users(self, request: Any) -> Any:
        self.asked.set()
        await self.answers.wait()
        return await super()._users(request)


@pytest.fixture
async def meta() -> AsyncIterator[Slow]:
    vendor = Slow()
    await vendor.start()
    yield vendor
    vendor.answers.set()
    await vendor.stop()


async def list_sync(api: support.Api, meta: FakeMeta) -> str:
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    return await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)


async def runs(api: support.Api, sync: str) -> list[pb.SyncRun]:
    return list((await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs)


async def pause(api: support.Api, sync: str, paused: bool) -> None:
    mask = field_mask_pb2.FieldMask(paths=["paused"])
    await api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=pb.Sync(name=sync, paused=paused), update_mask=mask))


async def test_a_pass_that_is_cut_off_says_so_and_another_does_the_rest(
    serve: Any, meta: Slow, others: Others, db: Database
) -> None:
    others.people.put("p1", email="p1@example.com")
    others.buyers.change("p1", True)
    async with serve() as api:
        sync = await list_sync(api, meta)
        await meta.asked.wait()
        (run,) = await runs(api, sync)
        assert (run.status, run.HasField("end_time")) == (SyncRunStatus.SYNC_RUN_STATUS_RUNNING, False)
        asked = (await api.syncs.RunSync(pb.RunSyncRequest(name=sync))).run
        assert asked.status == SyncRunStatus.SYNC_RUN_STATUS_REQUESTED
        await pause(api, sync, True)

        async def interrupted() -> bool:
            return any(r.status == SyncRunStatus.SYNC_RUN_STATUS_INTERRUPTED and r.error for r in await runs(api, sync))

        await support.until(interrupted, "the pass is shown as interrupted")
        # One whose process was killed is found by the next pass, also by one that somebody asked for.
        key = (await db["syncs"].find_one({}) or {})["key"]
        lost = {"_id": "0", "k": key, "w": support.WORKSPACE, "start": 1, "end": -1, "error": "", "skipped": []}
        await db["sync_runs"].insert_one({**lost, "added": 0, "removed": 0, "failed": 0})
        meta.answers.set()
        await pause(api, sync, False)

        async def succeeded() -> bool:
            found = {r.id: r.status for r in await runs(api, sync)}
            return found[asked.id] == SyncRunStatus.SYNC_RUN_STATUS_SUCCEEDED

        await support.until(succeeded, "the pass that was asked for is done")
        found = {r.id: r for r in await runs(api, sync)}
        assert found["0"].status == SyncRunStatus.SYNC_RUN_STATUS_INTERRUPTED
        assert all(r.HasField("end_time") for r in found.values())
        assert len(meta.rows[LIST]) == 1


async def test_a_pass_that_a_vendor_breaks_off_has_failed(serve: Any, meta: Slow, others: Others) -> None:
    others.people.put("p1", email="p1@example.com")
    others.buyers.change("p1", True)
    meta.answers.set()
    meta.failures.append(Failure(400, 80003, message="Too many calls.", headers={"Retry-After": "1"}))
    async with serve() as api:
        sync = await list_sync(api, meta)
        await support.settled(api, sync)
        found = [r.status for r in reversed(await runs(api, sync))]
        assert found == [SyncRunStatus.SYNC_RUN_STATUS_FAILED, SyncRunStatus.SYNC_RUN_STATUS_SUCCEEDED]
