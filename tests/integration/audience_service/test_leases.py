"""Leases: fair shares, takeover after a crash, fencing tokens, independence of the replicas' clocks."""

from __future__ import annotations

import asyncio
import time

import pytest
from headrace_audience.partitions.leases import Leases
from headrace_audience.store import LEASES

from headrace.storage.mongo.client import Database


def replica(db: Database, owner: str, *, count: int = 8, ttl_s: float = 1.0) -> Leases:
    return Leases(db, group="partition", count=count, owner=owner, ttl_s=ttl_s)


async def test_one_replica_takes_everything_and_two_share(db: Database) -> None:
    one, two = replica(db, "one"), replica(db, "two")
    await one.tick()
    assert sorted(one.held) == list(range(8))

    await two.tick()
    assert not two.held, "nothing is taken from an owner that lives"
    await one.tick()
    assert len(one.surplus) == 4, "the first one is asked to give back what is above its share"
    for share in one.surplus:
        await one.release(share)
    await two.tick()

    assert len(one.held) == len(two.held) == 4
    assert not one.held.keys() & two.held.keys()
    await one.tick()
    assert not one.surplus


async def test_a_crashed_owner_is_replaced_with_a_higher_token(db: Database) -> None:
    one, two = replica(db, "one", ttl_s=0.4), replica(db, "two", ttl_s=0.4)
    await one.tick()
    tokens = dict(one.held)
    await two.tick()
    assert not two.held
    await asyncio.sleep(0.5)  # "one" shows no sign of life

    await two.tick()

    assert sorted(two.held) == list(range(8))
    assert all(two.held[share] > tokens[share] for share in tokens)
    assert not one.held, "the old owner knows by its own clock that its time is over"
    await one.tick()
    assert not one.held, "and gets nothing back that another one holds"


async def test_an_owner_that_cannot_reach_the_database_stops_before_another_may_start(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replica(db, "one", ttl_s=5.0)
    await one.tick()
    assert one.held and one.is_alive
    now = time.monotonic()
    monkeypatch.setattr("headrace_audience.partitions.leases.time.monotonic", lambda: now + 4.5)
    assert not one.held, "0.8 of the time to live, counted from the moment of asking"
    assert not one.is_alive


async def test_wrong_clocks_of_replicas_do_not_matter(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = replica(db, "one", ttl_s=30), replica(db, "two", ttl_s=30)
    await one.tick()
    monkeypatch.setattr("time.time_ns", lambda: 4_000_000_000_000_000_000)  # a replica that lives in 2096
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    await two.tick()
    assert not two.held


async def test_leaving_gives_everything_back_at_once(db: Database) -> None:
    one, two = replica(db, "one", ttl_s=60), replica(db, "two", ttl_s=60)
    running = asyncio.create_task(one.run())
    while not one.held:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await two.tick()
    assert sorted(two.held) == list(range(8))


async def test_many_replicas_at_once_never_hold_the_same_share(db: Database) -> None:
    replicas = [replica(db, f"r{i}", count=16, ttl_s=20) for i in range(4)]
    for _ in range(6):
        await asyncio.gather(*(r.tick() for r in replicas))
        for r in replicas:
            for share in list(r.surplus):
                await r.release(share)
        shares = [share for r in replicas for share in r.held]
        assert len(shares) == len(set(shares))
    assert sorted(len(r.held) for r in replicas) == [4, 4, 4, 4]


async def test_groups_are_apart(db: Database) -> None:
    partition, archive = replica(db, "one"), Leases(db, group="archive", count=1, owner="two")
    await partition.tick()
    await archive.tick()
    assert list(archive.held) == [0]
    assert await db[LEASES].count_documents({"n": {"$exists": True}}) == 9
