"""What a destination that answers no request costs the others: the same events with it and without it, in turn.

The sync service alone, on real stores, forwarding to four webhooks. In every second round the fourth one is active and
never answers; in the others it is paused, so that events are planned for it all the same.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import destination_service_pb2 as pb
from headrace.storage.mongo import client as mongo_client
from headrace.storage.streams import client as streams
from tests.benchmarks.alone import DATABASE, services_alone
from tests.benchmarks.list_sync import served
from tests.benchmarks.results import Result
from tests.support import sync as support

GOOD = 3
EVENTS = int(os.environ.get("BENCH_EVENTS", "2000"))
"""Of a round, at each destination."""
ROUNDS = 14
"""Of each kind."""
COST = 0.95
"""What the others must reach of what they reach without it."""


class Receivers:
    """Webhooks that count events, and one that never answers."""

    def __init__(self) -> None:
        self.events = 0
        self.hanging = 0
        self.url = ""
        self.end = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """Take events, or none."""
        if request.path == "/silent":
            self.hanging += 1
            await self.end.wait()
            return web.Response()
        body = await request.json()
        self.events += len(body) if isinstance(body, list) else 1
        return web.Response()


async def run() -> list[Result]:
    """All figures of this file."""
    receivers = Receivers()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{path}", receivers.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receivers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with served(1) as (address, _):
            return await _measured(receivers, address)
    finally:
        receivers.end.set()
        await runner.cleanup()


async def _measured(receivers: Receivers, address: str) -> list[Result]:
    environment = {
        "HEADRACE_IDENTITY_ADDRESS": address,
        "HEADRACE_AUDIENCE_ADDRESS": address,
        "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        "HEADRACE_PARTITIONS": str(support.PARTITIONS),
        "HEADRACE_PLUGINS": "webhook",
    }
    with tempfile.TemporaryDirectory() as folder, services_alone(Path(folder), ["sync"], environment) as alone:
        mongo = mongo_client.connect(alone.stores.mongo_url)
        redis = streams.connect(alone.stores.redis_url)
        line = support.Line(mongo[DATABASE], redis, support.PARTITIONS)
        token = alone.settings.service_token.get_secret_value()
        async with support.api(alone.grpc["sync"], token) as client:
            for place in range(GOOD):
                name = await client.destination(f"good-{place}", f"{receivers.url}/good-{place}", batch_size=100)
                await client.forwarding(f"good-{place}", name)
            silent = await client.destination("silent", f"{receivers.url}/silent", batch_size=100)
            await client.forwarding("silent", silent)
            await _round(line, receivers)  # warms up
            rates: dict[bool, list[float]] = {False: [], True: []}
            for number in range(ROUNDS):
                for active in (False, True) if number % 2 else (True, False):
                    await _set_active(client, silent, active)
                    rates[active].append(await _round(line, receivers))
        await redis.aclose()
        await mongo_client.close(mongo)
    assert receivers.hanging, "the silent one was never asked"
    return [
        Result(
            name=f"forwarding to {GOOD} destinations beside one that answers nothing",
            value=median(rates[True]),
            unit="events/s",
            baseline="without it",
            baseline_value=median(rates[False]),
            target=COST,
            note=f"{receivers.hanging} requests were not answered; "
            f"with it {_span(rates[True])}, without {_span(rates[False])}; load {os.getloadavg()[0]:.1f}",
        )
    ]


async def _round(line: support.Line, receivers: Receivers) -> float:
    """Events a second, from the first that identity resolves to the last that all good ones have."""
    wanted = receivers.events + GOOD * EVENTS
    made = [line.make(100, profile_id="") for _ in range(EVENTS // 100)]
    started = time.perf_counter()
    for events in made:
        await line.resolve(*events)
    while receivers.events < wanted:
        await asyncio.sleep(0.01)
    return GOOD * EVENTS / (time.perf_counter() - started)


async def _set_active(client: support.Api, name: str, active: bool) -> None:
    state = pb.DestinationState.DESTINATION_STATE_ACTIVE if active else pb.DestinationState.DESTINATION_STATE_PAUSED
    await client.destinations.UpdateDestination(
        pb.UpdateDestinationRequest(
            destination=pb.Destination(name=name, state=state), update_mask=FieldMask(paths=["state"])
        )
    )
    await asyncio.sleep(1.0)  # it is noticed within half a second


def _span(rates: list[float]) -> str:
    return f"{min(rates):,.0f} to {max(rates):,.0f}"
