"""Vendors who count repetitions get nothing twice, whatever fails beside a request that is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from headrace_sync.deliveries.store import DeliveryStore
from pymongo.errors import AutoReconnect

from tests.support import sync as support
from tests.support.sync import Hooks, Line


async def test_what_is_on_its_way_is_not_sent_again_when_the_store_fails_for_another_request(
    serve: Any, hooks: Hooks, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten requests of one batch to a vendor who counts repetitions; the permit of the sixth meets an error."""
    on_their_way = asyncio.Event()
    failed = asyncio.Event()
    asked = 0
    real = DeliveryStore.hold

    async def answer(request: web.Request, body: Any) -> web.Response | None:
        on_their_way.set()
        await failed.wait()
        await asyncio.sleep(1.0)
        return None

    async def hold(
        self: DeliveryStore, ids: Sequence[str], *, owner: str, until: int, sending: bool = False
    ) -> set[str]:
        nonlocal asked
        asked += sending
        if sending and asked == 6:
            await on_their_way.wait()
            failed.set()
            raise AutoReconnect("stepped down")
        return await real(self, ids, owner=owner, until=until, sending=sending)

    hooks.answer = answer
    monkeypatch.setattr(DeliveryStore, "hold", hold)
    script = (
        "function send(event, profile, settings) { return {url: settings.to, body: {message_id: event.message_id}}; }"
    )
    async with serve(plugins="javascript") as api:
        destination = await api.destination(
            "js", "", connector="javascript", script=script, settings={"to": hooks.url}, allow_http=True
        )
        sync = await api.forwarding("all", destination)
        ids = await line.send_new(10)
        ledger = await support.settled(api, sync)
    assert failed.is_set() and hooks.accepted == support.once(ids)
    assert ledger.delivered == len(ids)
