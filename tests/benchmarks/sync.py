"""Forwarding to a webhook: events as they come, and events that waited at a paused destination, beside bare requests.

The sync service alone on real stores; what identity does is done by this process, and so is the receiver.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import aiohttp
from aiohttp import web

from headrace.api.sync.v1.sync_service_pb2 import DeleteSyncRequest
from headrace.storage.mongo import client as mongo_client
from headrace.storage.streams import client as streams
from tests.benchmarks.alone import DATABASE, Alone, services_alone
from tests.benchmarks.isolation import set_active
from tests.benchmarks.list_sync import served
from tests.benchmarks.results import Result
from tests.benchmarks.spent import Spent, in_words
from tests.support import sync as support

EVENTS = int(os.environ.get("BENCH_EVENTS", "3000"))
"""Of a round."""
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
"""Of each kind and size; the median counts."""
SENDERS = 16
COMING, WAITED = "as they come", "that waited"


class Receiver:
    """A webhook that counts events."""

    def __init__(self) -> None:
        self.events = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Take what comes."""
        body = await request.json()
        self.events += len(body) if isinstance(body, list) else 1
        return web.Response()


async def run() -> list[Result]:
    """All figures of this file."""
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{path}", receiver.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        bare = await _bare(receiver.url)
        async with served(1) as (address, _):
            return await _measured(receiver, address, bare)
    finally:
        await runner.cleanup()


async def _bare(url: str) -> float:
    """Requests a second of a bare client with as many senders as the connector may have."""
    body = json.dumps({"event": "Purchased", "properties": {"value": 1}, "padding": "x" * 900}).encode()
    async with aiohttp.ClientSession() as http:

        async def sender() -> None:
            for _ in range(EVENTS // SENDERS):
                async with http.post(f"{url}/bare", data=body) as answer:
                    assert answer.status == 200

        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(SENDERS)))
        return EVENTS // SENDERS * SENDERS / (time.perf_counter() - started)


async def _measured(receiver: Receiver, address: str, bare: float) -> list[Result]:
    environment = {
        "HEADRACE_IDENTITY_ADDRESS": address,
        "HEADRACE_AUDIENCE_ADDRESS": address,
        "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        "HEADRACE_PARTITIONS": str(support.PARTITIONS),
        "HEADRACE_PLUGINS": "webhook",
    }
    found: dict[tuple[int, str], list[tuple[float, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder, services_alone(Path(folder), ["sync"], environment) as alone:
        mongo = mongo_client.connect(alone.stores.mongo_url)
        redis = streams.connect(alone.stores.redis_url)
        line = support.Line(mongo[DATABASE], redis, support.PARTITIONS)
        async with support.api(alone.grpc["sync"], alone.settings.service_token.get_secret_value()) as client:
            for size in (1, 100):
                hook = await client.destination(f"hook-{size}", f"{receiver.url}/hook", batch_size=size)
                sync = await client.forwarding(f"hook-{size}", hook)
                await _coming(line, receiver, alone)  # warms up
                for _ in range(ROUNDS):
                    found.setdefault((size, COMING), []).append(await _coming(line, receiver, alone))
                    await set_active(client, hook, active=False)
                    await line.send_new(EVENTS, profile_id="")
                    while (await client.ledger(sync)).waiting < EVENTS:
                        await asyncio.sleep(0.2)
                    found.setdefault((size, WAITED), []).append(await _released(client, hook, receiver, alone))
                await client.syncs.DeleteSync(DeleteSyncRequest(name=sync))
        await redis.aclose()
        await mongo_client.close(mongo)
    return [
        Result(
            name=f"forwarding to a webhook, {size} a request, of events {kind}",
            value=median(rate for rate, _ in rounds),
            unit="events/s",
            baseline="bare aiohttp POST" if size == 1 else "",
            baseline_value=bare if size == 1 else 0.0,
            note=f"of processor an event: {in_words({n: median(us[n] for _, us in rounds) for n in rounds[0][1]})}; "
            f"load {os.getloadavg()[0]:.1f}",
        )
        for (size, kind), rounds in found.items()
    ]


async def _coming(line: support.Line, receiver: Receiver, alone: Alone) -> tuple[float, dict[str, float]]:
    """Events that the destination can take when they are planned."""
    wanted = receiver.events + EVENTS
    made = [line.make(100, profile_id="") for _ in range(EVENTS // 100)]
    for events in made:
        await line.store(events)
    spent, started = _spent(alone), time.perf_counter()
    for events in made:
        await line.send(events)
    return await _until(wanted, receiver, spent, started)


async def _released(client: support.Api, hook: str, receiver: Receiver, alone: Alone) -> tuple[float, dict[str, float]]:
    """Events that wait at the destination, from its release."""
    wanted = receiver.events + EVENTS
    spent, started = _spent(alone), time.perf_counter()
    await set_active(client, hook, active=True, wait=False)
    return await _until(wanted, receiver, spent, started)


async def _until(wanted: int, receiver: Receiver, spent: Spent, started: float) -> tuple[float, dict[str, float]]:
    while receiver.events < wanted:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - started
    await asyncio.sleep(0.3)  # what is written down after the last answer belongs to it
    return EVENTS / took, {name: seconds / EVENTS * 1e6 for name, seconds in spent.seconds().items()}


def _spent(alone: Alone) -> Spent:
    assert alone.stores.mongod is not None
    return Spent(alone.processes["sync"].pid, alone.stores.mongod.pid)
