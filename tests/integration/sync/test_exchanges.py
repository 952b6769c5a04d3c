"""The delivery log shows what was sent and what the vendor said, and names nobody."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import DeliveryState, SyncKind
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.sync import Hooks, Line, Others

PLUGINS = "webhook,meta-audience"
SECRET = "a-secret-of-the-destination"
ADA = [("email", "ada@example.com")]


async def kept(api: support.Api, sync: str, state: DeliveryState.ValueType) -> list[pb.Delivery]:
    """Deliveries of a state once what is kept of their requests can be read."""
    found: list[pb.Delivery] = []

    async def is_there() -> bool:
        found[:] = await api.deliveries(sync, state=state, exchanges=True)
        return bool(found) and any(one.HasField("exchange") for one in found)

    await support.until(is_there, "the request is kept")
    return found


async def test_a_failed_delivery_shows_its_request_and_the_answer(
    serve: Any, hooks: Hooks, line: Line, others: Others, db: Database
) -> None:
    others.people.put("p1", email="ada@example.com", first_name="Ada")

    async def answer(request: web.Request, body: Any) -> web.Response | None:
        if body["properties"].get("bad"):
            return web.json_response({"error": "ada@example.com is refused", "who": "Ada"}, status=422)
        return None

    hooks.answer = answer
    async with serve() as api:
        hook = await api.destination("hook", f"{hooks.url}?key=1", secret_headers={"X-Api-Key": SECRET})
        sync = await api.forwarding("all", hook)
        await line.send_new(1, "Purchased", identifiers=ADA, properties={"bad": True, "price": 19.9})
        (failed,) = await kept(api, sync, DeliveryState.DELIVERY_STATE_FAILED)
        shown = failed.exchange
        assert (shown.method, shown.status_code, shown.items) == ("POST", 422, 1)
        assert shown.url.startswith(hooks.url) and failed.status_code == 422
        body = json.loads(shown.body)
        assert body["properties"] == {"bad": True, "price": 19.9}
        assert json.loads(shown.answer) == {"error": "(email) is refused", "who": "(who)"}
        # Unasked nothing of it is read; what goes well is kept now and then.
        assert not (await api.deliveries(sync))[0].HasField("exchange")
        await line.send_new(30, "Purchased", identifiers=ADA)
        await support.settled(api, sync)
        delivered = await kept(api, sync, DeliveryState.DELIVERY_STATE_DELIVERED)
        assert sum(one.HasField("exchange") for one in delivered) == 1
        stored = [str(d) async for d in db["exchanges"].find({})]
        for datum in ("ada@example.com", "Ada'", '"Ada"', SECRET):
            assert not [text for text in stored if datum in text]


async def test_every_request_is_kept_where_that_is_asked_for(serve: Any, hooks: Hooks, line: Line) -> None:
    async with serve(delivery_log_every_seconds=0) as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        await line.send_new(20)
        await support.settled(api, sync)

        async def all_are_kept() -> bool:
            found = await api.deliveries(sync, exchanges=True)
            return len(found) == 20 and all(one.HasField("exchange") for one in found)

        await support.until(all_are_kept, "each delivery shows its request")


async def test_a_member_shows_the_request_that_failed(serve: Any, others: Others) -> None:
    meta = FakeMeta()
    await meta.start()
    others.people.put("p1", email="ada@example.com")
    try:
        async with serve() as api:
            destination = await api.destination(
                "meta",
                "",
                connector="meta-audience",
                audience_id="1234567890",
                access_token=meta.token,
                base_url=meta.url,
            )
            sync = await api.sync("buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
            meta.failures += [Failure(500)] * 3
            await others.buyers.enter("p1")
            (member,) = await kept(api, sync, DeliveryState.DELIVERY_STATE_WAITING)
            assert member.exchange.status_code == member.status_code == 500
            assert meta.token not in str(member) and "..." in member.exchange.body
    finally:
        await meta.stop()
