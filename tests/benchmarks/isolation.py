"""What a destination that answers no request costs the others: the same events with it and without it, in turn.

The sync service alone, on real stores, forwarding to four webhooks. Rounds come in sets of four: the fourth webhook is
paused (events are planned for it all the same), new and silent, paused, and one whose breaker has opened and whose
probe hangs. Each round is compared with those before and after it, so that what else the machine does falls on both;
the interval of the ratios is made by drawing rounds anew (bootstrap).
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.sync.v1 import destination_service_pb2 as pb
from headrace.storage.mongo import client as mongo_client
from headrace.storage.streams import client as streams
from tests.benchmarks.alone import DATABASE, Alone, services_alone
from tests.benchmarks.list_sync import served
from tests.benchmarks.results import Result
from tests.benchmarks.spent import Spent, in_words
from tests.support import sync as support

GOOD = 3
EVENTS = int(os.environ.get("BENCH_EVENTS", "3000"))
"""Of a round, at each destination."""
SETS = int(os.environ.get("BENCH_SETS", "14"))
COST = 0.95
"""What the others must reach of what they reach without it."""
DRAWS = 10_000
OPENS = 5
"""Failures in a row that open a breaker."""
SILENT, PROBED = "one that answers nothing", "one whose breaker is open and whose probe hangs"


@dataclass(frozen=True)
class Round:
    """What the others got, and what of it cost.

    Attributes:
        rate: Events a second at the others together.
        us: Microseconds of processor per event at the others, by process.
    """

    rate: float
    us: dict[str, float]

    @property
    def cost(self) -> float:
        """Microseconds of processor per event at the others."""
        return sum(self.us.values())

    def mean(self, other: Round) -> Round:
        """Half of this and half of another."""
        return Round((self.rate + other.rate) / 2, {name: (us + other.us[name]) / 2 for name, us in self.us.items()})


class Receivers:
    """Webhooks that count events, and one that fails some times and then never answers."""

    def __init__(self) -> None:
        self.events = 0
        self.failing = 0
        self.hanging = 0
        self.url = ""
        self.end = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """Take events, or none."""
        if request.path == "/silent":
            if self.failing:
                self.failing -= 1
                return web.Response(status=503)
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
    pairs: dict[str, list[tuple[Round, Round]]] = {SILENT: [], PROBED: []}
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
            await set_active(client, silent, active=False)
            await _round(line, receivers, alone)  # warms up
            before = await _round(line, receivers, alone)
            for _ in range(SETS):
                for kind, own in pairs.items():
                    hanging, receivers.failing = receivers.hanging, OPENS if kind == PROBED else 0
                    await set_active(client, silent, active=True)
                    while receivers.hanging == hanging:
                        await asyncio.sleep(0.05)
                    beside = await _round(line, receivers, alone)
                    await set_active(client, silent, active=False)
                    after = await _round(line, receivers, alone)
                    own.append((before.mean(after), beside))
                    before = after
        await redis.aclose()
        await mongo_client.close(mongo)
    return [result for kind, own in pairs.items() for result in _results(kind, own, receivers.hanging)]


def _results(kind: str, pairs: list[tuple[Round, Round]], hanging: int) -> list[Result]:
    """What can be said of one kind of silence."""
    load = f"load {os.getloadavg()[0]:.1f}"
    shares = [without.cost / beside.cost for without, beside in pairs]
    low, high = interval(shares)
    parts = [
        f"{word} {in_words({name: median(one[at].us[name] for one in pairs) for name in pairs[0][0].us})}"
        for at, word in enumerate(("without", "with"))
    ]
    return [
        Result(
            name=f"events per second of processor at {GOOD} destinations beside {kind}",
            value=median(shares) * 1e6 / median(without.cost for without, _ in pairs),
            unit="events/s",
            baseline="without it",
            baseline_value=1e6 / median(without.cost for without, _ in pairs),
            target=COST,
            note=f"95 % interval of the share {low:.1%} to {high:.1%} ({len(pairs)} pairs); {'; '.join(parts)}; {load}",
        ),
        Result(
            name=f"the same by the clock beside {kind}",
            value=median(beside.rate for _, beside in pairs),
            unit="events/s",
            baseline="without it",
            baseline_value=median(without.rate for without, _ in pairs),
            note=f"shares {_span([beside.rate / without.rate for without, beside in pairs])}; "
            f"{hanging} requests in all were not answered; {load}",
        ),
    ]


def interval(figures: list[float]) -> tuple[float, float]:
    """Where the median of such figures lies in 95 of 100 cases, by drawing from them anew."""
    draw = random.Random(1)
    medians = sorted(median(draw.choices(figures, k=len(figures))) for _ in range(DRAWS))
    return medians[DRAWS * 25 // 1000], medians[DRAWS * 975 // 1000]


async def _round(line: support.Line, receivers: Receivers, alone: Alone) -> Round:
    """From the first event that identity sends on to the last that all good ones have."""
    wanted = receivers.events + GOOD * EVENTS
    made = [line.make(100, profile_id="") for _ in range(EVENTS // 100)]
    for events in made:
        await line.store(events)
    assert alone.stores.mongod is not None
    spent = Spent(alone.processes["sync"].pid, alone.stores.mongod.pid)
    started = time.perf_counter()
    for events in made:
        await line.send(events)
    while receivers.events < wanted:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - started
    await asyncio.sleep(0.3)  # what is written down after the last answer belongs to it
    us = {name: seconds / (GOOD * EVENTS) * 1e6 for name, seconds in spent.seconds().items()}
    return Round(GOOD * EVENTS / took, us)


async def set_active(client: support.Api, name: str, *, active: bool, wait: bool = True) -> None:
    """Pause a destination or release it, and wait until that is noticed."""
    state = pb.DestinationState.DESTINATION_STATE_ACTIVE if active else pb.DestinationState.DESTINATION_STATE_PAUSED
    await client.destinations.UpdateDestination(
        pb.UpdateDestinationRequest(
            destination=pb.Destination(name=name, state=state), update_mask=FieldMask(paths=["state"])
        )
    )
    if wait:
        await asyncio.sleep(1.0)  # it is noticed within half a second


def _span(shares: list[float]) -> str:
    return f"{min(shares):.0%} to {max(shares):.0%}"
