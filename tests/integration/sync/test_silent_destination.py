"""A destination that never answers: the others get all of theirs meanwhile, and it costs no more than its own share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from headrace_sync.config import DestinationConfig
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.fleet import Fleet
from headrace_sync.outlets.breaker import Breaker
from headrace_sync.outlets.outlet import Outlet

from headrace.connector import wire
from headrace.storage.mongo.client import Document
from tests.support import sync as support

SLOTS = 16
"""Requests that the webhook connector may have under way at a destination."""
EVENTS = 400
PROBES = 4
BETWEEN_PROBES_S = 0.2

GiveUpAfter = Callable[[float], list[Outlet]]


class Silent:
    """Takes requests and answers none, until it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.answers = False
        self.requests = 0
        self.under_way = 0
        self.most = 0
        self.accepted: set[str] = set()
        self.besides: list[int] = []
        self.on_request: Callable[[int], None] = lambda number: None

    async def handle(self, request: web.Request) -> web.Response:
        event = await request.json()
        self.requests += 1
        self.besides.append(self.under_way)
        self.on_request(self.requests)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if not self.answers:
                await asyncio.Event().wait()
        finally:
            self.under_way -= 1
        self.accepted.add(event["message_id"])
        return web.Response()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    made = Silent()
    app = web.Application()
    app.router.add_post("/silent", made.handle)
    # A handler ends when the client gives its request up.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/silent"
    yield made
    await runner.cleanup()


@pytest.fixture
def give_up_after(monkeypatch: pytest.MonkeyPatch) -> GiveUpAfter:
    """give_up_after(seconds): how long the destination `silent` is waited for; the list gets its way out."""
    make = Fleet._make_outlet

    def patience(timeout_s: float) -> list[Outlet]:
        made: list[Outlet] = []

        def make_outlet(self: Fleet, destination: DestinationConfig, info: wire.ConnectorInfo) -> Outlet:
            if not destination.name.endswith("/silent"):
                return make(self, destination, info)
            outlet = make(self, destination, replace(info, timeout_s=timeout_s))
            outlet.breaker.first_wait_s = outlet.breaker.longest_wait_s = BETWEEN_PROBES_S
            made.append(outlet)
            return outlet

        monkeypatch.setattr(Fleet, "_make_outlet", make_outlet)
        return made

    return patience


async def test_the_others_get_all_of_theirs_while_it_hangs(
    serve: Any, hooks: support.Hooks, line: support.Line, silent: Silent, give_up_after: GiveUpAfter
) -> None:
    give_up_after(3600.0)
    async with serve() as api:
        hanging = await api.forwarding("silent", await api.destination("silent", silent.url))
        others = [
            await api.forwarding(id, await api.destination(id, hooks.url, batch_size=size))
            for id, size in (("one", 1), ("ten", 10))
        ]
        sent = await line.send_new(EVENTS // 2)
        await support.until(lambda: silent.under_way == SLOTS, "all of its slots are taken")
        sent += await line.send_new(EVENTS // 2)
        for name in others:
            ledger = await support.settled(api, name)
            assert ledger.delivered == EVENTS
        assert hooks.accepted == support.once(sent * 2)
        assert (silent.requests, silent.under_way, silent.most) == (SLOTS, SLOTS, SLOTS)
        ledger = await api.ledger(hanging)
        assert (ledger.waiting, ledger.unaccounted) == (EVENTS, 0)


async def test_when_its_breaker_has_opened_it_gets_probes_alone(
    serve: Any,
    line: support.Line,
    silent: Silent,
    give_up_after: GiveUpAfter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = give_up_after(0.3)
    taken: list[int] = []
    taken_before: dict[int, int] = {}
    claim, threshold = DeliveryStore.claim, Breaker().threshold

    async def counted(self: DeliveryStore, key: str, **more: Any) -> list[Document]:
        found = await claim(self, key, **more)
        taken.append(len(found))
        return found

    monkeypatch.setattr(DeliveryStore, "claim", counted)
    silent.on_request = lambda number: taken_before.update({number: sum(taken)})
    async with serve() as api:
        sync = await api.forwarding("silent", await api.destination("silent", silent.url))
        sent = await line.send_new(EVENTS)
        await support.until(lambda: bool(made) and made[0].breaker.failures > threshold, "a probe had no answer")
        # Each failure before the one that opened it freed a slot.
        assert SLOTS < silent.requests <= SLOTS + threshold + 1
        first, last = silent.requests + 1, silent.requests + PROBES
        await support.until(lambda: silent.requests >= last, "it is probed again")
        assert silent.most <= SLOTS
        assert silent.besides[first - 1 : last] == [0] * PROBES  # each was alone
        # For each probe one delivery is taken, however many wait.
        assert taken_before[last] - taken_before[first] == last - first
        silent.answers = True
        ledger = await support.settled(api, sync, within_s=60.0)
        assert (ledger.delivered, ledger.unaccounted) == (EVENTS, 0)
        assert silent.accepted == set(sent)
        assert silent.most <= SLOTS
