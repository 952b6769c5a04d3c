"""A worker ends between any two steps, or is killed: afterwards everything is there exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from headrace_identity.consumer import Lane, Sending
from headrace_identity.resolving.rules import DEFAULT_RULES
from headrace_identity.worker import Worker

from headrace.embedded.stores import EmbeddedStores
from headrace.service import background
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import GroupReader, Redis
from tests.support.identity import (
    WORKSPACE,
    all_messages,
    assert_equals_replay,
    assert_sent_on,
    dispatch,
    event,
    put_in_log,
    read_stored,
    segments,
    sent_on,
    unfinished,
)
from tests.support.identity_histories import history

PARTITIONS = 8
WORKER_STEPS = [
    "begun",
    "looked for repeated",
    "read rules",
    "loaded",
    "reserved",
    "resolved",
    "written",
    "inserted",
    "committed",
]
LANE_STEPS = ["resolved", "sent", "acknowledged", "done"]

EVENTS = [
    event("m1", ("anonymous_id", "dev1"), traits={"plan": "free"}),
    event("m2", ("anonymous_id", "dev2"), traits={"plan": "pro"}, day=1),
    event("m3", ("user_id", "u1"), ("anonymous_id", "dev1"), day=2),
    event("m4", ("user_id", "u1"), ("anonymous_id", "dev2"), day=3),
    event("m5", ("user_id", "null"), day=5),
]


class Killed(BaseException):
    """The end of a process: nothing in it may catch this."""


def lane(db: Database, redis: Redis, consumer: str, at_lane: str = "", at_worker: str = "") -> Lane:
    """A lane that ends at a step."""

    def ends_at(step: str):  # type: ignore[no-untyped-def]  # a step hook
        async def at_step(name: str) -> None:
            if name == step:
                raise Killed(step)

        return at_step

    streams = [names.events(q) for q in range(2)]
    return Lane(
        db,
        redis,
        GroupReader(redis, streams, group=names.IDENTITY_GROUP, consumer=consumer, claim_idle_ms=1),
        Worker(db, at_step=ends_at(at_worker)),
        Sending(partitions=PARTITIONS, stream_entries=1000),
        streams=2,
        batch_events=3,
        claim_every_s=0.01,
        at_step=ends_at(at_lane),
    )


async def finish(db: Database, redis: Redis) -> None:
    """Another worker takes over; ingest's sweeper sends again what is neither done nor on a stream."""
    async with background() as loops:
        loops.start("other", lane(db, redis, "other").run)
        while True:
            waiting = sum([await redis.xlen(names.events(q)) for q in range(2)])
            left = await unfinished(db)
            if not left and not waiting:
                break
            if not waiting:
                await dispatch(db, redis, left)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("at_lane", "at_worker"), [("", s) for s in WORKER_STEPS] + [(s, "") for s in LANE_STEPS], ids=str
)
async def test_a_worker_that_ends_at_any_step(db: Database, redis: Redis, at_lane: str, at_worker: str) -> None:
    await put_in_log(db, redis, segments(EVENTS, 2), 2)
    with pytest.raises(Killed):
        await lane(db, redis, "first", at_lane, at_worker).run()
    await finish(db, redis)
    stored = await read_stored(db)
    assert all_messages(stored.events) == sorted(e.message_id for e in EVENTS)
    assert_equals_replay(stored, DEFAULT_RULES)
    assert_sent_on(stored, await sent_on(redis, PARTITIONS), PARTITIONS)
    assert await redis.xlen(names.events(0)) == await redis.xlen(names.events(1)) == 0


async def test_an_entry_that_is_no_batch_is_parked(db: Database, redis: Redis) -> None:
    await redis.xadd(names.events(0), {"b": b"\xff\xff not protobuf"})
    await put_in_log(db, redis, segments(EVENTS, 5), 2)
    await finish(db, redis)
    assert len((await read_stored(db)).events) == len(EVENTS)
    assert await redis.xlen(names.events(0)) == 0
    assert await db["parked_events"].count_documents({"w": ""}) == 1


@pytest.mark.parametrize(("store", "step"), [("redis", "resolved"), ("redis", "sent"), ("mongod", "acknowledged")])
async def test_a_store_that_is_killed_delays_and_loses_nothing(
    stores: EmbeddedStores, db: Database, redis: Redis, store: str, step: str
) -> None:
    """Redis dies between the commit and sending on, or before acknowledging; MongoDB before marking done."""
    killed: list[asyncio.Task[None]] = []

    async def at_step(name: str) -> None:
        if name == step and not killed:
            await asyncio.to_thread(stores.kill_redis if store == "redis" else stores.kill_mongod)
            killed.append(asyncio.create_task(asyncio.to_thread(stores.start)))

    await put_in_log(db, redis, segments(EVENTS, 2), 2)
    first = lane(db, redis, "first")
    first._at_step = at_step
    async with background() as loops:
        loops.start("first", first.run)
        while not killed:
            await asyncio.sleep(0.01)
        await killed[0]
        await finish(db, redis)
    stored = await read_stored(db)
    assert all_messages(stored.events) == sorted(e.message_id for e in EVENTS)
    assert_equals_replay(stored, DEFAULT_RULES)


@contextmanager
def process(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The identity service in a process of its own."""
    code = (
        "from headrace.service import open_service_of, run, settings_class;"
        "raise SystemExit(run('identity', settings_class('identity')(), open_service_of('identity')))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


async def test_processes_that_race_and_are_killed(db: Database, redis: Redis, settings_env: dict[str, str]) -> None:
    environment = {
        **settings_env,
        "HEADRACE_EVENT_PARTITIONS": "2",
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_IDENTITY_BATCH_EVENTS": "7",
        "HEADRACE_IDENTITY_CLAIM_IDLE_SECONDS": "0.2",
    }
    chance = random.Random(7)
    events = history(7, WORKSPACE, aliases=True, size=150)
    batches = segments(events, 3)
    with process(environment) as first, process(environment) as second, process(environment):
        await put_in_log(db, redis, batches[: len(batches) // 2], 2)
        while len(await unfinished(db)) > len(batches) // 3:
            await asyncio.sleep(0.02)
        await put_in_log(db, redis, batches[len(batches) // 2 :], 2)
        for victim in (first, second):
            await asyncio.sleep(chance.random() / 8)
            victim.send_signal(signal.SIGKILL)
        quiet = 0
        while left := await unfinished(db):
            waiting = sum([await redis.xlen(names.events(q)) for q in range(2)])
            quiet = 0 if waiting else quiet + 1
            if quiet > 20:  # the sweeper's part
                await dispatch(db, redis, left)
                quiet = 0
            await asyncio.sleep(0.02)
    stored = await read_stored(db)
    assert all_messages(stored.events) == sorted({e.message_id for e in events})
    assert_equals_replay(stored, DEFAULT_RULES)
    assert_sent_on(stored, await sent_on(redis, PARTITIONS), PARTITIONS)
