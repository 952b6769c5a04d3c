"""Alerts: told once under one id, however often it takes, and kept while the receiver is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Hooks, Line, Others


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


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    receiver = Desk()
    app = web.Application()
    app.router.add_post("/alerts", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def meta() -> AsyncIterator[FakeMeta]:
    vendor = FakeMeta()
    await vendor.start()
    yield vendor
    await vendor.stop()


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
