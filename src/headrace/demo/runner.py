"""Plays a story on a running platform: sends its traffic over the real HTTP API, waits for what should come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import aiohttp

from headrace.demo.report import Platform, Report, compare
from headrace.demo.sandbox import SandboxVendor
from headrace.demo.simulator import Message, Story
from headrace.domain.times import now_us

BATCH = 50
"""Messages in one request, as a client library would send them."""

_SENDERS = 4
_LIVE_VISITORS = 5
_POLL_S = 0.25
_PAUSE_S = 1.0
_REQUEST_S = 30.0


class DemoFailed(Exception):
    """The story could not be played to its end; the text is one sentence."""


class Progress(Protocol):
    """Shows how far the demo is."""

    def step(self, title: str, total: int) -> None:
        """A new step begins, of so many units."""

    def at(self, done: int) -> None:
        """So many units of the step are done."""


@dataclass(frozen=True)
class Address:
    """Where the traffic goes."""

    ingest_http: str
    write_key: str
    webhook_token: str


class Runner:
    """Plays a story."""

    def __init__(
        self, story: Story, address: Address, platform: Platform, sandbox: SandboxVendor, progress: Progress
    ) -> None:
        """Play this story there; the audiences and syncs of the demo exist.

        Args:
            story: Traffic and truth.
            address: Where to send.
            platform: Where to read.
            sandbox: The vendor that gets the lists and purchases.
            progress: Shows how far it is.
        """
        self._story = story
        self._address = address
        self._platform = platform
        self._sandbox = sandbox
        self._progress = progress
        self._sent: set[str] = set()
        self._webhooks_sent = 0

    async def play(self, *, patience_s: float) -> Report:
        """Send everything, and compare until all is right or patience ends.

        Args:
            patience_s: How many seconds each wait may take.

        Returns:
            The report, as it was at last.

        Raises:
            DemoFailed: The platform refused traffic, or a wait took longer than patience.
        """
        async with _http() as http:
            for wave in sorted({message.wave for message in self._story.messages}):
                messages = [message for message in self._story.messages if message.wave == wave]
                await self._send(http, messages, f"sending, part {wave}")
                await self._until_resolved(patience_s)
            await self._let_time_pass(http, patience_s)
        return await self._compare(patience_s)

    async def _send(self, http: aiohttp.ClientSession, messages: Sequence[Message], title: str) -> None:
        self._progress.step(title, len(messages))
        tracked = [message for message in messages if not message.webhook]
        batches = [tracked[start : start + BATCH] for start in range(0, len(tracked), BATCH)]
        work = [partial(self._post_batch, http, batch) for batch in batches]
        work += [partial(self._post_webhooks, http, [message]) for message in messages if message.webhook]
        done = 0
        waiting = iter(work)

        async def sender() -> None:
            nonlocal done
            for job in waiting:
                sent = await job()
                done += sent
                self._progress.at(done)

        async with asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(sender())

    async def _post_batch(self, http: aiohttp.ClientSession, batch: Sequence[Message]) -> int:
        body = {"batch": [message.body for message in batch]}
        answer = await _post(http, f"{self._address.ingest_http}/v1/batch", body, user=self._address.write_key)
        if answer.get("results"):
            raise DemoFailed(f"ingest refused messages: {answer['results'][0].get('message', 'no reason given')}")
        self._sent |= {message.body["messageId"] for message in batch}
        return len(batch)

    async def _post_webhooks(self, http: aiohttp.ClientSession, messages: Sequence[Message]) -> int:
        for message in messages:
            await _post(http, f"{self._address.ingest_http}/webhooks/{self._address.webhook_token}", message.body)
            self._webhooks_sent += 1
        return len(messages)

    async def _until_resolved(self, patience_s: float) -> None:
        expected = len(self._sent) + self._webhooks_sent

        async def resolved() -> int:
            return int((await self._platform.ledger("purchases")).expected)

        self._progress.step("recognising people", expected)
        await self._until(resolved, lambda found: found >= expected, "events were not resolved in time", patience_s)

    async def _let_time_pass(self, http: aiohttp.ClientSession, patience_s: float) -> None:
        """A few visitors look around right now: they enter "just active", and leave it although nothing happens."""
        visitors = self._story.look_around(_LIVE_VISITORS, now_us())
        await self._send(http, visitors, "a few visitors, live")
        await self._until_resolved(patience_s)

        async def members() -> int:
            return len(await self._platform.members("just-active"))

        async def gone() -> int:
            return len(visitors) - await members()

        self._progress.step("visitors enter an audience", len(visitors))
        await self._until(members, lambda found: found >= len(visitors), "visitors did not enter", patience_s)
        self._progress.step("visitors leave it by time alone", len(visitors))
        await self._until(gone, lambda found: found >= len(visitors), "visitors did not leave", patience_s)

    async def _compare(self, patience_s: float) -> Report:
        deadline = time.monotonic() + patience_s
        self._progress.step("comparing with the truth", 0)
        while True:
            report = await compare(self._story, self._platform, self._sandbox, now_us())
            self._progress.step("comparing with the truth", len(report.checks))
            self._progress.at(sum(check.right for check in report.checks))
            if report.right or time.monotonic() > deadline:
                return report
            await asyncio.sleep(_PAUSE_S)

    async def _until(
        self, measure: Callable[[], Awaitable[int]], enough: Callable[[int], bool], complaint: str, patience_s: float
    ) -> None:
        deadline = time.monotonic() + patience_s
        while not enough(found := await measure()):
            self._progress.at(found)
            if time.monotonic() > deadline:
                raise DemoFailed(f"{complaint}: {found} after {patience_s:.0f} seconds")
            await asyncio.sleep(_POLL_S)
        self._progress.at(found)


@asynccontextmanager
async def _http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_S)) as session:
        yield session


async def _post(
    http: aiohttp.ClientSession, url: str, body: dict[str, Any], *, user: str | None = None
) -> dict[str, Any]:
    """POST until it is taken: a platform under load says when to come back."""
    auth = aiohttp.BasicAuth(user, "") if user is not None else None
    while True:
        async with http.post(url, json=body, auth=auth) as response:
            if response.status in (429, 503):
                await asyncio.sleep(float(response.headers.get("Retry-After", _PAUSE_S)))
                continue
            answer = await response.json(content_type=None)
            if response.status != 200:
                raise DemoFailed(f"ingest answered {response.status}: {answer.get('message', 'no reason given')}")
            return dict(answer)
