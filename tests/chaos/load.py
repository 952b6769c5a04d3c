"""Shop traffic for chaos runs: every batch is sent again, unchanged, until it is acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from headrace.domain.times import DAY_US, format_time_us, now_us

SENDERS = 4
LARGEST_BATCH = 40
NAMES = ("Product viewed", "Added to cart", "Purchased")


@dataclass
class Load:
    """Senders that go on through anything.

    Attributes:
        url: Address of ingest's HTTP port.
        write_key: Key of the source.
        rng: Decides on everything.
        people: Number of persons; each has a user id, an email address and two devices.
        acknowledged: Message ids in batches that were answered with 200.
        names: Event name of each message ever made, by message id.
        answers: How often each answer came: a status, or the kind of a connection error.
    """

    url: str
    write_key: str
    rng: random.Random
    people: int = 150
    acknowledged: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    _made: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set and everything that was made is acknowledged."""
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(headers={"X-Write-Key": self.write_key}, timeout=timeout) as http:
            await asyncio.gather(*(self._send(http, stop) for _ in range(SENDERS)))

    async def _send(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            batch = [self._message() for _ in range(self.rng.randint(1, LARGEST_BATCH))]
            while not await self._accepted(http, batch):
                await asyncio.sleep(0.2)
            self.acknowledged.update(m["messageId"] for m in batch)
            await asyncio.sleep(0.01)

    async def _accepted(self, http: aiohttp.ClientSession, batch: list[dict[str, Any]]) -> bool:
        try:
            async with http.post(f"{self.url}/v1/batch", json={"batch": batch}) as answer:
                self.answers[str(answer.status)] += 1
                if answer.status == 200:
                    body = await answer.json()
                    assert not body.get("results"), f"good messages were refused: {body['results'][:2]}"
                    return True
                assert answer.status in {429, 500, 502, 503}, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
        return False

    def _message(self) -> dict[str, Any]:
        rng = self.rng
        if self._made and rng.random() < 0.05:
            return rng.choice(self._made)
        number = rng.randrange(self.people)
        # Now and then somebody uses the device of somebody else.
        owner = number if rng.random() < 0.97 else rng.randrange(self.people)
        message: dict[str, Any] = {
            "messageId": f"chaos-{len(self._made)}-{rng.getrandbits(32):08x}",
            "anonymousId": f"device-{owner}-{rng.randrange(2)}",
            "timestamp": format_time_us(now_us() - rng.randrange(40 * DAY_US)),
        }
        if rng.random() < 0.3:
            traits = {"email": f"person{number}@example.com", "plan": rng.choice(["gold", "basic"])}
            message |= {"type": "identify", "userId": f"user-{number}", "traits": traits}
        else:
            message |= {"type": "track", "event": rng.choice(NAMES), "properties": {"value": rng.randrange(100)}}
            if rng.random() < 0.3:
                message["userId"] = f"user-{number}"
        self.names[message["messageId"]] = message.get("event", "")
        self._made.append(message)
        return message
