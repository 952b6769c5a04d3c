"""The whole line: `headrace up`, load over HTTP, a webhook at the end; all processes and the load share the machine."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.identity.v1 import profile_service_pb2 as profile_api
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.demo.report import Platform
from headrace.rpc.channel import with_token
from tests.benchmarks.accept import CONTEXT, PROPERTIES
from tests.benchmarks.bare import mongo_inserts_per_second
from tests.benchmarks.results import Result
from tests.support.up import Up, platform_up

SECONDS = float(os.environ.get("BENCH_LINE_SECONDS", "30"))
BATCH = 100
PEOPLE = 2_000
VIEWS = 5
"""Views of each person before anything is measured: the audiences below ask for at most so many."""
AUDIENCES = 20
SENDERS = 8
AUDIENCE_BACKLOG = (
    "headrace_audience_oldest_unprocessed_seconds",
    "headrace_audience_pending_flips",
    "headrace_audience_missing_histories",
)


@dataclass
class Receiver:
    """A webhook that notes when each event came."""

    arrived: dict[str, float] = field(default_factory=dict)
    port: int = 0

    async def start(self) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        self.arrived.setdefault(request.headers.get("Idempotency-Key", ""), time.time())
        return web.json_response({})


async def run() -> list[Result]:
    """All figures of this file."""
    receiver = Receiver()
    runner = await receiver.start()
    environment = {"HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            with platform_up(Path(folder), environment) as up:
                started_s = time.monotonic() - began
                return await _measure(up, receiver, started_s)
    finally:
        await runner.cleanup()


async def _measure(up: Up, receiver: Receiver, started_s: float) -> list[Result]:
    configuration = up.folder / "bench.yaml"
    configuration.write_text("\n---\n".join(map(json.dumps, _configuration(receiver.port))))
    applied = await asyncio.to_thread(up.headrace, "apply", "-f", str(configuration))
    assert applied.returncode == 0, applied.stderr
    ready = up.ready
    channels = {s: with_token(ready["grpc"][s], ready["api_token"]) for s in ("identity", "audience", "sync")}
    try:
        platform = Platform(channels["identity"], channels["audience"], channels["sync"], ready["workspace"])
        sender = Sender(ready["ingest_http"], ready["write_key"])
        metrics_url = f"http://127.0.0.1:{int(ready['ingest_http'].rsplit(':', 1)[1]) + 23}/metrics"
        await sender.introduce()
        await _settle(platform, sender, metrics_url)
        introduced = set(sender.sent_at)
        mongo_url = f"mongodb://127.0.0.1:{int(ready['ingest_http'].rsplit(':', 1)[1]) + 31}/?directConnection=true"
        bare = await asyncio.to_thread(mongo_inserts_per_second, mongo_url, 600, seconds=3)
        before = _cpu_seconds(up)
        begun = time.perf_counter()
        await sender.send(SECONDS, per_second=None)
        await _settle(platform, sender, metrics_url)
        whole_s = time.perf_counter() - begun
        costs = {process: spent - before[process] for process, spent in _cpu_seconds(up).items()}
        first_half = set(sender.sent_at) - introduced
        rate = len(first_half) / whole_s
        await sender.send(SECONDS / 2, per_second=rate / 2)
        await _settle(platform, sender, metrics_url)
        recent = [m for m in sender.sent_at if m not in first_half and m not in introduced]
        ages = await _ages(sender, recent, receiver, channels, ready["workspace"])
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels.values()))
    lines = [
        Result(name="whole line, load and stores on the same 2 cores", value=rate, unit="events/s", target=10_000,
               note=f"{len(first_half):,} events, {AUDIENCES} audiences, {whole_s:.0f} s until all was delivered"),
        Result(name="whole line, beside the store alone", value=rate, unit="events/s",
               baseline="bare MongoDB insert", baseline_value=bare),
        Result(name="start of `headrace up`", value=started_s, unit="s", target=8, lower_is_better=True),
    ]  # fmt: skip
    lines += [
        Result(name=f"CPU per event: {process}", value=seconds / len(first_half) * 1e6, unit="µs")
        for process, seconds in costs.items()
    ]
    for stage, found in ages.items():
        ordered = sorted(found) or [float("nan")]
        lines.append(
            Result(name=f"age at half load, visible in {stage}: p99", value=ordered[int(len(ordered) * 0.99)] * 1000,
                   unit="ms", target=1000, lower_is_better=True,
                   note=f"p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, {len(found):,} samples, {rate / 2:,.0f}/s")
        )  # fmt: skip
    return lines


def _cpu_seconds(up: Up) -> dict[str, float]:
    """CPU time that each process has used so far, its children's included; and this one's, which makes the load."""
    ticks = os.sysconf("SC_CLK_TCK")
    names = ("ingest", "identity", "audience", "sync", "console", "mongod", "redis-server")
    pids = {name: up.pid(name) for name in names} | {"load and webhook": os.getpid()}
    found: dict[str, float] = {}
    for name, pid in pids.items():
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in (pid, *children)]
        found[name] = sum(int(f[11]) + int(f[12]) for f in fields) / ticks
    return found


@dataclass
class Sender:
    """Sends batches and notes when each message was sent."""

    url: str
    write_key: str
    serial: str = "line"
    sent_at: dict[str, float] = field(default_factory=dict)
    purchases: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _rng: random.Random = field(default_factory=lambda: random.Random(1))

    async def introduce(self) -> None:
        """Let everybody view enough, so that what is measured afterwards are people who are known and settled."""
        async with aiohttp.ClientSession(headers={"X-Write-Key": self.write_key}) as http:
            for start in range(0, PEOPLE * VIEWS, BATCH):
                people = range(start, start + BATCH)
                await self._post(http, [self._viewed(person % PEOPLE) for person in people])

    async def send_number(self, batches: int) -> None:
        """Send so many batches of the usual mix, one after the other."""
        async with aiohttp.ClientSession(headers={"X-Write-Key": self.write_key}) as http:
            for _ in range(batches):
                await self._post(http, [self._message() for _ in range(BATCH)])

    async def send(self, seconds: float, *, per_second: float | None) -> None:
        """Send for some seconds, as fast as possible or at a pace."""
        end = time.perf_counter() + seconds
        pause = SENDERS * BATCH / per_second if per_second else 0.0

        async def one(http: aiohttp.ClientSession) -> None:
            due = time.perf_counter() + self._rng.random() * pause
            while time.perf_counter() < end:
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                due += pause
                await self._post(http, [self._message() for _ in range(BATCH)])

        async with aiohttp.ClientSession(headers={"X-Write-Key": self.write_key}) as http:
            await asyncio.gather(*(one(http) for _ in range(SENDERS)))

    async def _post(self, http: aiohttp.ClientSession, messages: list[dict[str, Any]]) -> None:
        body = json.dumps({"batch": messages}).encode()
        now = time.time()
        while True:
            async with http.post(f"{self.url}/v1/batch", data=body) as answer:
                if answer.status == 200:
                    break
                assert answer.status in {429, 503}, await answer.text()
            await asyncio.sleep(0.1)
        self.sent_at.update((m["messageId"], now) for m in messages)

    def _viewed(self, person: int) -> dict[str, Any]:
        message_id = f"{self.serial}-{next(self._numbers):09d}"
        message = {"messageId": message_id, "anonymousId": f"b-{person}", "context": CONTEXT}
        return message | {"type": "track", "event": "Product viewed", "properties": PROPERTIES}

    def _message(self) -> dict[str, Any]:
        person = self._rng.randrange(PEOPLE)
        message = self._viewed(person)
        draw = self._rng.random()
        if draw < 0.05:
            traits = {"email": f"p{person}@example.com", "plan": "gold" if person % 3 else "basic"}
            del message["event"], message["properties"]
            message |= {"type": "identify", "userId": f"u-{person}", "traits": traits}
        elif draw < 0.06:
            message["event"] = "Purchased"
            self.purchases.add(message["messageId"])
        return message


async def _settle(platform: Platform, sender: Sender, metrics_url: str) -> None:
    """Wait until every event is resolved, evaluated and accounted for at the destination."""
    async with aiohttp.ClientSession() as http:
        while True:
            ledger = await platform.ledger("purchases")
            delivered = ledger.expected == len(sender.sent_at) and not ledger.unaccounted and not ledger.waiting
            async with http.get(metrics_url) as answer:
                lines = (await answer.text()).splitlines()
            if delivered and all(_gauge(lines, name) == 0 for name in AUDIENCE_BACKLOG):
                return
            await asyncio.sleep(0.2)


def _gauge(lines: list[str], name: str) -> float:
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


async def _ages(
    sender: Sender, recent: Sequence[str], receiver: Receiver, channels: dict[str, Any], workspace: str
) -> dict[str, list[float]]:
    """Seconds from sending until an event was visible in each place."""
    chosen = set(random.Random(2).sample(list(recent), min(1000, len(recent))))
    profiles = ProfileServiceStub(channels["identity"])
    parent = f"workspaces/{workspace}"

    async def resolved(message_id: str) -> float:
        request = profile_api.GetEventJourneyRequest(parent=parent, message_id=message_id)
        answer = await profiles.GetEventJourney(request)
        return float(answer.event.resolved_at_us / 1e6 - sender.sent_at[message_id])

    profile_ages = [await resolved(m) for m in sorted(chosen)[:200]]
    audiences = AudienceServiceStub(channels["audience"])
    audience_ages: list[float] = []
    token = ""
    wanted = set(recent)
    while len(audience_ages) < 1000:
        changes = await audiences.ListMembershipChanges(
            audience_api.ListMembershipChangesRequest(parent=parent, page_size=1000, page_token=token)
        )
        audience_ages += [
            c.changed_at_us / 1e6 - sender.sent_at[c.message_id] for c in changes.changes if c.message_id in wanted
        ]
        token = changes.next_page_token
        if not token:
            break
    destination_ages = [receiver.arrived[m] - sender.sent_at[m] for m in recent if m in receiver.arrived]
    return {"profile": profile_ages, "audience": audience_ages, "destination": destination_ages}


def _configuration(port: int) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = []
    for number in range(AUDIENCES):
        viewed = {"event": "Product viewed", "within": f"{number + 1}d", "count": {"gte": 1 + number % VIEWS}}
        where: dict[str, Any] = viewed
        if number % 4 == 0:
            where = {"all": [viewed, {"not": {"event": "Purchased", "within": f"{number + 1}h"}}]}
        elif number % 4 == 1:
            where = {"any": [viewed, {"trait": "plan", "eq": "gold"}]}
        documents.append({"kind": "Audience", "id": f"audience-{number}", "display_name": f"Audience {number}",
                          "active": True, "definition": {"kind": "dynamic", "where": where}})  # fmt: skip
    url = f"http://127.0.0.1:{port}/hook"
    documents.append({"kind": "Destination", "id": "hook", "display_name": "Webhook", "connector": "webhook",
                      "settings": {"url": url}})  # fmt: skip
    documents.append({"kind": "Sync", "id": "purchases", "display_name": "Purchases", "type": "forwarding",
                      "destination": "hook", "event_names": ["Purchased"]})  # fmt: skip
    return documents
