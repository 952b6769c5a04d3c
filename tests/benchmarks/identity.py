"""Identity alone: segments on the stream, resolved by one process, beside bare transactions of the documents."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bson.binary import Binary

from headrace.api.common.v1.event_pb2 import Event, EventBatch, EventKind, Identifier
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.benchmarks.accept import CONTEXT, PROPERTIES
from tests.benchmarks.alone import DATABASE, Alone, services_alone
from tests.benchmarks.results import Result

EVENTS = 60_000
SEGMENT = 250
PROPERTIES_JSON = json.dumps(PROPERTIES).encode()
CONTEXT_JSON = json.dumps(CONTEXT).encode()


async def run() -> list[Result]:
    """All figures of this file."""
    with tempfile.TemporaryDirectory() as folder, services_alone(Path(folder), ["identity"]) as alone:
        client = mongo_client.connect(alone.stores.mongo_url)
        memory = alone.resident_mib("identity")
        try:
            bare = await _bare(client)
            rates = {
                "new people": await _resolved_per_second(alone, client, _new_people()),
                "known people": await _resolved_per_second(alone, client, _known_people()),
                "identify calls": await _resolved_per_second(alone, client, _identifying()),
            }
            lookups = await _lookups(client)
        finally:
            await mongo_client.close(client)
    lines = [
        Result(name=f"identity, {what}", value=rate, unit="events/s", baseline="bare event documents in transactions",
               baseline_value=bare, target=0.5, note="" if rate >= 10_000 else "below 10,000/s")
        for what, rate in rates.items()
    ]  # fmt: skip
    lines.append(Result(name="lookups by identifier, $in of 500", value=lookups, unit="identifiers/s"))
    lines.append(Result(name="memory of identity at start", value=memory, unit="MiB", target=250, lower_is_better=True))
    return lines


def _event(number: int, identifiers: Iterable[tuple[str, str]], traits: bytes = b"") -> Event:
    now = now_us()
    return Event(
        message_id=f"m{number:012d}",
        workspace_id="bench",
        source_id="bench",
        kind=EventKind.EVENT_KIND_IDENTIFY if traits else EventKind.EVENT_KIND_TRACK,
        name="" if traits else "Product viewed",
        identifiers=[Identifier(namespace=n, value=v) for n, v in identifiers],
        properties=b"" if traits else PROPERTIES_JSON,
        context=CONTEXT_JSON,
        traits=traits,
        received_at_us=now,
        timestamp_us=now,
    )


_numbers = itertools.count()


def _new_people() -> list[Event]:
    """Every event is somebody's first."""
    return [_event(n, [("anonymous_id", f"browser-{n}")]) for n in itertools.islice(_numbers, EVENTS)]


def _known_people() -> list[Event]:
    """Events of the first 20,000 of them."""
    rng = random.Random(1)
    return [
        _event(n, [("anonymous_id", f"browser-{rng.randrange(20_000)}")]) for n in itertools.islice(_numbers, EVENTS)
    ]


def _identifying() -> list[Event]:
    """Identify calls that give known browsers a user id and an address, some of which join two browsers."""
    found = []
    for n in itertools.islice(_numbers, EVENTS // 3):
        person = n % 30_000
        traits = json.dumps({"email": f"p{person // 2}@example.com", "plan": "gold"}).encode()
        identifiers = [
            ("anonymous_id", f"browser-{person}"),
            ("user_id", f"user-{person // 2}"),
            ("email", f"p{person // 2}@example.com"),
        ]
        found.append(_event(n, identifiers, traits))
    return found


async def _resolved_per_second(alone: Alone, client: Client, events: Sequence[Event]) -> float:
    db = client[DATABASE]
    redis = streams.connect(alone.stores.redis_url)
    batches = [
        EventBatch(segment_id=new_time_ordered_id(), workspace_id="bench", events=events[start : start + SEGMENT])
        for start in range(0, len(events), SEGMENT)
    ]
    places = [i % alone.settings.event_partitions for i in range(len(batches))]
    await log.append_segments(db, batches, places)
    before = await db[log.SEGMENTS_DONE].count_documents({})
    started = time.perf_counter()
    await streams.send(redis, [(names.events(q), b.SerializeToString()) for q, b in zip(places, batches, strict=True)])
    while await db[log.SEGMENTS_DONE].count_documents({}) < before + len(batches):
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - started
    await redis.aclose()
    return len(events) / seconds


async def _bare(client: Client) -> float:
    """Event documents a second: transactions of 1,000, two in flight, with the log's indexes."""
    db: Database = client["bench_bare"]
    await db[log.EVENTS].create_indexes(log.INDEXES[log.EVENTS])
    sample = _event(0, [("anonymous_id", "browser-0")]).SerializeToString()
    serial = itertools.count()

    async def writer() -> None:
        for _ in range(15):
            documents = [
                {"_id": f"bench\x1fm{n:012d}", "w": "bench", "p": f"p{n:024d}", "t": n, "n": "Product viewed", "s": n,
                 "r": n, "g": "g", "i": 0, "e": Binary(sample), "d": Binary(b"d" * 80)}
                for n in itertools.islice(serial, 1000)
            ]  # fmt: skip
            async with mongo_client.transaction(client) as session:
                await db[log.EVENTS].insert_many(documents, ordered=False, session=session)

    started = time.perf_counter()
    await asyncio.gather(writer(), writer())
    rate = 30_000 / (time.perf_counter() - started)
    await client.drop_database("bench_bare")
    return rate


async def _lookups(client: Client) -> float:
    from headrace_identity.store import IDENTIFIERS

    collection = client[DATABASE][IDENTIFIERS]
    known = [d["_id"] async for d in collection.find({}, {"_id": 1}).limit(50_000)]
    rng = random.Random(2)
    started = time.perf_counter()
    for _ in range(100):
        found = [d async for d in collection.find({"_id": {"$in": rng.sample(known, 500)}})]
        assert len(found) == 500
    return 50_000 / (time.perf_counter() - started)
