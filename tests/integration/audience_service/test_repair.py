"""Live state that is wrong is found, counted and made right; what is only on its way is taken for no mismatch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import grpc
import pyarrow as pa
import pytest
from headrace_audience import archiving, bootstrap
from headrace_audience.archiving import SampleCheck
from headrace_audience.checks import repairs, verify
from headrace_audience.checks.repairs import RepairOrders, Repairs
from headrace_audience.checks.verify import Comparison, Verifier
from headrace_audience.definitions import references
from headrace_audience.engine.columns import NarrowColumn
from headrace_audience.engine.engine import Engine
from headrace_audience.partitions.leases import Leases
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES, CHANGES, MEMBERSHIPS, REPAIRS, membership_key
from headrace_audience.worker import Worker

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.domain.ids import partition_of, time_ordered_floor
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
LATELY: dict[str, Any] = {"where": {"event": "Purchased", "within": "30d"}}
NEVER: dict[str, Any] = {"where": {"not": {"event": "Purchased"}}}
PEOPLE = [f"p{i}" for i in range(12)]


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """The workers of the replicas that are started."""
    made: list[Worker] = []

    class Kept(Worker):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(bootstrap, "Worker", Kept)
    return made


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is added to the metric of mismatches."""
    found: list[int] = []

    class Counter:
        def add(self, value: int) -> None:
            found.append(value)

    monkeypatch.setattr(verify, "_mismatches", Counter())
    return found


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings, workers: list[Worker]) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


async def spoil(worker: Worker, profile_id: str) -> None:
    """Turn a bit of the time of a profile's newest event in the column over, and have the profile looked at."""
    evaluation = worker._cohorts[0].evaluations["acme"]
    async with worker._cohorts[0].lock:
        engine: Engine = evaluation.engine
        ordinal = engine._people.index[profile_id]
        for route in engine._states.events.values():
            assert isinstance(route.column, NarrowColumn)
            row = route.column.rows.of[ordinal]
            if row:
                route.column._times[row, 0] ^= 1 << 50  # 35 years
        engine._people.next_moment[ordinal] = 0


async def sent_changes(redis: streams.Redis) -> list[tuple[str, str, bool, str]]:
    entries = await streams.read_from(redis, {names.CHANGES: "0"}, count=10_000, block_ms=1)
    batches = [MembershipChangeBatch.FromString(e.payload) for e in entries]
    return [(c.audience_id, c.profile_id, c.member, c.cause) for b in batches for c in b.changes]


async def test_a_column_with_a_wrong_bit_is_rebuilt_from_the_events(
    client: AudienceClient, identity: FakeIdentity, redis: streams.Redis, workers: list[Worker], counted: list[int]
) -> None:
    await client.start("lately", LATELY)
    await client.start("never", NEVER)
    await client.start("both", {"where": {"all": [{"audience": "lately"}, {"event": "Viewed"}]}})
    at = now_us() - DAY_US
    await identity.resolve(*(event(p, "Purchased", at_us=at) for p in PEOPLE), event("p3", "Viewed"))
    await client.has_members("lately", PEOPLE)
    await client.has_members("both", ["p3"])

    await spoil(workers[0], "p3")
    await client.has_members("lately", [p for p in PEOPLE if p != "p3"])
    await client.has_members("both", [])
    found = await client.verify("lately")
    assert (list(found.mismatched_profile_ids), found.mismatch_count) == (["p3"], 1)
    assert (found.live_size, found.batch_size) == (11, 12)
    assert (found.corrected_count, found.unanswered_count) == (0, 0)
    assert await client.members("both") == [], "it was asked only"
    assert counted == [1]

    repaired = await client.verify("lately", repair=True)
    assert (list(repaired.mismatched_profile_ids), repaired.corrected_count) == (["p3"], 2)
    assert (repaired.unanswered_count, counted) == (0, [1, 1])
    assert await client.members("lately") == sorted(PEOPLE)
    assert await client.members("both") == ["p3"]
    changes = [c for c in await client.changes(profile_id="p3") if c.cause == "repair"]
    assert sorted((c.audience_id, c.member) for c in changes) == [("both", True), ("lately", True)]
    assert next(c for c in changes if c.audience_id == "lately").effective_at_us == at
    told = [c for c in await sent_changes(redis) if c[3] == "repair"]
    assert sorted(told) == [("both", "p3", True, "repair"), ("lately", "p3", True, "repair")]

    again = await client.verify("lately", repair=True)
    assert (again.mismatch_count, again.corrected_count, counted) == (0, 0, [1, 1])
    await identity.resolve(event("p3", "Purchased"), event("x", "Viewed"))
    await client.has_members("never", ["x"])
    assert await client.members("lately") == sorted(PEOPLE)


async def test_a_repair_beside_an_audience_of_groups(
    client: AudienceClient, identity: FakeIdentity, workers: list[Worker]
) -> None:
    """The engine that is repaired knows people only."""
    account = event("p1", kind="group", traits={"plan": "pro"})
    account.event.group_id = "g1"
    await identity.resolve(account, *(event(p, "Purchased") for p in PEOPLE))
    await client.start("accounts", {"of": "groups", "refresh": "1h", "where": {"trait": "plan", "eq": "pro"}})
    await client.start("lately", LATELY)
    await client.has_members("lately", PEOPLE)
    await spoil(workers[0], "p3")
    await client.has_members("lately", [p for p in PEOPLE if p != "p3"])
    assert (await client.verify("lately", repair=True)).corrected_count == 1
    await client.has_members("lately", PEOPLE)
    assert await client.members("accounts") == ["g1"]


@pytest.mark.parametrize("compared", [1, 4], ids=["in the first comparison", "in the last comparison"])
async def test_a_definition_that_changes_while_it_is_compared_is_no_mismatch(
    client: AudienceClient,
    identity: FakeIdentity,
    db: Database,
    counted: list[int],
    monkeypatch: pytest.MonkeyPatch,
    compared: int,
) -> None:
    await client.start("lately", LATELY)
    await identity.resolve(*(event(p, "Purchased") for p in PEOPLE))
    await client.has_members("lately", PEOPLE)
    if compared > 1:
        await db[MEMBERSHIPS].update_one({"a": "lately", "p": "p3"}, {"$set": {"in": False}})
    looks = 0
    referenced = references.referenced

    async def changed_meanwhile(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == compared:
            await client.update("lately", {"where": {"event": "Viewed"}})
            await client.has_members("lately", [])
        return await referenced(*args, **kwargs)

    monkeypatch.setattr(verify, "referenced", changed_meanwhile)
    with pytest.raises(grpc.aio.AioRpcError, match="changed while it was compared") as caught:
        await client.verify("lately")
    assert errors.reason_of(caught.value) == errors.WRONG_STATE
    assert counted == []


async def test_a_repair_outlives_the_replica(
    db: Database, make_settings: MakeSettings, identity: FakeIdentity, workers: list[Worker]
) -> None:
    """What is stored as a snapshot is right too: the next owner does not bring the fault back."""
    settings = make_settings(Settings, **QUICK)
    async with serving_audience(settings) as client:
        await client.start("lately", LATELY)
        await identity.resolve(*(event(p, "Purchased", at_us=now_us() - DAY_US) for p in PEOPLE))
        await client.has_members("lately", PEOPLE)
        await spoil(workers[0], "p3")
        await client.has_members("lately", [p for p in PEOPLE if p != "p3"])
        assert (await client.verify("lately", repair=True)).corrected_count == 1
    async with serving_audience(settings) as client:
        await identity.resolve(event("p3", "Viewed"), event("last", "Purchased"))
        await client.has_members("lately", [*PEOPLE, "last"])
        assert (await client.verify("lately")).mismatch_count == 0
    assert len([c async for c in db[CHANGES].find({"p": "p3"})]) == 3


async def test_rows_that_were_lost_or_put_in(
    client: AudienceClient, identity: FakeIdentity, db: Database, redis: streams.Redis, counted: list[int]
) -> None:
    """A row that is gone, one too many, one of a merged profile, and one of somebody who never was."""
    await client.start("buyers", COUNT)
    await client.start("never", NEVER)
    await identity.resolve(*(event(p, "Purchased") for p in PEOPLE), event("viewer", "Viewed"))
    await identity.resolve(event("loser", "Purchased"))
    await identity.resolve(event("p5", "Viewed", merges=[identity.merge("loser", "p5")]))
    await client.has_members("buyers", PEOPLE)
    await client.has_members("never", ["viewer"])

    await db[MEMBERSHIPS].delete_one({"_id": membership_key("acme", "buyers", "p1")})
    for profile_id in ("viewer", "loser", "nobody"):
        row = {"w": "acme", "a": "buyers", "p": profile_id, "q": partition_of(profile_id, PARTITIONS), "in": True}
        key = {"_id": membership_key("acme", "buyers", profile_id)}
        await db[MEMBERSHIPS].update_one(
            key, {"$set": row, "$setOnInsert": {"version": 7, "since": 1, "token": 1}}, upsert=True
        )
    found = await client.verify("buyers", repair=True)
    assert list(found.mismatched_profile_ids) == ["loser", "nobody", "p1", "viewer"]
    assert (found.corrected_count, found.live_size, found.batch_size, counted) == (4, 14, 12, [4])
    assert await client.members("buyers") == sorted(PEOPLE)
    repaired = sorted(c[1:3] for c in await sent_changes(redis) if c[3] == "repair")
    assert repaired == [("loser", False), ("nobody", False), ("p1", True), ("viewer", False)]
    # Who never was is nobody still, and may come to be.
    assert await client.members("never") == ["viewer"]
    await identity.resolve(event("nobody", "Viewed"))
    await client.has_members("never", ["nobody", "viewer"])


async def test_a_reported_bit_that_is_wrong_in_memory_only(
    client: AudienceClient, identity: FakeIdentity, workers: list[Worker]
) -> None:
    """The engine believes that it has told of somebody: nothing is written, which the comparison sees."""
    await client.start("buyers", COUNT)
    await identity.resolve(event("p1", "Viewed"))
    await client.start("viewers", {"where": {"event": "Viewed"}})
    await client.has_members("viewers", ["p1"])
    worker = workers[0]
    async with worker._cohorts[0].lock:
        worker._cohorts[0].evaluations["acme"].engine.set_membership("buyers", ["p1"])
        worker._cohorts[0].evaluations["acme"].engine._stored.clear()
    await identity.resolve(event("p1", "Purchased"), event("p2", "Purchased"))
    await client.has_members("buyers", ["p2"])
    assert list((await client.verify("buyers", repair=True)).mismatched_profile_ids) == ["p1"]
    assert await client.members("buyers") == ["p1", "p2"]


async def test_the_replica_that_answers_is_not_the_owner(
    db: Database, make_settings: MakeSettings, identity: FakeIdentity, workers: list[Worker]
) -> None:
    settings = make_settings(Settings, **QUICK)
    async with AsyncExitStack() as replicas:
        first = await replicas.enter_async_context(serving_audience(settings))
        second = await replicas.enter_async_context(serving_audience(settings))

        async def shared() -> bool:
            return [len(worker.held) for worker in workers] == [2, 2]

        await eventually(shared)
        await first.start("buyers", COUNT)
        await identity.resolve(*(event(p, "Purchased") for p in PEOPLE))
        await first.has_members("buyers", PEOPLE)
        for client in (first, second):
            await db[MEMBERSHIPS].update_many({"a": "buyers"}, {"$set": {"in": False}})
            found = await client.verify("buyers", repair=True)
            assert (found.mismatch_count, found.corrected_count) == (12, 12)
            assert await client.members("buyers") == sorted(PEOPLE)
    assert await db[REPAIRS].count_documents({}) == 0


async def test_few_of_many_orders_are_followed_at_a_time(
    client: AudienceClient,
    identity: FakeIdentity,
    db: Database,
    workers: list[Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may name thousands of profiles. Those that nobody can carry out are in nobody's way."""
    at_once = 0
    find_open = RepairOrders._open

    async def watched(*args: Any) -> list[Document]:
        nonlocal at_once
        orders = await find_open(*args)
        at_once = max(at_once, len(orders))
        return orders

    monkeypatch.setattr(repairs, "ORDERS_AT_A_TIME", 2)
    monkeypatch.setattr(RepairOrders, "_open", watched)
    await client.start("buyers", COUNT)
    await identity.resolve(*(event(p, "Purchased") for p in PEOPLE))
    await client.has_members("buyers", PEOPLE)
    asking = Repairs(db, PARTITIONS, wait_s=600.0)
    lost = [asyncio.create_task(asking.ask("nobody", "buyers", PEOPLE, now_us(), repair=True)) for _ in range(4)]
    try:

        async def are_waiting() -> bool:
            return await db[REPAIRS].count_documents({"w": "nobody"}) == len(lost)

        await eventually(are_waiting)
        await db[MEMBERSHIPS].update_many({"a": "buyers"}, {"$set": {"in": False}})
        answers = await asyncio.gather(
            *(asking.ask("acme", "buyers", [p], now_us(), repair=True) for p in PEOPLE[:7]),
        )
        assert [(sorted(a.wrong), a.corrected, a.unanswered) for a in answers] == [
            ([p], 1, frozenset()) for p in PEOPLE[:7]
        ]
        assert await client.members("buyers") == sorted(PEOPLE[:7])
        assert at_once == 2
        for worker in workers:
            assert not any(cohort.repairs._steps for cohort in worker._cohorts), "nothing is remembered of what is done"
    finally:
        for task in lost:
            task.cancel()


@pytest.mark.parametrize("repair", [True, False])
async def test_events_on_their_way_are_no_mismatch(
    client: AudienceClient, identity: FakeIdentity, db: Database, counted: list[int], repair: bool
) -> None:
    """Identity stored them and ends before it sends them: the batch evaluator sees what nobody has folded."""
    await client.start("buyers", COUNT)
    await identity.resolve(event("p1", "Purchased"))
    await client.has_members("buyers", ["p1"])
    segment = time_ordered_floor(now_us())
    await db[log.SEGMENTS].insert_one({"_id": segment})
    late = [event("p2", "Purchased", message_id="late")]
    await identity.store(late)
    verifying = asyncio.create_task(client.verify("buyers", repair=repair))

    async def ordered() -> bool:
        return await db[REPAIRS].count_documents({}) == 1

    await eventually(ordered)
    await asyncio.sleep(2.5)  # longer than between two looks at orders
    assert not verifying.done() and await client.members("buyers") == ["p1"]
    await identity.send(late)
    await log.mark_done(db, [segment])
    found = await verifying
    assert (found.mismatch_count, found.corrected_count, found.unanswered_count) == (0, 0, 0)
    assert [(c.profile_id, c.cause, c.message_id) for c in await client.changes()][1] == ("p2", "event", "late")
    assert sum(counted) == 0


@pytest.mark.parametrize("repair", [True, False])
async def test_the_check_in_the_background(
    db: Database, make_settings: MakeSettings, identity: FakeIdentity, counted: list[int], repair: bool
) -> None:
    settings = make_settings(Settings, **(QUICK | {"audience_check_seconds": 0.2, "audience_repair": repair}))
    async with serving_audience(settings) as client:
        await client.start("buyers", COUNT)
        await identity.resolve(*(event(p, "Purchased") for p in PEOPLE))
        await client.has_members("buyers", PEOPLE)
        # What cannot be read, as by an older program, and what is not kept exact, hold up no other.
        document = await db[AUDIENCES].find_one({"a": "buyers"})
        assert document is not None
        for other, definition in (("newer", {"where": {"unheard": 1}}), ("static", {"kind": "static", **COUNT})):
            await db[AUDIENCES].insert_one(
                {**document, "_id": f"acme-{other}", "a": other, "def": json.dumps(definition), "updated": 0}
            )
        await db[MEMBERSHIPS].update_one({"a": "buyers", "p": "p1"}, {"$set": {"in": False}})
        if repair:
            await client.has_members("buyers", PEOPLE)

            async def is_counted() -> bool:
                return sum(counted) == 1

            await eventually(is_counted)
        else:

            async def is_counted_again() -> bool:
                return sum(counted) >= 2

            await eventually(is_counted_again)
            assert await client.members("buyers") == sorted(p for p in PEOPLE if p != "p1")


async def test_a_check_that_fails_is_counted_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, db: Database
) -> None:
    failed: list[int] = []
    monkeypatch.setattr(archiving, "_failed", SimpleNamespace(add=failed.append))

    class Broken(Verifier):
        """Finds files of the archive that cannot be read, of each kind of failure in turn."""

        def __init__(self) -> None:
            self.failures: list[Exception] = [OSError("gone"), pa.ArrowInvalid("torn"), duckdb.IOException("torn")]

        async def verify(self, workspace_id: str, audience_id: str, *, repair: bool = False) -> Comparison:
            if self.failures:
                raise self.failures.pop()
            done.set()
            return Comparison(live_size=0, batch_size=0, mismatched=[], at_us=0)

    done = asyncio.Event()
    await db[AUDIENCES].insert_one({"_id": "acme-a", "w": "acme", "a": "a", "state": "ACTIVE"})
    leases = cast("Leases", SimpleNamespace(held={0: 1}))
    check = asyncio.create_task(SampleCheck(db, Broken(), leases, 0.01, repair=False).run())
    await asyncio.wait({check, asyncio.create_task(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert done.is_set() and not check.done()
    assert failed == [1, 1, 1]
    check.cancel()
    await asyncio.wait({check})
