"""The vendor's list belongs to the sync: several on one destination, another one later, and what rows go by."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.lists.following import Following
from headrace_sync.lists.store import ListStore
from pymongo.errors import AutoReconnect

from headrace.api.common.v1.erasure_service_pb2 import ErasePersonRequest
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import plan_pb2
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.rpc import channel
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Others

PLUGINS = "meta-audience,webhook"
LIST, OTHER, THIRD = "1234567890", "222", "333"
KIND = SyncKind.SYNC_KIND_LIST


@pytest.fixture
async def meta() -> AsyncIterator[FakeMeta]:
    vendor = FakeMeta()
    vendor.audiences |= {OTHER, THIRD}
    await vendor.start()
    yield vendor
    await vendor.stop()


def hashes(*profile_ids: str) -> set[str]:
    return {hashlib.sha256(f"{id}@example.com".encode()).hexdigest() for id in profile_ids}


def held(meta: FakeMeta, list_id: str = LIST) -> set[str]:
    """The e-mail hashes on a list."""
    return {value for row in meta.rows.get(list_id, set()) for name, value in row if name == "EMAIL"}


def put(others: Others, *profile_ids: str) -> None:
    for profile_id in profile_ids:
        others.people.put(profile_id, email=f"{profile_id}@example.com", work=f"{profile_id}@example.com")
        others.buyers.change(profile_id, True)


async def destination_of(api: support.Api, meta: FakeMeta, **more: Any) -> str:
    return await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url, **more
    )


async def change(api: support.Api, sync: str, **fields: Any) -> pb.Sync:
    request = pb.UpdateSyncRequest(sync=pb.Sync(name=sync, **fields), update_mask=FieldMask(paths=list(fields)))
    return (await api.syncs.UpdateSync(request)).sync


async def change_settings(api: support.Api, destination: str, before: str, after: str) -> None:
    found = (await api.destinations.GetDestination(dest.GetDestinationRequest(name=destination))).destination
    changed = dest.Destination(name=destination, settings=found.settings.replace(before, after))
    request = dest.UpdateDestinationRequest(destination=changed, update_mask=FieldMask(paths=["settings"]))
    await api.destinations.UpdateDestination(request)


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


async def test_syncs_of_one_destination_fill_lists_of_their_own(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2")
    async with serve() as api:
        destination = await destination_of(api, meta)
        first = await api.sync("first", destination, KIND, audience=support.AUDIENCE)
        second = await api.sync("second", destination, KIND, audience=support.AUDIENCE, list=OTHER)
        everybody = hashes("p1", "p2")
        await support.until(lambda: (held(meta), held(meta, OTHER)) == (everybody, everybody), "both are filled")
        found = (await api.syncs.GetSync(pb.GetSyncRequest(name=second))).sync
        assert found.list == OTHER
        await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=first))
        await others.buyers.leave("p1")
        await support.until(lambda: held(meta, OTHER) == hashes("p2"), "who left is off the list of the other")
        assert held(meta) == everybody
    assert not meta.violations


async def test_no_two_syncs_fill_the_same_list(serve: Any, meta: FakeMeta) -> None:
    async with serve() as api:
        destination = await destination_of(api, meta)
        await api.sync("first", destination, KIND, audience=support.AUDIENCE)
        said = await refused(api.sync("again", destination, KIND, audience=support.AUDIENCE))
        assert "sync.list" in said
        assert "/syncs/first" in said
        assert "/syncs/first" in await refused(
            api.sync("again", destination, KIND, audience=support.AUDIENCE, list=LIST)
        )
        second = await api.sync("second", destination, KIND, audience=support.AUDIENCE, list=OTHER)
        assert "/syncs/first" in await refused(change(api, second, list=""))
        assert "/syncs/first" in await refused(change(api, second, list=LIST))
        said = await refused(change_settings(api, destination, LIST, OTHER))
        assert "audience_id" in said
        assert "/syncs/first" in said
        assert "/syncs/second" in said
        await change_settings(api, destination, LIST, THIRD)
        await change(api, second, list=LIST, display_name="moved to what is free now")


async def test_of_syncs_that_are_made_at_once_one_fills_the_list(serve: Any, meta: FakeMeta) -> None:
    async with serve() as api:
        destination = await destination_of(api, meta)
        made = await asyncio.gather(
            *(api.sync(f"sync-{n}", destination, KIND, audience=support.AUDIENCE) for n in range(4)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, str) for one in made) == 1


async def test_a_list_that_cannot_be_is_refused(serve: Any, meta: FakeMeta, hooks: support.Hooks) -> None:
    async with serve() as api:
        destination = await destination_of(api, meta)
        said = await refused(api.sync("one", destination, KIND, audience=support.AUDIENCE, list="no number"))
        assert "sync.list" in said
        hook = await api.destination("hook", hooks.url)
        kind = SyncKind.SYNC_KIND_FORWARDING
        assert "sync.list" in await refused(api.sync("two", hook, kind, list=OTHER))


@pytest.mark.parametrize("of_the_sync", [True, False])
async def test_another_list_is_filled_and_the_one_before_stays(
    serve: Any, meta: FakeMeta, others: Others, of_the_sync: bool
) -> None:
    put(others, "p1", "p2")
    async with serve() as api:
        destination = await destination_of(api, meta)
        sync = await api.sync("buyers", destination, KIND, audience=support.AUDIENCE)
        await support.until(lambda: held(meta) == hashes("p1", "p2"), "filled")
        await support.settled(api, sync)
        if of_the_sync:
            await change(api, sync, list=OTHER)
        else:
            await change_settings(api, destination, LIST, OTHER)
        await support.until(lambda: held(meta, OTHER) == hashes("p1", "p2"), "the other is filled")
        assert (await support.settled(api, sync)).delivered == 2
        await others.buyers.leave("p2")
        await support.until(lambda: held(meta, OTHER) == hashes("p1"), "it follows the audience")
        assert held(meta) == hashes("p1", "p2")
    assert not meta.violations


async def test_filling_another_list_waits_for_approval(serve: Any, meta: FakeMeta, others: Others) -> None:
    put(others, "p1", "p2")
    async with serve() as api:
        destination = await destination_of(api, meta)
        sync = await api.sync("buyers", destination, KIND, audience=support.AUDIENCE)
        await support.until(lambda: held(meta) == hashes("p1", "p2"), "filled")
        await support.settled(api, sync)
        await change(api, sync, list=OTHER, require_approval=True)

        async def plan() -> bool:
            found = (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync
            return bool(found.pending_plan.added == 2)

        await support.until(plan, "a plan waits")
        assert not held(meta, OTHER)
        found = (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync
        await api.syncs.ApproveSync(plan_pb2.ApproveSyncRequest(name=sync, plan_id=found.pending_plan.id))
        await support.until(lambda: held(meta, OTHER) == hashes("p1", "p2"), "approved")


async def test_a_list_that_the_vendor_does_not_know_stops_nothing_else(
    serve: Any, meta: FakeMeta, others: Others
) -> None:
    put(others, "p1")
    async with serve() as api:
        destination = await destination_of(api, meta)
        lost = await api.sync("lost", destination, KIND, audience=support.AUDIENCE, list="404")
        await api.sync("buyers", destination, KIND, audience=support.AUDIENCE)
        await support.until(lambda: held(meta) == hashes("p1"), "the other goes on")

        async def said() -> bool:
            (member,) = await api.deliveries(lost)
            return "audience" in member.reason

        await support.until(said, "the reason is shown")
        found = (await api.destinations.GetDestination(dest.GetDestinationRequest(name=destination))).destination
        assert found.state == dest.DestinationState.DESTINATION_STATE_ACTIVE
        await change(api, lost, list=OTHER)
        await support.until(lambda: held(meta, OTHER) == hashes("p1"), "another list works at once")


async def test_checks_look_at_the_lists_of_syncs_and_dry_runs_show_them(
    serve: Any, meta: FakeMeta, others: Others
) -> None:
    put(others, "p1")
    async with serve() as api:
        destination = await destination_of(api, meta)
        lost = await api.sync("lost", destination, KIND, audience=support.AUDIENCE, list="404", paused=True)
        await api.sync("second", destination, KIND, audience=support.AUDIENCE, list=OTHER, paused=True)
        found = (await api.destinations.CheckDestination(dest.CheckDestinationRequest(name=destination))).checks
        problems = {one.title.rpartition("(")[2].rstrip(")"): bool(one.problem) for one in found}
        assert problems["404"] is True
        assert problems[OTHER] is False
        shown = await api.syncs.DryRunSync(plan_pb2.DryRunSyncRequest(name=lost))
        assert ["/404/users" in request.url for request in shown.requests] == [True]


async def test_people_who_are_deleted_leave_every_list(
    serve: Any, meta: FakeMeta, others: Others, make_settings: Any
) -> None:
    put(others, "p1", "p2")
    async with serve() as api:
        destination = await destination_of(api, meta)
        await api.sync("first", destination, KIND, audience=support.AUDIENCE)
        await api.sync("second", destination, KIND, audience=support.AUDIENCE, list=OTHER)
        everybody = hashes("p1", "p2")
        await support.until(lambda: (held(meta), held(meta, OTHER)) == (everybody, everybody), "both are filled")
        request = ErasePersonRequest(
            parent=support.PARENT,
            deletion_id="d-1",
            profile_ids=["p1"],
            identifiers=[Identifier(namespace="email", value="p1@example.com")],
        )
        token = support.quick_settings(make_settings, others).service_token.get_secret_value()
        opened = channel.with_token(api.address, token)
        await ErasureServiceStub(opened).ErasePerson(request)
        await opened.close(None)
        assert (held(meta), held(meta, OTHER)) == (hashes("p2"), hashes("p2"))
        # The rows of each sync are removed, and the vendor is asked to forget the person on each list.
        asked = Counter(path.split("/")[2] for method, path, _ in meta.requests if method == "DELETE")
        assert asked == {LIST: 2, OTHER: 2}


@pytest.mark.parametrize("crash", ["marking", "remembering"])
async def test_what_rows_go_by_is_followed_whatever_breaks_off(
    serve: Any, meta: FakeMeta, others: Others, db: Database, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    """A store that fails between the writes stands for a process that ends there."""
    put(others, "p1", "p2")
    for id in ("p1", "p2"):
        others.people.put(id, email=f"{id}@example.com", work=f"{id}-work@example.com")
    async with serve() as api:
        destination = await destination_of(api, meta)
        sync = await api.sync("buyers", destination, KIND, audience=support.AUDIENCE)
        await support.until(lambda: held(meta) == hashes("p1", "p2"), "filled")
        await support.settled(api, sync)
        failures = 2
        kind, name = (ListStore, "mark_all") if crash == "marking" else (Following, "_remember")
        real = getattr(kind, name)

        async def fails(*args: Any, **more: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise AutoReconnect("stepped down")
            return await real(*args, **more)

        monkeypatch.setattr(kind, name, fails)
        await change(api, sync, mapping='{"email": "profile.traits.work"}')
        await support.until(lambda: held(meta) == hashes("p1-work", "p2-work"), "the list follows the mapping")
        assert not failures
    assert not meta.violations
