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
from tests.benchmarks.results import Result
from tests.support.up import Up, platform_up

SECONDS = float(os.environ.get("HEADRACE_BENCH_LINE_SECONDS", "30"))
BATCH = 100
PEOPLE = 20_000
AUDIENCES = 20
SENDERS = 8


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
    configuration.write_text("---\n".join(map(json.dumps, _configuration(receiver.port))))
    applied = await asyncio.to_thread(up.headrace, "apply", "-f", str(configuration))
    assert applied.returncode == 0, applied.stderr
    ready = up.ready
    channels = {s: with_token(ready["grpc"][s], ready["api_token"]) for s in ("identity", "audience", "sync")}
    try:
        platform = Platform(channels["identity"], channels["audience"], channels["sync"], ready["workspace"])
        sender = Sender(ready["ingest_http"], ready["write_key"])
        begun = time.perf_counter()
        await sender.send(SECONDS, per_second=None)
        await _settle(platform, sender)
        whole_s = time.perf_counter() - begun
        rate = len(sender.sent_at) / whole_s
        first_half = set(sender.sent_at)
        await sender.send(SECONDS / 2, per_second=rate / 2)
        await _settle(platform, sender)
        recent = [m for m in sender.sent_at if m not in first_half]
        ages = await _ages(sender, recent, receiver, channels, ready["workspace"])
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels.values()))
    lines = [
        Result(name="whole line, load and stores on the same 2 cores", value=rate, unit="events/s", target=10_000,
               note=f"{len(first_half):,} events, {AUDIENCES} audiences, {whole_s:.0f} s until all was delivered"),
        Result(name="start of `headrace up`", value=started_s, unit="s", target=8, lower_is_better=True),
    ]  # fmt: skip
    for stage, found in ages.items():
        ordered = sorted(found) or [float("nan")]
        lines.append(
            Result(name=f"age at half load, visible in {stage}: p99", value=ordered[int(len(ordered) * 0.99)] * 1000,
                   unit="ms", target=1000, lower_is_better=True,
                   note=f"p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, {len(found):,} samples, {rate / 2:,.0f}/s")
        )  # fmt: skip
    return lines


@dataclass
class Sender:
    """Sends batches and notes when each message was sent."""

    url: str
    write_key: str
    sent_at: dict[str, float] = field(default_factory=dict)
    purchases: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _rng: random.Random = field(default_factory=lambda: random.Random(1))

    async def send(self, seconds: float, *, per_second: float | None) -> None:
        """Send for some seconds, as fast as possible or at a pace."""
        end = time.perf_counter() + seconds
        pause = SENDERS * BATCH / per_second if per_second else 0.0

        async def one(http: aiohttp.ClientSession) -> None:
            due = time.perf_counter() + self._rng.random() * pause
            while time.perf_counter() < end:
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                due += pause
                messages = [self._message() for _ in range(BATCH)]
                body = json.dumps({"batch": messages}).encode()
                now = time.time()
                while True:
                    async with http.post(f"{self.url}/v1/batch", data=body) as answer:
                        if answer.status == 200:
                            break
                        assert answer.status in {429, 503}, await answer.text()
                    await asyncio.sleep(0.1)
                self.sent_at.update((m["messageId"], now) for m in messages)

        async with aiohttp.ClientSession(headers={"X-Write-Key": self.write_key}) as http:
            await asyncio.gather(*(one(http) for _ in range(SENDERS)))

    def _message(self) -> dict[str, Any]:
        number, person = next(self._numbers), self._rng.randrange(PEOPLE)
        message_id = f"line-{number:09d}"
        message: dict[str, Any] = {"messageId": message_id, "anonymousId": f"b-{person}", "context": CONTEXT}
        draw = self._rng.random()
        if draw < 0.05:
            traits = {"email": f"p{person}@example.com", "plan": "gold" if person % 3 else "basic"}
            return message | {"type": "identify", "userId": f"u-{person}", "traits": traits}
        name = "Purchased" if draw < 0.06 else "Product viewed"
        if name == "Purchased":
            self.purchases.add(message_id)
        return message | {"type": "track", "event": name, "properties": PROPERTIES}


async def _settle(platform: Platform, sender: Sender) -> None:
    while True:
        ledger = await platform.ledger("purchases")
        if ledger.expected == len(sender.sent_at) and not ledger.unaccounted and not ledger.waiting:
            return
        await asyncio.sleep(0.2)


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
        viewed = {"event": "Product viewed", "within": f"{number + 1}d", "count": {"gte": 1 + number % 5}}
        where: dict[str, Any] = {"all": [viewed, {"not": {"event": "Purchased", "within": f"{number + 1}h"}}]}
        if number % 4 == 0:
            where = {"any": [where, {"trait": "plan", "eq": "gold"}]}
        documents.append({"kind": "Audience", "id": f"audience-{number}", "display_name": f"Audience {number}",
                          "active": True, "definition": {"kind": "dynamic", "where": where}})  # fmt: skip
    url = f"http://127.0.0.1:{port}/hook"
    documents.append({"kind": "Destination", "id": "hook", "display_name": "Webhook", "connector": "webhook",
                      "settings": {"url": url}})  # fmt: skip
    documents.append({"kind": "Sync", "id": "purchases", "display_name": "Purchases", "type": "forwarding",
                      "destination": "hook", "event_names": ["Purchased"]})  # fmt: skip
    return documents
