"""List syncs that ask before they change much: what was approved is what is sent, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.config import SEPARATOR
from headrace_sync.leases import Leases

from headrace.api.sync.v1 import plan_pb2 as plan
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import Sync, SyncKind
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from tests.support import resolved
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Line, Others

PLUGINS = "meta-audience"
LIST = "1234567890"


def held(meta: FakeMeta) -> set[str]:
    return {value for row in meta.rows.get(LIST, set()) for name, value in row if name == "EMAIL"}


def hashes(*ids: str) -> set[str]:
    return {hashlib.sha256(f"{id}@example.com".encode()).hexdigest() for id in ids}


async def guarded(api: support.Api, meta: FakeMeta, *, consents: tuple[str, ...] = (), **guards: Any) -> str:
    destination = await api.destination(
        "meta",
        "",
        connector="meta-audience",
        audience_id=LIST,
        access_token=meta.token,
        base_url=meta.url,
        required_consents=consents,
    )
    return await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, **guards)


async def waiting(api: support.Api, name: str, *, after: str = "") -> plan.SyncPlan:
    """The plan that waits, once there is one other than `after`."""
    found = plan.SyncPlan()

    async def is_there() -> bool:
        sync = (await api.syncs.GetSync(pb.GetSyncRequest(name=name))).sync
        found.CopyFrom(sync.pending_plan)
        return found.id not in ("", after)

    await support.until(is_there, "a plan waits")
    return found


@asynccontextmanager
async def no_pass(db: Database, sync_key: str) -> AsyncIterator[None]:
    """Inside the block no pass of the sync begins."""
    leases = Leases(db, owner="the test")
    while True:
        async with leases.hold(f"pass{SEPARATOR}{sync_key}") as lease:
            if lease is not None:
                yield
                return
        await asyncio.sleep(0.02)


async def approve(api: support.Api, name: str, plan_id: str) -> plan.SyncPlan:
    return (await api.syncs.ApproveSync(plan.ApproveSyncRequest(name=name, plan_id=plan_id))).plan


def put(others: Others, *ids: str) -> None:
    for id in ids:
        others.people.put(id, email=f"{id}@example.com")


async def test_nothing_is_sent_before_it_is_approved(serve: Any, meta: FakeMeta, others: Others, line: Line) -> None:
    put(others, "p1", "p2", "p3")
    for id in ("p1", "p2"):
        others.buyers.change(id, True)
        others.people.say(id, ad_user_data=True)
    others.people.say("p3", ad_user_data=True)
    async with serve() as api:
        sync = await guarded(api, meta, consents=("ad_user_data",), require_approval=True)
        first = await waiting(api, sync)
        assert (first.state, first.added, first.removed) == (plan.SYNC_PLAN_STATE_WAITING, 2, 0)
        shown = await api.syncs.DryRunSync(plan.DryRunSyncRequest(name=sync, plan_id=first.id))
        assert [change.profile_id for change in shown.changes] == ["p1", "p2"]
        assert len(shown.requests) == 1

        # What comes after the plan is not part of it, and whose data has changed since is not sent with it.
        others.people.put("p2", email="new@example.com")
        others.people.say("p2", ad_user_data=True)
        await line.resolve(resolved.event("p2", traits={"email": "new@example.com"}))
        await others.buyers.enter("p3")
        shown = await api.syncs.DryRunSync(plan.DryRunSyncRequest(name=sync, plan_id=first.id))
        assert [bool(change.reason) for change in shown.changes] == [False, True]
        assert not held(meta)

        async def all_wait() -> bool:
            return [d.reason for d in await api.deliveries(sync)] == ["approval"] * 3

        await support.until(all_wait, "who came later waits too")
        assert (await approve(api, sync, first.id)).state == plan.SYNC_PLAN_STATE_APPROVED
        second = await waiting(api, sync)
        assert second.added == 2
        assert held(meta) == hashes("p1")
        assert (await approve(api, sync, first.id)).id == first.id  # repeating it changes nothing
        await approve(api, sync, second.id)
        await support.until(lambda: len(held(meta)) == 3, "the rest is sent")
        ledger = await support.settled(api, sync)
        assert (ledger.expected, ledger.delivered) == (3, 3)

        # A withdrawal of consent never waits; an exit does.
        others.people.say("p1", ad_user_data=False)
        await line.send_new(1, "trackConsent", "p1", properties={"ad_user_data": "denied"})
        await support.until(lambda: not held(meta) & hashes("p1"), "the withdrawal is carried out")
        await others.buyers.leave("p3")
        third = await waiting(api, sync)
        assert (third.added, third.removed) == (0, 1)
        assert held(meta) >= hashes("p3")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await approve(api, sync, "nothing")
        assert errors.reason_of(refused.value) == errors.NOT_FOUND
        run = (await api.syncs.RunSync(pb.RunSyncRequest(name=sync))).run
        fourth = await waiting(api, sync, after=third.id)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await approve(api, sync, third.id)
        assert errors.reason_of(refused.value) == errors.WRONG_STATE
        runs = (await api.syncs.ListSyncRuns(pb.ListSyncRunsRequest(parent=sync))).runs
        assert [(r.plan_id, r.held) for r in runs if r.id == run.id] == [(fourth.id, 1)]

        # Without guards nothing waits any more.
        changed = Sync(name=sync, require_approval=False)
        await api.syncs.UpdateSync(
            pb.UpdateSyncRequest(sync=changed, update_mask=FieldMask(paths=["require_approval"]))
        )
        await support.until(lambda: not held(meta) & hashes("p3"), "what waited is sent")


async def test_a_row_of_who_may_not_be_there_is_not_left_to_who_waits_for_approval(
    serve: Any, meta: FakeMeta, others: Others, line: Line, db: Database
) -> None:
    """Two people have one address; the one on the list withdraws, and nobody has approved the other yet."""
    for id in ("p1", "p2"):
        others.people.put(id, email="p1@example.com")
        others.people.say(id, ad_user_data=True)
    others.buyers.change("p1", True)
    async with serve() as api:
        sync = await guarded(api, meta, consents=("ad_user_data",), require_approval=True)
        await approve(api, sync, (await waiting(api, sync)).id)
        await support.until(lambda: held(meta) == hashes("p1"), "the first one is on the list")
        await support.settled(api, sync)

        async def both_are_due() -> bool:
            return await db["list_members"].count_documents({"due": {"$gt": 0}}) == 2

        key = (await db["syncs"].find_one({}) or {})["key"]
        async with no_pass(db, key):
            others.people.say("p1", ad_user_data=False)
            await line.send_new(1, "trackConsent", "p1", properties={"ad_user_data": "denied"})
            await others.buyers.enter("p2")
            await support.until(both_are_due, "one pass looks at both")
        asked = await waiting(api, sync)
        await support.until(lambda: not held(meta), "the withdrawal is carried out")
        await approve(api, sync, asked.id)
        await support.until(lambda: held(meta) == hashes("p1"), "the other one is added")
    assert not meta.violations


async def test_a_list_is_not_emptied_unasked(serve: Any, meta: FakeMeta, others: Others) -> None:
    ids = [f"p{n}" for n in range(10)]
    put(others, *ids, "p10", "p11")
    for id in ids:
        others.buyers.change(id, True)
    async with serve() as api:
        sync = await guarded(api, meta, most_changed_percent=30)
        await support.until(lambda: held(meta) == hashes(*ids), "the first fill asks nobody")
        await others.buyers.leave("p0", "p1")
        await support.until(lambda: held(meta) == hashes(*ids[2:]), "a small change asks nobody")
        await others.buyers.leave(*ids[2:])
        asked = await waiting(api, sync)
        assert (asked.removed, "100 %" in asked.reason) == (8, True)
        assert held(meta) == hashes(*ids[2:])
        await others.buyers.enter(*ids[2:])  # it was a mistake
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))

        async def nothing_waits() -> bool:
            return not (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync.HasField("pending_plan")

        await support.until(nothing_waits, "the plan is gone")
        assert (await support.settled(api, sync)).delivered == 8
        assert held(meta) == hashes(*ids[2:])
        assert not any(method == "DELETE" and len(body["payload"]["data"]) > 2 for method, _, body in meta.requests)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.syncs.UpdateSync(
                pb.UpdateSyncRequest(
                    sync=Sync(name=sync, most_changed_percent=101),
                    update_mask=FieldMask(paths=["most_changed_percent"]),
                )
            )
        assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT
