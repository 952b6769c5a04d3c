"""Pausing and resuming: what waits meanwhile is tried afterwards, its time beginning anew, whoever ends in between."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask
from headrace_sync.deliveries.replays import NOT_REPEATED
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.worker import FAR_US
from headrace_sync.store import DELIVERIES, FAILED, WAITING

from headrace.api.sync.v1.destination_service_pb2 import Destination, DestinationState, UpdateDestinationRequest
from headrace.api.sync.v1.sync_service_pb2 import Sync, UpdateSyncRequest
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.sync import Api, Hooks, Line

HOUR_US = 3600 * SECOND_US


async def set_state(api: Api, destination: str, state: DestinationState.ValueType) -> None:
    request = UpdateDestinationRequest(
        destination=Destination(name=destination, state=state), update_mask=FieldMask(paths=["state"])
    )
    await api.destinations.UpdateDestination(request)


async def set_paused(api: Api, sync: str, paused: bool) -> None:
    mask = FieldMask(paths=["paused"])
    await api.syncs.UpdateSync(UpdateSyncRequest(sync=Sync(name=sync, paused=paused), update_mask=mask))


async def test_a_destination_resumed_after_hours_fails_nothing_for_its_age(
    serve: Any, hooks: Hooks, line: Line, db: Database
) -> None:
    async with serve() as api:
        destination = await api.destination("hook", hooks.url, batch_size=100)
        sync = await api.forwarding("all", destination)
        await set_state(api, destination, DestinationState.DESTINATION_STATE_PAUSED)
        ids = [id for _ in range(10) for id in await line.send_new(200)]

        async def planned() -> bool:
            return await db[DELIVERIES].count_documents({"st": WAITING}) == len(ids)

        await support.until(planned, "all wait")
        # As if they had been tried once before it was paused, five hours ago.
        now = now_us()
        tried = {"b": now - 5 * HOUR_US, "na": now - 4 * HOUR_US, "at": 1}
        await db[DELIVERIES].update_many({"st": WAITING}, {"$set": tried})
        await set_state(api, destination, DestinationState.DESTINATION_STATE_ACTIVE)
        ledger = await support.settled(api, sync)
    assert (ledger.delivered, ledger.failed) == (len(ids), 0)
    assert hooks.accepted == support.once(ids)


async def test_nor_one_whose_process_ends_when_it_is_resumed(
    serve: Any, hooks: Hooks, line: Line, db: Database
) -> None:
    async def refuse(request: web.Request, body: Any) -> web.Response | None:
        return web.json_response({}, status=503)

    hooks.answer = refuse
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.forwarding("all", destination)
        ids = await line.send_new(3)
        await support.until(lambda: hooks.total_attempts > 0, "they are tried")
        await set_state(api, destination, DestinationState.DESTINATION_STATE_PAUSED)
    await db[DELIVERIES].update_many({}, {"$set": {"b": now_us() - 5 * HOUR_US, "na": now_us()}})
    async with serve(config_poll_seconds=600.0) as api:  # it does not see it any more
        await set_state(api, destination, DestinationState.DESTINATION_STATE_ACTIVE)
    async with serve() as api:
        hooks.answer = None
        ledger = await support.settled(api, sync)
    assert (ledger.delivered, ledger.failed) == (3, 0)
    assert set(ids) == hooks.accepted.keys()


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends before it has seen it"])
async def test_what_was_put_off_comes_back_when_its_sync_is_resumed(
    serve: Any, hooks: Hooks, line: Line, db: Database, ends: bool
) -> None:
    async def refuse(request: web.Request, body: Any) -> web.Response | None:
        return web.json_response({}, status=503)

    async def is_put_off() -> bool:
        return await db[DELIVERIES].count_documents({"na": {"$gt": now_us() + FAR_US // 2}}) == 3

    hooks.answer = refuse
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(3)
        await support.until(lambda: hooks.total_attempts > 0, "they are tried")
        await set_paused(api, sync, True)
        await support.until(is_put_off, "they are put off", within_s=60)
        hooks.answer = None
        if not ends:
            await set_paused(api, sync, False)
            ledger = await support.settled(api, sync)
    if ends:
        await db["syncs"].update_many({}, {"$set": {"paused": False}})
        async with serve() as api:
            ledger = await support.settled(api, sync)
    assert (ledger.delivered, ledger.waiting) == (3, 0)
    assert hooks.accepted == support.once(ids)


async def test_what_may_have_been_sent_is_not_failed_for_its_age_alone(db: Database) -> None:
    now = now_us()
    old = {"d": "w/hook", "st": WAITING, "na": now - 1, "b": now - 5 * HOUR_US, "u": 0}
    await db[DELIVERIES].insert_many([{**old, "_id": "tried"}, {**old, "_id": "interrupted", "sg": True}])
    store = DeliveryStore(db)
    assert await store.expire("w/hook", begun_before=now - 4 * HOUR_US, reason="not accepted", now=now) == 1
    found = {d["_id"]: d async for d in db[DELIVERIES].find({})}
    assert found["tried"]["st"] == FAILED
    assert found["interrupted"]["st"] == WAITING, f"whoever takes it says that it was {NOT_REPEATED!r}"
