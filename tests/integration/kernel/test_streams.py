"""Redis Streams on a real redis-server."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.storage.streams import client as streams


async def test_each_entry_goes_to_one_consumer_and_again_until_acknowledged(redis: Any) -> None:
    await streams.send(redis, [("s:0", b"a"), ("s:1", b"b"), ("s:0", b"c")])
    readers = [
        streams.GroupReader(redis, ["s:0", "s:1"], group="g", consumer=name, claim_idle_ms=1) for name in ("x", "y")
    ]
    first = await readers[0].read(count=1, block_ms=10)
    second = await readers[1].read(count=10, block_ms=10)
    assert sorted(e.payload for e in first + second) == [b"a", b"b", b"c"]
    await readers[1].acknowledge(second, delete=True)
    await asyncio.sleep(0.01)
    assert sorted(e.payload for e in await readers[1].claim(count=10)) == sorted(e.payload for e in first)


async def test_calls_beyond_the_connections_wait_for_one(redis: Any) -> None:
    calls = 2 * redis.connection_pool.max_connections
    assert sorted(await asyncio.gather(*(redis.incr("n") for _ in range(calls)))) == list(range(1, calls + 1))


async def test_a_reader_survives_that_redis_forgets_everything(redis: Any) -> None:
    reader = streams.GroupReader(redis, ["s"], group="g", consumer="x")
    await streams.send(redis, [("s", b"a")])
    assert len(await reader.read(count=10, block_ms=10)) == 1
    await redis.flushall()
    await streams.send(redis, [("s", b"b")])
    found = await reader.read(count=10, block_ms=10) or await reader.read(count=10, block_ms=10)
    assert [e.payload for e in found] == [b"b"]


async def test_reading_by_position_and_the_edges_of_a_stream(redis: Any) -> None:
    assert await streams.edges(redis, ["s"]) == {"s": ("", "0-0")}
    await streams.send(redis, [("s", str(i).encode()) for i in range(5)])
    entries = await streams.read_from(redis, {"s": "0"}, count=2, block_ms=10)
    assert [e.payload for e in entries] == [b"0", b"1"]
    rest = await streams.read_from(redis, {"s": entries[-1].id}, count=10, block_ms=10)
    assert [e.payload for e in rest] == [b"2", b"3", b"4"]
    first, last = (await streams.edges(redis, ["s"]))["s"]
    assert (first, last) == (entries[0].id, rest[-1].id)
    assert streams.id_order("9-1") < streams.id_order("10-0")
