"""A rate limit that four processes share by one Redis, as a vendor counts it who answers everything at once.

The vendor counts when requests arrive, so on a busy machine the most in one span includes how late they were.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path

import aiohttp
from aiohttp import web
from headrace_sync.outlets.rates import Limit, RateLimiter

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.streams import client as streams
from tests.benchmarks.results import Result

REPLICAS = 4
SECONDS = 15.0
CASES = (
    (Limit("20 a second", 20, 1.0), 8),
    (Limit("100 a second", 100, 1.0), 8),
    (Limit("1,000 in 10 seconds", 1_000, 10.0), 8),
    (Limit("100 a second, asked by many", 100, 1.0), 150),
)
"""Limits, and how many senders each process has: the last has more than connections to Redis."""
HELD = 1.02
"""What may arrive of what the limit allows."""


async def run() -> list[Result]:
    """All figures of this file."""
    with tempfile.TemporaryDirectory() as folder:
        stores = EmbeddedStores(Path(folder))
        await asyncio.to_thread(stores.start)
        try:
            return [result for case in CASES for result in await _measure(*case, stores.redis_url)]
        finally:
            await asyncio.to_thread(stores.stop)


async def _measure(limit: Limit, senders: int, redis_url: str) -> list[Result]:
    arrived: list[float] = []

    async def count(request: web.Request) -> web.Response:
        arrived.append(time.monotonic())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", count)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    program = [sys.executable, "-m", "tests.benchmarks.limits", url, redis_url]
    own = [limit.key, str(limit.count), str(limit.per_s), str(senders)]
    try:
        replicas = [await asyncio.create_subprocess_exec(*program, *own, env=os.environ) for _ in range(REPLICAS)]
        codes = await asyncio.gather(*(replica.wait() for replica in replicas))
    finally:
        await runner.cleanup()
    assert codes == [0] * REPLICAS, codes
    # Between the first second, in which not all replicas are there, and the last.
    middle = [at for at in arrived if arrived[0] + 1.0 <= at <= arrived[0] + SECONDS - 1.0]
    rate = (len(middle) - 1) / (middle[-1] - middle[0])
    most = max(bisect_left(arrived, at + limit.per_s) - place for place, at in enumerate(arrived))
    return [
        Result(
            name=f"{REPLICAS} replicas, {limit.key}",
            value=rate,
            unit="requests/s",
            baseline="the limit",
            baseline_value=limit.count / limit.per_s,
            target=HELD,
            lower_is_better=True,
            note=f"most in {limit.per_s:g} s: {most} of {limit.count}; load {os.getloadavg()[0]:.1f}",
        )
    ]


async def replica(url: str, redis_url: str, limit: Limit, senders: int) -> None:
    """Send as much as the limit lets through."""
    redis = streams.connect(redis_url)
    limiter = RateLimiter(redis)
    until = time.monotonic() + SECONDS
    async with aiohttp.ClientSession() as http:

        async def sender() -> None:
            while time.monotonic() < until:
                await limiter.acquire([limit])
                async with http.post(url) as answer:
                    assert answer.status == 200

        await asyncio.gather(*(sender() for _ in range(senders)))
    await redis.aclose()


if __name__ == "__main__":
    _url, _redis_url, _key, _count, _per_s, _senders = sys.argv[1:]
    asyncio.run(replica(_url, _redis_url, Limit(_key, int(_count), float(_per_s)), int(_senders)))
