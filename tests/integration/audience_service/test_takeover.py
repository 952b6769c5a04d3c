"""Several replicas, and what happens when one of them, Redis or MongoDB is lost."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import AsyncExitStack
from typing import Any

import pytest
from headrace_audience.settings import Settings
from headrace_audience.store import LEASES, SNAPSHOTS
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US, now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, expected_members, serving_audience
from tests.support.audience_replicas import consistent, replica_process
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
TWICE: dict[str, Any] = {"where": {"event": "Purchased", "count": {"gte": 2}}}
NEVER: dict[str, Any] = {"where": {"not": {"event": "Purchased"}}}


@pytest.fixture
def settings(db: Database, make_settings: MakeSettings) -> Settings:
    return make_settings(Settings, **QUICK)


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


async def owners(db: Database) -> dict[str, int]:
    """Number of partitions of each owner whose lease has not run out."""
    found: dict[str, int] = {}
    query = {"g": "partition", "owner": {"$ne": None}, "$expr": {"$gt": ["$expires", "$$NOW"]}}
    async for lease in db[LEASES].find({**query, "n": {"$exists": True}}):
        found[lease["owner"]] = found.get(lease["owner"], 0) + 1
    return found


async def shared(db: Database, *counts: int) -> None:
    async def is_shared() -> bool:
        return sorted((await owners(db)).values()) == sorted(counts)

    await eventually(is_shared)


async def test_two_replicas_share_and_one_hands_over(settings: Settings, db: Database, identity: FakeIdentity) -> None:
    people = [f"p{i}" for i in range(20)]
    async with serving_audience(settings) as first:
        await first.start("buyers", COUNT)
        async with serving_audience(settings) as second:
            await shared(db, 2, 2)
            await identity.resolve(*(event(p, "Purchased") for p in people[:10]))
            await first.has_members("buyers", people[:10])
            await second.start("never", NEVER)
            await first.has_members("never", [])
        await shared(db, 4)  # at once: the leases were given back
        await identity.resolve(*(event(p, "Purchased") for p in people[10:]), event("x", "Viewed"))
        await first.has_members("buyers", people)
        await first.has_members("never", ["x"])
    await consistent(db)


@pytest.mark.long
async def test_a_replica_that_sleeps_and_then_dies_is_replaced_and_does_no_harm(
    make_settings: MakeSettings, settings_env: dict[str, str], db: Database, identity: FakeIdentity
) -> None:
    people = [f"p{i}" for i in range(40)]
    settings = make_settings(Settings, **(QUICK | {"audience_lease_seconds": 2.5}))
    async with serving_audience(settings) as client:
        await client.start("twice", TWICE)
        with replica_process(settings_env, 2.5) as process:
            await shared(db, 2, 2)
            await identity.resolve(*(event(p, "Purchased") for p in people))
            await identity.resolve(*(event(p, "Purchased") for p in people[:10]))
            await client.has_members("twice", people[:10])

            process.send_signal(signal.SIGSTOP)
            await identity.resolve(*(event(p, "Purchased") for p in people[10:20]))
            await client.has_members("twice", people[:20])
            await shared(db, 4)
            process.send_signal(signal.SIGCONT)  # wakes up in the middle of whatever it did, with leases of the past
            await identity.resolve(*(event(p, "Purchased") for p in people[20:30]))
            await client.has_members("twice", people[:30])
            await shared(db, 2, 2)

            process.send_signal(signal.SIGKILL)
            await identity.resolve(*(event(p, "Purchased") for p in people[30:]))
            await client.has_members("twice", people)
            await shared(db, 4)
    await consistent(db)


async def test_downtime_is_caught_up_in_the_right_order(
    settings: Settings, db: Database, identity: FakeIdentity
) -> None:
    """What came and went while nobody looked is told as if somebody had; what is due happens once."""
    recent = {"where": {"event": "Viewed", "within": "60s"}}
    here = partition_of("leaves", PARTITIONS)  # a stream that certainly has everything since the snapshot
    passing = next(f"passing{i}" for i in range(100) if partition_of(f"passing{i}", PARTITIONS) == here)
    async with serving_audience(settings) as client:
        await client.start("recent", recent)
        start = now_us() - 55 * SECOND_US
        await identity.resolve(*(event(p, "Viewed", at_us=start) for p in ("stays", "leaves")))
        await client.has_members("recent", ["leaves", "stays"])
    await identity.resolve(event(passing, "Viewed", at_us=start - 1))
    for second in range(1, 55, 9):
        await identity.resolve(event("stays", "Viewed", at_us=start + second * SECOND_US))
    while now_us() < start + 60 * SECOND_US + 100_000:
        await asyncio.sleep(0.05)
    async with serving_audience(settings) as client:
        await client.has_members("recent", ["stays"])
        changes = await client.changes()
        assert sorted((c.profile_id, c.member) for c in changes) == [
            ("leaves", False),
            ("leaves", True),
            (passing, False),
            (passing, True),
            ("stays", True),
        ]
        left = sorted((c for c in changes if not c.member), key=lambda c: c.effective_at_us)
        assert [(c.cause, c.effective_at_us) for c in left] == [
            ("time", start + 60 * SECOND_US - 1),
            ("time", start + 60 * SECOND_US),
        ]


async def test_a_start_from_snapshots_reads_only_what_came_since(
    settings: Settings, db: Database, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_audience(settings) as client:
        await client.start("twice", TWICE)
        await client.start("never", NEVER)
        await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(10)), event("x", "Viewed"))
        await client.has_members("never", ["x"])
    assert await db[SNAPSHOTS].count_documents({"snapshot": {"$exists": True}}) == PARTITIONS
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(5)))

    async def refuse(*args: Any) -> None:
        raise AssertionError("history must not be read again")

    with monkeypatch.context() as patch:
        patch.setattr("headrace_audience.filling.backfill.Backfill.bring", refuse)
        patch.setattr("headrace_audience.partitions.recovery.LogReplay.run", refuse)
        async with serving_audience(settings) as client:
            await client.has_members("twice", [f"p{i}" for i in range(5)])
            await client.has_members("never", ["x"])
    await consistent(db)


async def test_a_broken_snapshot_is_made_good_from_history(
    settings: Settings, db: Database, identity: FakeIdentity
) -> None:
    async with serving_audience(settings) as client:
        await client.start("twice", TWICE)
        await client.start("never", NEVER)
        await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(10)), event("x", "Viewed"))
        await client.has_members("never", ["x"])
    await db[SNAPSHOTS].update_many({"b": {"$exists": True}}, {"$set": {"w": "lost"}})
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(5)), event("y", "Viewed"))
    async with serving_audience(settings) as client:
        await client.has_members("twice", [f"p{i}" for i in range(5)])
        await client.has_members("never", ["x", "y"])
    await consistent(db)


@pytest.mark.parametrize("running", [True, False], ids=["while running", "while down"])
async def test_redis_is_emptied(
    settings: Settings, db: Database, identity: FakeIdentity, redis: streams.Redis, running: bool
) -> None:
    """Entries that were sent and lost are found in the log, merges among them."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(serving_audience(settings))
        await client.start("twice", TWICE)
        await client.start("never", NEVER)
        await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(10)))
        await identity.resolve(*(event(f"q{i}", "Purchased") for i in range(10)))
        await identity.resolve(event("x", "Viewed"))
        await client.has_members("never", ["x"])
        if not running:
            await stack.aclose()
        # In the log, and lost on their way.
        lost = [event(f"p{i}", "Purchased") for i in range(3)]
        lost += [event(f"p{i}", "Viewed", merges=[identity.merge(f"q{i}", f"p{i}")]) for i in range(5, 8)]
        await identity.store(lost)
        await redis.flushall()
        await identity.resolve(event("p4", "Purchased"), event("y", "Viewed"))
        if not running:
            client = await stack.enter_async_context(serving_audience(settings))
        await client.has_members("twice", ["p0", "p1", "p2", "p4", "p5", "p6", "p7"])
        await client.has_members("never", ["x", "y"])
        for audience_id in ("twice", "never"):
            assert list((await client.verify(audience_id)).mismatched_profile_ids) == []
    await consistent(db)


async def test_stores_are_killed_and_started_again(
    settings: Settings, db: Database, identity: FakeIdentity, stores: EmbeddedStores
) -> None:
    async with serving_audience(settings) as client:
        await client.start("twice", TWICE)
        await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(10)))
        try:
            stores.kill_redis()
            events = [event(f"p{i}", "Purchased") for i in range(4)]
            await identity.store(events)
            await asyncio.to_thread(stores.restart_redis)
            await resolved_at_last(identity, events)
            await client.has_members("twice", [f"p{i}" for i in range(4)])
        finally:
            await asyncio.to_thread(stores.start)
        try:
            stores.kill_mongod()
            await asyncio.to_thread(stores.restart_mongod)
            await resolved_at_last(identity, [event(f"p{i}", "Purchased") for i in range(4, 8)])
            await client.has_members("twice", [f"p{i}" for i in range(8)])
        finally:
            await asyncio.to_thread(stores.start)
        assert list((await client.verify("twice")).mismatched_profile_ids) == []
    await consistent(db)


async def resolved_at_last(identity: FakeIdentity, events: list[ResolvedEvent]) -> None:
    while True:
        try:
            return await identity.resolve(*events)
        except (PyMongoError, RedisError):
            await asyncio.sleep(0.1)


async def test_soak(settings: Settings, db: Database, redis: streams.Redis) -> None:
    """Random events and merges through real streams, replicas that come and go, Redis emptied now and then."""
    lots = random.Random(20)
    identity = FakeIdentity(db, redis, PARTITIONS)
    definitions: dict[str, dict[str, Any]] = {
        "twice": TWICE,
        "never": NEVER,
        "rich": {"where": {"event": "Purchased", "where": [{"property": "value", "gte": 50}], "count": {"gte": 2}}},
        "gold": {"where": {"all": [{"trait": "plan", "eq": "gold"}, {"not": {"audience": "rich"}}]}},
        "known": {"where": {"identifier": "email", "exists": True}},
        "lately": {"where": {"event": ["Purchased", "Viewed"], "within": "1h", "count": {"lte": 1}}},
    }
    alive: list[str] = []

    def happening() -> ResolvedEvent:
        at = now_us() - lots.choice([0, 0, 0, 1, 1800, 7200]) * SECOND_US
        if not alive or lots.random() < 0.2:
            alive.append(f"p{len(alive) + len(identity.into)}")
        profile = lots.choice(alive)
        merges = []
        if len(alive) > 5 and lots.random() < 0.15:
            loser = lots.choice([p for p in alive if p != profile])
            alive.remove(loser)
            merges.append(identity.merge(loser, profile))
        how = lots.random()
        if how < 0.2:
            return event(profile, at_us=at, traits={"plan": lots.choice(["gold", "free"])}, merges=merges)
        if how < 0.3:
            return event(profile, at_us=at, identifiers=[("email", f"{profile}@x.y")], merges=merges)
        name = lots.choice(["Purchased", "Viewed"])
        return event(profile, name, at_us=at, properties={"value": lots.randrange(100)}, merges=merges)

    async with AsyncExitStack() as all_of_them:
        replicas: list[tuple[AsyncExitStack, AudienceClient]] = []

        async def open_one() -> None:
            stack = await all_of_them.enter_async_context(AsyncExitStack())
            replicas.append((stack, await stack.enter_async_context(serving_audience(settings))))

        await open_one()
        await open_one()
        waiting = dict(definitions)
        for turn in range(60):
            events = [happening() for _ in range(lots.randrange(1, 12))]
            await identity.store(events)
            if lots.random() < 0.1:
                await redis.flushall()  # and what was just sent is lost with it
            await identity.send(events)
            if lots.random() < 0.2:
                await identity.send(lots.sample(identity.stored, min(5, len(identity.stored))))
            if waiting and turn % 6 == 0:
                audience_id = next(iter(waiting))
                client = replicas[0][1]
                await client.create(audience_id, waiting.pop(audience_id))
                await client.activate(audience_id)
            if turn % 15 == 14:
                stack, _ = replicas.pop(lots.randrange(2))
                await stack.aclose()
                await open_one()
            await asyncio.sleep(0.02)
        client = replicas[0][1]
        for audience_id, definition in definitions.items():
            await client.active(audience_id)
            if "audience" not in str(definition):
                expected = expected_members(identity.stored, identity.into, definition, now_us())
                await client.has_members(audience_id, expected)
            verified = await client.verify(audience_id)
            assert list(verified.mismatched_profile_ids) == []
    await consistent(db)
