"""Rate limits on a real Redis: several limiters share one budget."""

from __future__ import annotations

import asyncio
import time

from headrace_sync.outlets.rates import Limit, RateLimiter, take

from headrace.domain.times import SECOND_US
from headrace.storage.streams import client as streams
from headrace.storage.streams.client import Redis


async def test_four_limiters_share_a_budget(redis: Redis) -> None:
    limit = Limit("test:budget", count=20, per_s=1.0)
    limiters = [RateLimiter(redis) for _ in range(4)]
    given = 0
    started = time.monotonic()

    async def send(limiter: RateLimiter) -> None:
        nonlocal given
        while given < 60:
            await limiter.acquire([limit])
            given += 1

    await asyncio.gather(*map(send, limiters))
    # The bucket holds 20 and fills with 20 a second: however slow the machine is, it cannot have been quicker.
    assert time.monotonic() - started >= (given - 20) / 20 - 0.05


async def test_without_redis_each_limiter_keeps_the_budget_for_itself() -> None:
    nobody = streams.connect("redis://127.0.0.1:1/0", timeout_s=1)
    limiter = RateLimiter(nobody)
    limit = Limit("test:local", count=5, per_s=0.5)
    started = time.monotonic()
    for _ in range(11):
        await limiter.acquire([limit])
    assert time.monotonic() - started >= 0.55
    await nobody.aclose()


def test_the_rule_gives_a_burst_and_then_the_rate() -> None:
    limit = Limit("k", count=3, per_s=3.0)
    full = 0
    for _ in range(3):
        full, wait = take(full, 10 * SECOND_US, limit)
        assert wait == 0
    full, wait = take(full, 10 * SECOND_US, limit)
    assert wait == SECOND_US
    assert take(full, 11 * SECOND_US, limit)[1] == 0
