"""List syncs that are deleted: with everybody taken off the list, or with a note of who is left on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from headrace.api.common.v1.erasure_service_pb2 import ErasedPlace, ErasePersonRequest, ErasureOutcome
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.rpc import channel, errors
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Others

PLUGINS = "webhook,meta-audience"
LIST = "1234567890"


async def filled(api: support.Api, meta: FakeMeta, others: Others, **more: Any) -> tuple[str, str]:
    """(destination, list sync) with p1 and p2 on the list."""
    for id in ("p1", "p2"):
        others.people.put(id, email=f"{id}@example.com")
        others.buyers.change(id, True)
    destination = await api.destination(
        "meta", "", connector="meta-audience", audience_id=LIST, access_token=meta.token, base_url=meta.url
    )
    sync = await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, **more)
    await support.until(lambda: len(meta.rows.get(LIST, ())) == 2, "filled")
    await support.settled(api, sync)
    return destination, sync


async def gone(api: support.Api, sync: str) -> bool:
    try:
        await api.syncs.GetSync(pb.GetSyncRequest(name=sync))
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return True
    return False


async def test_everybody_is_taken_off_and_then_the_sync_goes(
    serve: Any, meta: FakeMeta, others: Others, db: Database
) -> None:
    async with serve() as api:
        destination, sync = await filled(api, meta, others, schedule="90d", most_changed_percent=10)
        await others.buyers.leave("p2")
        await api.syncs.RunSync(pb.RunSyncRequest(name=sync))

        async def one_waits() -> bool:
            found = (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync
            return bool(found.pending_plan.removed == 1)

        await support.until(one_waits, "a removal waits for approval")
        await api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=pb.Sync(name=sync, paused=True)))
        meta.failures.append(Failure(500, 2, message="Service temporarily unavailable.", transient=True))
        answer = await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=sync, remove_members=True))
        assert answer.sync.deleting
        for call in (
            api.syncs.RunSync(pb.RunSyncRequest(name=sync)),
            api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=pb.Sync(name=sync, display_name="other"))),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert errors.reason_of(refused.value) == errors.WRONG_STATE
        others.people.put("p3", email="p3@example.com")
        await others.buyers.enter("p3")
        await support.until(lambda: gone(api, sync), "the sync is gone")
        assert not meta.rows[LIST]
        assert await db["list_members"].count_documents({}) == await db["left_on_lists"].count_documents({}) == 0
        await api.destinations.DeleteDestination(dest.DeleteDestinationRequest(name=destination))
    assert not meta.violations


async def test_only_lists_have_members_to_remove(serve: Any, hooks: support.Hooks) -> None:
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=sync, remove_members=True))
        assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT


@pytest.mark.parametrize("is_destination_gone", [False, True])
async def test_the_receipt_of_a_person_names_the_lists_of_deleted_syncs(
    serve: Any,
    meta: FakeMeta,
    others: Others,
    db: Database,
    make_settings: Callable[..., Any],
    is_destination_gone: bool,
) -> None:
    settings = support.quick_settings(make_settings, others)

    async def erase(api: support.Api, profile_id: str) -> dict[str, ErasedPlace]:
        opened = channel.with_token(api.address, settings.service_token.get_secret_value())
        request = ErasePersonRequest(
            parent=support.PARENT,
            deletion_id=f"d-{profile_id}",
            profile_ids=[profile_id],
            identifiers=[Identifier(namespace="email", value=f"{profile_id}@example.com")],
        )
        answer = await ErasureServiceStub(opened).ErasePerson(request)
        await opened.close(None)
        return {place.place: place for place in answer.places}

    async with serve() as api:
        destination, sync = await filled(api, meta, others)
        others.people.put("p3", email="p3@example.com")
        await api.syncs.DeleteSync(pb.DeleteSyncRequest(name=sync))
        if is_destination_gone:
            await api.destinations.DeleteDestination(dest.DeleteDestinationRequest(name=destination))
        for _ in range(2):  # repeating it says the same
            place = (await erase(api, "p1"))[destination]
            assert "deleted (buyers)" in place.detail
            expected = "NOT_SUPPORTED" if is_destination_gone else "REQUESTED"
            assert place.outcome == ErasureOutcome.Value(f"ERASURE_OUTCOME_{expected}")
        other = (await erase(api, "p3")).get(destination)
        assert other is None or "deleted" not in other.detail
        assert [d["p"] async for d in db["left_on_lists"].find({})] == ["p2"]
