"""Forwarding end to end: streams and log in, the receiver's requests out, the ledger balanced."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from headrace_sync.deliveries.replays import NOT_REPEATED, ReplayFilter
from headrace_sync.deliveries.store import DeliveryStore, delivery_id
from headrace_sync.store import FAILED

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.domain.ids import event_key
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support import plugin_zoo
from tests.support import sync as support
from tests.support.sync import Hooks, Line, Others


async def test_every_event_arrives_once_with_its_person(serve: Any, hooks: Hooks, line: Line, others: Others) -> None:
    others.people.put("p1", email="ada@example.com", plan="gold")
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(250, properties={"total": 19.9})
        ids += await line.send_new(3, profile_id="")  # belong to nobody
        ledger = await support.settled(api, sync)
    assert hooks.accepted == support.once(ids)
    assert (ledger.expected, ledger.delivered) == (253, 253)
    body = hooks.bodies[ids[0]]
    assert body["properties"] == {"total": 19.9}
    assert body["profile"]["traits"] == {"email": "ada@example.com", "plan": "gold"}
    assert hooks.bodies[ids[-1]]["profile"] is None


async def test_names_choose_events_and_pauses_are_accounted_for(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve() as api:
        destination = await api.destination("hook", hooks.url)
        sync = await api.forwarding("some", destination, event_names=["Purchased"])
        bought = await line.send_new(5, "Purchased")
        await line.send_new(7, "Product viewed")
        await support.settled(api, sync)
        await api.syncs.UpdateSync(pb.UpdateSyncRequest(sync=pb.Sync(name=sync, paused=True)))
        await line.send_new(4, "Purchased")
        ledger = await support.settled(api, sync)
    assert hooks.accepted == support.once(bought)
    assert ledger.expected == 16
    assert dict(ledger.filtered) == {"event_name": 7, "paused": 4}


async def test_redelivered_and_repeated_events_are_sent_once(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        events = line.make(40)
        await line.resolve(*events)
        await line.send(events)
        await line.send(events[:20] + events[:20])
        ledger = await support.settled(api, sync)
        await asyncio.sleep(0.3)
    assert hooks.accepted == support.once(e.event.message_id for e in events)
    assert ledger.delivered == 40


async def test_refusals_are_tried_again_until_they_are_taken(serve: Any, hooks: Hooks, line: Line) -> None:
    answers = [500, 429, 503]

    async def answer(request: web.Request, body: Any) -> web.Response | None:
        tries = hooks.attempts[body["message_id"]]
        if tries > len(answers) or int(body["message_id"].rpartition("-")[2]) % 4:
            return None
        return web.json_response({}, status=answers[tries - 1], headers={"Retry-After": "0"})

    hooks.answer = answer
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(20)
        ledger = await support.settled(api, sync)
        deliveries = await api.deliveries(sync)
    assert hooks.accepted == support.once(ids)
    assert ledger.delivered == 20
    tries = Counter(d.attempts for d in deliveries)
    assert tries[1] == 15
    assert tries[4] == 5


async def test_a_lost_answer_repeats_the_request_with_its_key(serve: Any, hooks: Hooks, line: Line) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        if hooks.attempts[body["message_id"]] > 1:
            return None
        hooks.accept(request, [body])
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    hooks.answer = answer
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(3)
        await support.settled(api, sync)
    # At least once, under one key by which the receiver knows the repetition.
    assert set(hooks.accepted) == set(ids)
    assert all(hooks.headers[id]["idempotency-key"] == id for id in ids)


async def test_events_wait_as_long_as_the_sync_says(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve() as api:
        hook = await api.destination("hook", hooks.url)
        later = await api.forwarding("later", hook, delay_seconds=3_600)
        soon = await api.forwarding("soon", hook, delay_seconds=1)
        await line.send_new(2)
        await support.settled(api, soon)
        told = await api.deliveries(soon)

        async def planned() -> bool:
            return len(await api.deliveries(later)) == 2

        await support.until(planned, "both syncs know the events")
        waiting = await api.deliveries(later)
    assert len(told) == 2
    assert len(hooks.accepted) == 2
    assert all(d.update_time.ToMicroseconds() - d.create_time.ToMicroseconds() >= 1_000_000 for d in told)
    assert [d.next_attempt_time.seconds - d.create_time.seconds for d in waiting] == [3_600] * 2


async def test_what_may_have_arrived_is_replayed_only_when_it_is_asked_for(db: Database) -> None:
    store = DeliveryStore(db)
    for id, reason in (("certain", "HTTP 400"), ("perhaps", f"no answer: {NOT_REPEATED}")):
        await db["deliveries"].insert_one({"_id": delivery_id("k", id), "k": "k", "w": "w", "st": FAILED, "r": reason})
    assert await store.replay("k", "w", ReplayFilter(), now=1) == 1
    assert await store.replay("k", "w", ReplayFilter(), now=1) == 0
    assert await store.replay("k", "w", ReplayFilter(even_if_sent=True), now=1) == 1
    await db["deliveries"].update_many({}, {"$set": {"st": FAILED}})
    assert await store.replay("k", "w", ReplayFilter(ids=["perhaps"]), now=1) == 1


async def test_what_a_receiver_refuses_for_good_waits_in_the_dead_letter(serve: Any, hooks: Hooks, line: Line) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        return web.json_response({}, status=422) if body["message_id"].endswith("-3") else None

    hooks.answer = answer
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(10)
        ledger = await support.settled(api, sync)
        assert (ledger.delivered, ledger.failed) == (9, 1)
        (failed,) = await api.deliveries(sync, state=pb.DeliveryState.DELIVERY_STATE_FAILED)
        assert (failed.message_id, failed.status_code, failed.attempts) == (ids[3], 422, 1)
        assert "422" in failed.reason
        hooks.answer = None
        for other in (
            {"status_code": 500},
            {"reason_contains": "no such reason"},
            {"failed_before": failed.update_time},
            {"delivery_ids": ["another"]},
        ):
            request = pb.ReplayDeliveriesRequest(parent=sync, **other)
            assert (await api.syncs.ReplayDeliveries(request)).replayed == 0
        request = pb.ReplayDeliveriesRequest(
            parent=sync, status_code=422, reason_contains="422", failed_from=failed.update_time
        )
        assert (await api.syncs.ReplayDeliveries(request)).replayed == 1
        ledger = await support.settled(api, sync)
        (again,) = await api.deliveries(support.PARENT, message_id=ids[3])
    assert (ledger.delivered, ledger.failed) == (10, 0)
    assert hooks.accepted == support.once(ids)
    assert again.state == pb.DeliveryState.DELIVERY_STATE_DELIVERED


async def test_refused_credentials_pause_the_destination_and_lose_nothing(
    serve: Any, hooks: Hooks, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        good = request.headers.get("Authorization") == "Bearer right-token"
        return None if good else web.json_response({}, status=401)

    hooks.answer = answer
    async with serve() as api:
        name = await api.destination("hook", hooks.url, secret_headers={"Authorization": "Bearer wrong-token"})
        sync = await api.forwarding("all", name)
        ids = await line.send_new(30)

        async def state() -> dest.Destination:
            answer: dest.GetDestinationResponse
            answer = await api.destinations.GetDestination(dest.GetDestinationRequest(name=name))
            return answer.destination

        async def stopped() -> bool:
            return (await state()).state == dest.DestinationState.DESTINATION_STATE_UNAUTHORIZED

        await support.until(stopped, "the destination is paused")
        stored = await state()
        assert "401" in stored.state_reason
        assert "wrong-token" not in stored.settings + stored.state_reason
        logged = [str(getattr(record, "fields", {})) for record in caplog.records]
        assert any(name in fields for fields in logged), "the log says which destination is stopped"
        assert not any(stored.state_reason in fields for fields in logged), "but not the vendor's words"
        tried = hooks.total_attempts
        ids += await line.send_new(5)
        ledger = await api.ledger(sync)
        assert ledger.failed == ledger.delivered == 0
        settings = json.loads(stored.settings)
        settings["secret_headers"]["Authorization"] = "Bearer right-token"
        changed = dest.Destination(name=name, settings=json.dumps(settings), etag=stored.etag)
        await api.destinations.UpdateDestination(dest.UpdateDestinationRequest(destination=changed))
        ledger = await support.settled(api, sync)
    assert hooks.accepted == support.once(ids)
    assert ledger.delivered == 35
    assert tried < 30  # it stopped before it had asked for each


async def test_dead_and_slow_destinations_delay_no_other(serve: Any, hooks: Hooks, line: Line) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        await asyncio.sleep(3600)
        return None

    async with support.hooks() as slow, serve(delivery_queue=50) as api:
        slow.answer = answer
        dead = await api.forwarding("dead", await api.destination("dead", "http://127.0.0.1:9/hook"))
        hanging = await api.forwarding("slow", await api.destination("slow", slow.url))
        healthy = await api.forwarding("healthy", await api.destination("healthy", hooks.url))
        ids = [id for _ in range(6) for id in await line.send_new(100)]
        ledger = await support.settled(api, healthy)
        assert ledger.delivered == 600
        assert hooks.accepted == support.once(ids)
        for name in (dead, hanging):
            waiting = await api.ledger(name)
            assert (waiting.expected, waiting.waiting, waiting.unaccounted) == (600, 600, 0)


async def test_two_replicas_share_the_work_and_send_once(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve() as api, serve() as other:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = [id for _ in range(10) for id in await line.send_new(50)]
        await support.settled(other, sync)
    assert hooks.accepted == support.once(ids)


async def test_what_redis_lost_is_planned_from_the_log(serve: Any, hooks: Hooks, line: Line, redis: Redis) -> None:
    async with serve(reconcile_seconds=3600) as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(20)
        await support.settled(api, sync)
        lost = line.make(30)
        await line.store(lost)  # committed, and Redis forgets before anybody reads it
        await redis.flushall()
        ids += [e.event.message_id for e in lost]
        ids += await line.send_new(10)
        ledger = await support.settled(api, sync)
    assert ledger.expected == 60
    assert hooks.accepted == support.once(ids)


async def test_an_account_that_does_not_balance_is_put_right(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve(reconcile_seconds=0.5) as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url), event_names=["Purchased"])
        ids = await line.send_new(5)
        await support.settled(api, sync)
        bought, viewed = line.make(7), line.make(9, "Product viewed")
        await line.store([*bought, *viewed])  # never reach the stream, and are older than what is on its way
        await line.db["events"].update_many(
            {"_id": {"$in": [event_key("acme", e.event.message_id) for e in (*bought, *viewed)]}},
            {"$inc": {"s": -30_000_000}},
        )
        ledger = await support.settled(api, sync)
    assert (ledger.expected, ledger.delivered, dict(ledger.filtered)) == (21, 12, {"event_name": 9})
    assert hooks.accepted == support.once(ids + [e.event.message_id for e in bought])


async def test_a_plugin_that_always_fails_parks_its_events_and_harms_no_other(
    serve: Any, hooks: Hooks, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_zoo.install_callers(tmp_path, "raises")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with serve(plugin_attempts=1, plugins=f"{support.PLUGINS},zoo") as api:
        bad = await api.forwarding("bad", await api.destination("bad", hooks.url, "raises", token=plugin_zoo.SECRET))
        good = await api.forwarding("good", await api.destination("good", hooks.url))
        ids = await line.send_new(5)
        ledger = await support.settled(api, bad)
        assert ledger.failed == 5
        failed = await api.deliveries(bad)
        assert all("the plugin failed" in delivery.reason for delivery in failed)
        assert not any(plugin_zoo.SECRET in str(delivery) for delivery in failed)
        assert (await support.settled(api, good)).delivered == 5
    assert hooks.accepted == support.once(ids)


async def test_an_endless_answer_is_cut_off(serve: Any, hooks: Hooks, line: Line) -> None:
    async def answer(request: web.Request, body: Any) -> web.StreamResponse | None:
        endless = web.StreamResponse()
        await endless.prepare(request)
        hooks.accept(request, [body])
        with contextlib.suppress(ConnectionError):
            while True:
                await endless.write(b"x" * 65_536)
        return endless

    hooks.answer = answer
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(2)
        ledger = await support.settled(api, sync)
    assert ledger.delivered == 2
    assert hooks.accepted == support.once(ids)
