"""Writing flips: rows, history and fencing in one transaction, then the stream; the outbox sends what was not sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from headrace_audience.engine.engine import Flip
from headrace_audience.memberships import flips
from headrace_audience.memberships.flips import FencedError, FlipWriter
from headrace_audience.memberships.pending import Pending
from headrace_audience.store import CHANGES, MEMBERSHIPS
from pymongo.errors import AutoReconnect
from redis.exceptions import ConnectionError as RedisConnectionError

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.domain.ids import partition_of
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names

PARTITIONS = 4
ALL = dict.fromkeys(range(PARTITIONS), 1)


def flip(profile_id: str, member: bool = True, audience_id: str = "buyers", **fields: Any) -> Flip:
    return Flip(audience_id, profile_id, member, fields.pop("at", 1_000), fields.pop("cause", "event"), **fields)


@pytest.fixture
async def writer(mongo: Client, db: Database, redis: streams.Redis) -> FlipWriter:
    made = FlipWriter(mongo, db, redis, PARTITIONS)
    await made.claim(ALL)
    return made


async def sent(redis: streams.Redis) -> list[tuple[str, str, bool, int]]:
    entries = await streams.read_from(redis, {names.CHANGES: "0"}, count=1_000, block_ms=1)
    batches = [MembershipChangeBatch.FromString(e.payload) for e in entries]
    assert all(b.workspace_id for b in batches)
    return [(c.audience_id, c.profile_id, c.member, c.version) for b in batches for c in b.changes]


async def test_rows_history_and_stream(writer: FlipWriter, db: Database, redis: streams.Redis) -> None:
    await writer.write("acme", [flip("p1", message_id="m1", traceparent="tp"), flip("p2")], {})
    await writer.write("acme", [flip("p1", False, cause="time"), flip("p1", True, at=2_000)], {})

    assert await sent(redis) == [
        ("buyers", "p1", True, 1),
        ("buyers", "p2", True, 1),
        ("buyers", "p1", False, 2),
        ("buyers", "p1", True, 3),
    ]
    row = await db[MEMBERSHIPS].find_one({"w": "acme", "a": "buyers", "p": "p1"})
    assert row is not None and row["in"] and row["version"] == 3 and row["since"] == 2_000
    history = [d async for d in db[CHANGES].find({"p": "p1"}).sort("v", 1)]
    assert [(d["v"], d["in"], d["c"], d.get("m")) for d in history] == [
        (1, True, "event", "m1"),
        (2, False, "time", None),
        (3, True, "event", None),
    ]


async def test_what_is_stored(writer: FlipWriter, db: Database) -> None:
    """The whole of a row and of its history: other versions of the service read it."""
    partition = partition_of("p1", PARTITIONS)
    await writer.write("acme", [flip("p1", message_id="m1", traceparent="tp")], {})
    await writer.write("acme", [flip("p1", False, at=2_000, cause="merge", merged_into="p2")], {})
    key = "acme\x1fbuyers\x1fp1"
    same = {"w": "acme", "a": "buyers", "p": "p1", "q": partition}
    assert [d async for d in db[MEMBERSHIPS].find()] == [
        {"_id": key, **same, "in": False, "since": 2_000, "version": 2, "into": "p2"}
    ]
    history = [d async for d in db[CHANGES].find().sort("v", 1)]
    assert history[0]["f"] < history[1]["f"] == writer.flushed(partition)
    for change in history:
        assert change.pop("f") >= change.pop("t") > 0 == change.pop("n")
    assert history == [
        {"_id": f"{key}\x1f000000000001", **same, "in": True, "v": 1, "e": 1_000, "c": "event", "m": "m1", "tp": "tp"},
        {"_id": f"{key}\x1f000000000002", **same, "in": False, "v": 2, "e": 2_000, "c": "merge", "into": "p2"},
    ]


async def test_rows_that_change_alike_and_others_are_written_together(writer: FlipWriter, db: Database) -> None:
    """New ones and stored ones, of different versions, for different moments, there and back, of earlier versions."""
    old = {"token": 1, "changed": 5}
    await writer.write("acme", [flip(f"p{n}") for n in range(6)], {})
    await writer.write("acme", [flip("p5", False), flip("p4", False, merged_into="p0")], {})
    await db[MEMBERSHIPS].update_many({}, {"$set": old})
    found = [
        *(flip(f"p{n}", False, at=3_000) for n in range(3)),
        flip("p3", False, at=4_000),
        flip("p4", at=3_000),
        flip("p5", at=3_000),
        flip("p5", False, at=3_500),
        flip("p6", at=3_000),
        flip("p7", at=3_000),
        flip("p7", False, at=3_000),
        flip("p8", False, at=3_000),
    ]
    assert await writer.write("acme", found, {}) == 10
    rows = [d async for d in db[MEMBERSHIPS].find().sort("p", 1)]
    assert [(d["p"], d["in"], d["since"], d["version"], d["into"]) for d in rows] == [
        ("p0", False, 3_000, 2, ""),
        ("p1", False, 3_000, 2, ""),
        ("p2", False, 3_000, 2, ""),
        ("p3", False, 4_000, 2, ""),
        ("p4", True, 3_000, 3, ""),
        ("p5", False, 3_500, 4, ""),
        ("p6", True, 3_000, 1, ""),
        ("p7", False, 3_000, 2, ""),
    ]
    for row in rows:
        last = await db[CHANGES].find_one({"p": row["p"]}, sort=[("v", -1)])
        assert last is not None and (last["v"], last["in"], last["e"]) == (row["version"], row["in"], row["since"])
    everything = await db[CHANGES].count_documents({})
    assert await writer.write("acme", found[:4], {}) == 0
    assert await db[CHANGES].count_documents({}) == everything


async def test_a_row_that_is_behind_its_history_goes_on_from_there(writer: FlipWriter, db: Database) -> None:
    await writer.write("acme", [flip("p1"), flip("p2")], {})
    await writer.write("acme", [flip("p1", False)], {})
    await db[MEMBERSHIPS].update_one({"p": "p1"}, {"$set": {"version": 1, "in": True}})
    assert await writer.write("acme", [flip("p1", False), flip("p2", False)], {}) == 2
    rows = [d async for d in db[MEMBERSHIPS].find().sort("p", 1)]
    assert [(d["p"], d["in"], d["version"]) for d in rows] == [("p1", False, 3), ("p2", False, 2)]


async def test_what_the_row_says_already_is_no_change(writer: FlipWriter, db: Database, redis: streams.Redis) -> None:
    assert await writer.write("acme", [flip("p1"), flip("p2", False)], {}) == 1
    assert await writer.write("acme", [flip("p1")], {}) == 0
    assert await db[CHANGES].count_documents({}) == 1
    assert len(await sent(redis)) == 1


async def test_workspaces_are_apart(writer: FlipWriter, db: Database) -> None:
    await writer.write("acme", [flip("p1")], {})
    await writer.write("other", [flip("p1", False)], {})
    assert await db[MEMBERSHIPS].count_documents({"w": "acme", "in": True}) == 1
    assert await db[MEMBERSHIPS].count_documents({"w": "other"}) == 0


async def test_versions_go_on_from_the_base(writer: FlipWriter, redis: streams.Redis) -> None:
    await writer.write("acme", [flip("p1")], {"buyers": 7})
    assert await sent(redis) == [("buyers", "p1", True, 8)]


async def test_an_old_owner_writes_nothing(
    writer: FlipWriter, mongo: Client, db: Database, redis: streams.Redis
) -> None:
    newer = FlipWriter(mongo, db, redis, PARTITIONS)
    contested = partition_of("p1", PARTITIONS)
    await newer.claim({contested: 2})

    with pytest.raises(FencedError) as caught:
        await writer.write("acme", [flip("p1")], {})
    assert caught.value.partitions == {contested}
    with pytest.raises(FencedError):
        await writer.claim({contested: 1})
    assert await db[MEMBERSHIPS].count_documents({}) == 0
    assert await db[CHANGES].count_documents({}) == 0
    await newer.write("acme", [flip("p1")], {})
    assert await db[MEMBERSHIPS].count_documents({"in": True}) == 1


async def test_old_and_new_owner_at_the_same_time_never_both(mongo: Client, db: Database, redis: streams.Redis) -> None:
    old, new = FlipWriter(mongo, db, redis, 1), FlipWriter(mongo, db, redis, 1)
    await old.claim({0: 1})
    refused = False

    async def keep_writing() -> None:
        nonlocal refused
        for i in range(200):
            try:
                await old.write("acme", [flip("p1", i % 2 == 0)], {})
            except FencedError:
                refused = True
                return

    writing = asyncio.create_task(keep_writing())
    await asyncio.sleep(0.1)
    await new.claim({0: 2})
    after_claim = await db[CHANGES].count_documents({})
    await writing
    assert refused
    assert await db[CHANGES].count_documents({}) - after_claim <= 1, "at most a transaction that was being committed"
    versions = sorted([d["v"] async for d in db[CHANGES].find({})])
    assert versions == list(range(1, len(versions) + 1))


async def test_many_flips_are_written_side_by_side_and_sent_in_their_order(
    writer: FlipWriter, db: Database, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flips, "ROWS_PER_TRANSACTION", 10)
    people = [f"p{number}" for number in range(97)]
    found = [flip(p, number % 3 < 2) for number, p in enumerate([*people, *people, *people])]
    assert await writer.write("acme", found, {}) == len(await sent(redis))
    state: dict[str, int] = {}
    expected = []
    for one in found:
        if (state.get(one.profile_id, 0) % 2 == 1) != one.member:
            state[one.profile_id] = state.get(one.profile_id, 0) + 1
            expected.append(("buyers", one.profile_id, one.member, state[one.profile_id]))
    assert await sent(redis) == expected
    assert await db[CHANGES].count_documents({}) == len(expected)
    members = {p for p, version in state.items() if version % 2 == 1}
    assert {d["p"] async for d in db[MEMBERSHIPS].find({"in": True})} == members


async def test_of_many_flips_those_of_partitions_that_are_still_owned_are_written_and_sent(
    writer: FlipWriter, mongo: Client, db: Database, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flips, "ROWS_PER_TRANSACTION", 10)
    people = [f"p{number}" for number in range(40)]
    contested = partition_of("p1", PARTITIONS)
    newer = FlipWriter(mongo, db, redis, PARTITIONS)
    await newer.claim({contested: 2})
    with pytest.raises(FencedError) as caught:
        await writer.write("acme", [flip(p) for p in people], {})
    assert caught.value.partitions == {contested}
    own = {p for p in people if partition_of(p, PARTITIONS) != contested}
    written = {d["p"] async for d in db[MEMBERSHIPS].find({"in": True})}
    assert written == {p for _, p, _, _ in await sent(redis)}
    assert written <= own and written, "a transaction with the contested partition writes nothing"
    await newer.write("acme", [flip("p1")], {})
    assert await db[MEMBERSHIPS].count_documents({"p": "p1", "in": True}) == 1


async def test_flips_of_strangers_are_refused(mongo: Client, db: Database, redis: streams.Redis) -> None:
    writer = FlipWriter(mongo, db, redis, PARTITIONS)
    await writer.claim({(partition_of("p1", PARTITIONS) + 1) % PARTITIONS: 1})
    with pytest.raises(FencedError):
        await writer.write("acme", [flip("p1")], {})


async def test_the_outbox_sends_what_redis_did_not_take(
    writer: FlipWriter, mongo: Client, db: Database, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr("headrace_audience.memberships.flips.streams.send", broken)
        await writer.write("acme", [flip("p1")], {})
        with pytest.raises(RedisConnectionError):
            await writer.send_unsent()
    assert await db[MEMBERSHIPS].count_documents({"in": True}) == 1
    assert await sent(redis) == []

    # The owner ends here; whoever takes the partition finds what was flushed and not sent.
    successor = FlipWriter(mongo, db, redis, PARTITIONS)
    await successor.claim(dict.fromkeys(range(PARTITIONS), 2))
    await successor.send_unsent()
    assert await sent(redis) == [("buyers", "p1", True, 1)]

    third = FlipWriter(mongo, db, redis, PARTITIONS)
    await third.claim(dict.fromkeys(range(PARTITIONS), 3))
    await third.send_unsent()
    assert len(await sent(redis)) == 1, "how far everything is sent is stored"


async def test_much_that_was_not_sent_is_sent_in_parts_that_end_with_a_transaction(
    writer: FlipWriter, mongo: Client, db: Database, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (1, 3, 4, 2, 4, 1, 1):
        await writer.write(
            "acme", [flip(f"p{i}", await db[CHANGES].count_documents({"p": f"p{i}"}) % 2 == 0) for i in range(size)], {}
        )
    told = await sent(redis)
    await redis.delete(names.CHANGES)
    monkeypatch.setattr(flips, "UNSENT_AT_A_TIME", 5)
    successor = FlipWriter(mongo, db, redis, PARTITIONS)
    await successor.claim(dict.fromkeys(range(PARTITIONS), 2))
    successor.resend_from(range(PARTITIONS), 0)
    calls = 0
    while len(again := await sent(redis)) < len(told):
        calls += 1
        before = len(again)
        await successor.send_unsent()
        assert 0 < len(await sent(redis)) - before <= 9, "a call sends little"
    assert calls > 2
    assert sorted(again) == sorted(told), "everything once"
    for person in {c[1] for c in told}:
        assert [c for c in again if c[1] == person] == [c for c in told if c[1] == person]
    await successor.send_unsent()
    assert len(await sent(redis)) == len(told)


async def test_order_is_kept_when_an_earlier_change_waits(
    writer: FlipWriter, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr("headrace_audience.memberships.flips.streams.send", broken)
        await writer.write("acme", [flip("p1")], {})
    await writer.write("acme", [flip("p1", False)], {})  # must not overtake
    assert await sent(redis) == []
    await writer.send_unsent()
    assert [(member, version) for _, _, member, version in await sent(redis)] == [(True, 1), (False, 2)]


async def test_nothing_is_lost_that_is_written_beside_changes_that_wait(
    writer: FlipWriter, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction of two partitions, of which one has something to send first."""
    other = next(f"q{i}" for i in range(100) if partition_of(f"q{i}", PARTITIONS) != partition_of("p1", PARTITIONS))

    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr("headrace_audience.memberships.flips.streams.send", broken)
        await writer.write("acme", [flip("p1")], {})
    await writer.write("acme", [flip("p1", False), flip(other)], {})
    await writer.write("acme", [flip(other, False)], {})
    await writer.send_unsent()
    told = await sent(redis)
    assert [c[2:] for c in told if c[1] == "p1"] == [(True, 1), (False, 2)]
    assert [c[2:] for c in told if c[1] == other] == [(True, 1), (False, 2)]


async def test_a_row_that_was_lost_goes_on_from_its_history(writer: FlipWriter, db: Database) -> None:
    await writer.write("acme", [flip("p1"), flip("p2")], {})
    await writer.write("acme", [flip("p1", False)], {})
    await db[MEMBERSHIPS].delete_one({"p": "p1"})
    assert await writer.write("acme", [flip("p1"), flip("p3")], {}) == 2
    assert [d["v"] async for d in db[CHANGES].find({"p": "p1"}).sort("v", 1)] == [1, 2, 3]


async def test_a_commit_whose_answer_is_lost_is_sent_once_and_repeated_safely(
    writer: FlipWriter, db: Database, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FlipWriter._transact

    async def committed_then_lost(self: FlipWriter, *args: Any) -> Any:
        await real(self, *args)
        raise AutoReconnect("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(FlipWriter, "_transact", committed_then_lost)
        with pytest.raises(AutoReconnect):
            await writer.write("acme", [flip("p1")], {})
    await writer.write("acme", [flip("p1")], {})  # the caller repeats
    await writer.send_unsent()
    assert await sent(redis) == [("buyers", "p1", True, 1)]
    assert await db[CHANGES].count_documents({}) == 1


async def test_an_entry_and_an_exit_that_wait_are_written_once_each_whatever_fails(
    writer: FlipWriter, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the worker writes: what failed is put back and taken again."""
    pending = Pending(lambda profile_id: partition_of(profile_id, PARTITIONS))
    pending.add([flip("p1"), flip("p1", False), flip("p2")])
    real = FlipWriter._transact
    lost = 0

    async def committed_then_lost(self: FlipWriter, *args: Any) -> Any:
        nonlocal lost
        history = await real(self, *args)
        if lost < 2:
            lost += 1
            raise AutoReconnect("the answer was lost")
        return history

    monkeypatch.setattr(FlipWriter, "_transact", committed_then_lost)
    while flips := pending.take(2_000):
        try:
            await writer.write("acme", flips, {})
        except AutoReconnect:
            pending.put_back(flips)
    history = [d async for d in db[CHANGES].find({}).sort([("p", 1), ("v", 1)])]
    assert [(d["p"], d["in"]) for d in history] == [("p1", True), ("p1", False), ("p2", True)]
    assert lost == 2


async def test_changes_are_sent_again_when_redis_forgot(writer: FlipWriter, redis: streams.Redis) -> None:
    await writer.write("acme", [flip("p1")], {})
    await redis.flushall()
    writer.resend_from(range(PARTITIONS), 0)
    await writer.send_unsent()
    assert await sent(redis) == [("buyers", "p1", True, 1)]


async def test_many_flips_go_in_several_transactions(writer: FlipWriter, db: Database, redis: streams.Redis) -> None:
    assert await writer.write("acme", [flip(f"p{i}") for i in range(2_500)], {}) == 2_500
    assert await db[MEMBERSHIPS].count_documents({"in": True}) == 2_500
    assert len(set(await sent(redis))) == 2_500
