"""The streams that sync reads: entries that cannot be read, and how old what waits is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from headrace_sync.planning.streams import Lag

from headrace.storage.streams import names
from headrace.storage.streams.client import GroupReader, Redis
from tests.support import sync as support
from tests.support.sync import Hooks, Line

BROKEN: dict[Any, Any] = {"b": b"\xff\xff not protobuf"}


@pytest.mark.timeout(60)
async def test_entries_that_cannot_be_read_hold_up_nobody(serve: Any, hooks: Hooks, line: Line, redis: Redis) -> None:
    streams = [*(names.resolved(p) for p in range(support.PARTITIONS)), names.CHANGES]
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        for stream in streams:
            await redis.xadd(stream, BROKEN)
        ids = await line.send_new(5)
        await support.settled(api, sync)
        while await redis.xlen(names.CHANGES) or any(
            [(await redis.xpending(stream, names.SYNC_GROUP))["pending"] for stream in streams]
        ):
            await asyncio.sleep(0.05)
    assert hooks.accepted == support.once(ids)


async def test_the_age_of_the_oldest_entry_that_waits(redis: Redis) -> None:
    lag = Lag(redis, support.PARTITIONS)
    stream = names.resolved(1)
    reader = GroupReader(redis, [stream], group=names.SYNC_GROUP, consumer="a", claim_idle_ms=60_000)

    async def age() -> float:
        await lag.look()
        ages = {labels["stream"]: age for age, labels in lag.readings()}
        assert ages["changes"] == 0
        return ages["resolved"]

    async def add(seconds_ago: int) -> None:
        await redis.xadd(stream, BROKEN, id=f"{int(time.time() * 1000) - seconds_ago * 1000}-0")

    assert await age() == 0, "there are no streams yet"
    await add(3600)
    taken = await reader.read(count=1, block_ms=10)
    assert 3600 <= await age() < 3700, "it was taken, and what follows from it is not durable"
    await reader.acknowledge(taken, delete=False)
    assert await age() == 0
    await add(600)
    assert 600 <= await age() < 700, "nobody has taken it, and what was taken before does not count"
    await reader.acknowledge(await reader.read(count=1, block_ms=10), delete=False)
    assert await age() == 0
