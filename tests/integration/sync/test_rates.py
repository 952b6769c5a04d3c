"""Rate limits on a real Redis: several limiters share one budget."""

from __future__ import annotations

import asyncio
import time

from headrace_sync.outlets.rates import Limit, RateLimiter, take

from headrace.domain.times import SECOND_US
from headrace.storage.streams import client as streams
from headrace.storage.streams.client import Redis


async def redis_us(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds) * SECOND_US + int(micros)


async def test_four_limiters_share_a_budget(redis: Redis) -> None:
    """However they ask, the places follow each other at the limit's distance: none is lost, none is given twice."""
    limit = Limit("test:budget", count=1_000, per_s=10.0)
    limiters = [RateLimiter(redis) for _ in range(4)]
    before = await redis_us(redis)
    await asyncio.gather(*(limiter.acquire([limit]) for limiter in limiters for _ in range(30)))
    after = await redis_us(redis)
    assert not any(limiter._local for limiter in limiters)  # Redis answered all of them
    first = int(await redis.get(limit.key) or 0) - 120 * limit.step_us
    assert before - limit.kept_us <= first <= after - limit.kept_us
    assert after >= first + 119 * limit.step_us  # all of them were waited for


async def test_redis_keeps_the_rule(redis: Redis) -> None:
    """The script in Redis does what `take` says: with places far ahead, free ones, and none yet."""
    limit = Limit("test:rule", count=100, per_s=1.0)
    limiter = RateLimiter(redis)
    for ahead_us in (5 * SECOND_US, -5 * SECOND_US):
        now = await redis_us(redis)
        await redis.set(limit.key, now + ahead_us)
        wait_us = await limiter._take(limit)
        elapsed = await redis_us(redis) - now
        next_us, expected_us = take(now + ahead_us, now, limit)
        assert 0 <= int(await redis.get(limit.key) or 0) - next_us <= (0 if ahead_us > 0 else elapsed)
        assert expected_us - elapsed <= wait_us <= expected_us
    await redis.delete(limit.key)
    assert [await limiter._take(limit) for _ in range(2)] == [0, 0]


async def test_without_redis_each_limiter_keeps_the_budget_for_itself() -> None:
    nobody = streams.connect("redis://127.0.0.1:1/0", timeout_s=1)
    limiter = RateLimiter(nobody)
    limit = Limit("test:local", count=5, per_s=0.5)
    started = time.monotonic()
    for _ in range(7):
        await limiter.acquire([limit])
    assert time.monotonic() - started >= 0.6
    await nobody.aclose()
