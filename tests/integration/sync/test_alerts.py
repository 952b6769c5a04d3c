"""Alerts: told once under one id, however often it takes, and kept while the receiver is away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import destination_service_pb2 as dest
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.plugins.masking import MASK
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Hooks, Line, Others

PLUGINS = "webhook,meta-audience"


class Desk:
    """A receiver of alerts: refuses the first request."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, Any]] = []
        self.refused: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        assert request.headers["webhook-signature"].startswith("v1,")
        if not self.refused:
            self.refused.append(request.headers["webhook-id"])
            return web.Response(status=503)
        self.seen.append((request.headers["webhook-id"], await request.json()))
        return web.Response(status=204)

    def of(self, kind: str) -> list[Any]:
        return [told["data"] for _, told in self.seen if told["type"] == kind]


@asynccontextmanager
async def receiver(handle: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """The address of a receiver of alerts."""
    app = web.Application()
    app.router.add_post("/alerts", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
    await runner.cleanup()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    found = Desk()
    async with receiver(found.handle) as found.url:
        yield found


async def test_what_somebody_should_look_at_is_told(
    serve: Any, desk: Desk, meta: FakeMeta, others: Others, hooks: Hooks, line: Line, db: Database
) -> None:
    others.people.put("p1", email="p1@example.com")
    others.buyers.change("p1", True)

    async def fail(request: web.Request, body: Any) -> web.StreamResponse:
        return web.Response(status=500)

    hooks.answer = fail
    async with serve(alert_url=desk.url, alert_secret="whsec_c2VjcmV0") as api:
        destination = await api.destination(
            "meta", "", connector="meta-audience", audience_id="1234567890", access_token=meta.token, base_url=meta.url
        )
        sync = await api.sync(
            "buyers", destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, require_approval=True
        )
        await support.until(lambda: bool(desk.of("sync.approval_needed")), "an approval is asked for")
        (asked,) = desk.of("sync.approval_needed")
        plan = (await api.syncs.GetSync(pb.GetSyncRequest(name=sync))).sync.pending_plan
        assert asked == {"resource": sync, "reason": "the sync asks for approval", "plan_id": plan.id}
        assert desk.refused == [desk.seen[0][0]], "it came again under the same id"

        wrong = await api.destination(
            "wrong", "", connector="meta-audience", audience_id="1234567890", access_token="x" * 20, base_url=meta.url
        )
        await api.sync("stopped", wrong, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
        await support.until(lambda: bool(desk.of("destination.unauthorized")), "refused credentials are told")
        assert [told["resource"] for told in desk.of("destination.unauthorized")] == [wrong]

        down = await api.destination("down", hooks.url)
        await api.forwarding("all", down)
        await line.send_new(6)
        await support.until(lambda: bool(desk.of("destination.breaker_opened")), "an outage is told")
        assert {told["resource"] for told in desk.of("destination.breaker_opened")} == {down}
    assert "p1@example.com" not in str(desk.seen)
    assert len({id for id, _ in desk.seen}) == len(desk.seen)
    assert await db["sync_alerts"].count_documents({"na": {"$exists": True}}) == 0


async def sync_of(api: support.Api, id: str, destination: str) -> str:
    """A list sync that asks for approval."""
    return await api.sync(id, destination, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE, require_approval=True)


async def hooked(api: support.Api, name: str, url: str, secret: str) -> dest.Destination:
    """A destination with a receiver of alerts."""
    changed = dest.Destination(name=name, alert_hook=dest.AlertHook(url=url, secret=secret))
    request = dest.UpdateDestinationRequest(destination=changed, update_mask=FieldMask(paths=["alert_hook"]))
    answer: dest.UpdateDestinationResponse = await api.destinations.UpdateDestination(request)
    return answer.destination


async def test_a_destination_has_a_receiver_of_its_own(
    serve: Any, desk: Desk, meta: FakeMeta, others: Others, db: Database
) -> None:
    others.people.put("p1", email="p1@example.com")
    others.buyers.change("p1", True)
    desk.refused.append("none is refused")
    told: list[tuple[dict[str, str], bytes]] = []
    silent = True

    async def take(request: web.Request) -> web.Response:
        told.append((dict(request.headers), await request.read()))
        return web.Response(status=500 if silent else 200)

    key = base64.b64encode(b"of the receiver").decode()
    async with receiver(take) as own, serve(alert_url=desk.url, alert_secret="whsec_c2VjcmV0") as api:

        async def guarded(id: str) -> str:
            name = await api.destination(
                id, "", connector="meta-audience", audience_id="1234567890", access_token=meta.token, base_url=meta.url
            )
            changed = await hooked(api, name, "", "") if id == "plain" else await hooked(api, name, own, f"whsec_{key}")
            assert changed.alert_hook.secret == (MASK if changed.alert_hook.url else "")
            return await sync_of(api, id, name)

        mine = await guarded("mine")
        await support.until(lambda: bool(told), "the receiver was asked")
        plain = await guarded("plain")
        await support.until(lambda: bool(desk.of("sync.approval_needed")), "another receiver is told meanwhile")
        assert [one["resource"] for one in desk.of("sync.approval_needed")] == [plain]
        silent = False
        await support.until(lambda: len(told) > 1, "it is told again")
        assert len({headers["webhook-id"] for headers, _ in told}) == 1
        headers, body = told[-1]
        assert json.loads(body)["data"]["resource"] == mine
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        digest = hmac.new(b"of the receiver", signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"

        name = mine.replace("/syncs/", "/destinations/")
        before = (await api.destinations.GetDestination(dest.GetDestinationRequest(name=name))).destination
        for same in (MASK, f"whsec_{key}"):
            assert (await hooked(api, name, own, same)).etag == before.etag
        assert not (await hooked(api, name, "", "")).HasField("alert_hook")
        for url, secret in (("ftp://example.com", ""), (own, MASK), (own, "whsec_!"), ("", "key")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await hooked(api, name, url, secret)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert key not in str([d async for d in db["destinations"].find({})])


async def test_receivers_have_no_private_addresses(serve: Any) -> None:
    async with serve(allow_private_destinations=False) as api:
        name = await api.destination("hook", "https://vendor.example")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await hooked(api, name, "http://169.254.169.254/latest", "")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
