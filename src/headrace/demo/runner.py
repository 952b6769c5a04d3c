"""Plays the demo: starts the platform, configures it, sends the shop's traffic, compares what came of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from headrace.demo.local import LocalPlatform
from headrace.demo.report import Check, Platform, compare
from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor
from headrace.demo.simulator import Message, Story, simulate
from headrace.domain.times import now_us
from headrace.rpc.channel import with_token

BATCH = 50
SETTLE_SECONDS = 120.0
JUST_ACTIVE_SECONDS = 10

Progress = Callable[[str, int, int], None]
"""Told (what is being done, done so far, of how many)."""


class DemoFailedError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass
class Demo:
    """One run of the demo on a folder."""

    folder: Path
    port_base: int
    people: int
    progress: Progress
    seed: int = 1
    sandbox: SandboxVendor = field(default_factory=SandboxVendor)

    async def start(self) -> LocalPlatform:
        """Start the sandbox and the platform and configure the demo's sources, audiences, destinations and syncs."""
        await self.sandbox.start()
        platform = LocalPlatform(self.folder, self.port_base, {"HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true"})
        self.progress("starting services and stores", 0, 1)
        await platform.start()
        self.progress("starting services and stores", 1, 1)
        await self._apply(platform)
        return platform

    async def play(self, ready: dict[str, Any]) -> tuple[Story, list[Check]]:
        """Send the traffic and compare; returns the story and the lines of the report."""
        channels = [
            with_token(ready["grpc"][s], ready["api_token"]) for s in ("identity", "audience", "sync", "ingest")
        ]
        try:
            platform = Platform(channels[0], channels[1], channels[2], ready["workspace"])
            story = simulate(people=self.people, now_us=now_us(), seed=self.seed)
            webhook = await _webhook_url(channels[3], ready)
            async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(ready["write_key"], "")) as http:
                sent: set[str] = set()
                crm = 0
                for wave in (1, 2):
                    messages = [m for m in story.messages if m.wave == wave]
                    await self._send(http, ready["ingest_http"], webhook, messages, f"sending, part {wave} of 2")
                    sent |= {m.body["messageId"] for m in messages if not m.webhook}
                    crm += sum(1 for m in messages if m.webhook)
                    await self._settle(platform, len(sent) + crm)
                live = story.look_around(5, now_us())
                await self._send(http, ready["ingest_http"], webhook, live, "viewing right now")
            await self._settle(platform, story.distinct_events)
            return story, await self._settled_report(story, platform)
        finally:
            await asyncio.gather(*(c.close() for c in channels))

    async def _apply(self, platform: LocalPlatform) -> None:
        configuration = self.folder / "demo.yaml"
        configuration.write_text(resources.files("headrace.demo").joinpath("demo.yaml").read_text())
        command = [sys.executable, "-m", "headrace.cli.main", "apply", "-f", str(configuration)]
        environment = {**os.environ, "SANDBOX_URL": self.sandbox.url, "SANDBOX_TOKEN": ACCESS_TOKEN}
        process = await asyncio.create_subprocess_exec(
            *command,
            "--ready-file",
            str(platform.ready_file),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise DemoFailedError(f"the demo's configuration was refused: {output.decode(errors='replace').strip()}")

    async def _send(
        self, http: aiohttp.ClientSession, ingest: str, webhook: str, messages: Sequence[Message], what: str
    ) -> None:
        tracked = [m.body for m in messages if not m.webhook]
        posted = [m.body for m in messages if m.webhook]
        done = 0
        for start in range(0, len(tracked), BATCH):
            batch = tracked[start : start + BATCH]
            await _post(http, f"{ingest}/v1/batch", {"batch": batch})
            done += len(batch)
            self.progress(what, done, len(messages))
        for body in posted:
            await _post(http, f"{ingest}{webhook}", body)
            done += 1
            self.progress(what, done, len(messages))

    async def _settle(self, platform: Platform, events: int) -> None:
        """Wait until every event sent so far is resolved and accounted for at the forwarding sync."""
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while True:
            ledger = await platform.ledger("purchases")
            self.progress("resolving", min(ledger.expected, events), events)
            if ledger.expected >= events and ledger.unaccounted == 0 and ledger.waiting == 0:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailedError(
                    f"after {SETTLE_SECONDS:.0f} s only {ledger.expected} of {events} events are resolved, "
                    f"{ledger.unaccounted} not accounted for, {ledger.waiting} waiting: see the logs in the data folder"
                )
            await asyncio.sleep(0.5)

    async def _settled_report(self, story: Story, platform: Platform) -> list[Check]:
        """The report, as soon as it is right or when waiting longer would not help."""
        deadline = asyncio.get_running_loop().time() + 3 * JUST_ACTIVE_SECONDS
        await asyncio.sleep(JUST_ACTIVE_SECONDS)
        while True:
            checks = await compare(story, platform, self.sandbox, now_us())
            wrong = sum(1 for c in checks if not c.right)
            self.progress("comparing with the truth", len(checks) - wrong, len(checks))
            if wrong == 0 or asyncio.get_running_loop().time() > deadline:
                return checks
            await asyncio.sleep(1)


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    for _ in range(30):
        async with http.post(url, json=body) as answer:
            if answer.status == 200:
                result = await answer.json()
                if result.get("results"):
                    raise DemoFailedError(f"messages of the demo were refused: {result['results'][:3]}")
                return
            if answer.status not in {429, 503}:
                raise DemoFailedError(f"the platform answered {answer.status}: {await answer.text()}")
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
    raise DemoFailedError("the platform stayed busy for half a minute: see the logs in the data folder")


async def _webhook_url(ingest: grpc.aio.Channel, ready: dict[str, Any]) -> str:
    from headrace.api.ingest.v1.source_service_pb2 import GetSourceRequest
    from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceStub

    name = f"workspaces/{ready['workspace']}/sources/crm"
    answer = await SourceServiceStub(ingest).GetSource(GetSourceRequest(name=name))
    return f"/webhooks/{answer.source.webhook_token}"
