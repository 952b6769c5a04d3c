"""Merges are undone and people erased while the service runs, is killed, and loses Redis."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
from headrace_audience.bootstrap import open_service
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.people.erasure import Eraser, Whom
from headrace_audience.settings import Settings
from headrace_audience.store import CHANGES, ERASURES, MEMBERSHIPS, SNAPSHOTS

from headrace.api.common.v1 import erasure_service_pb2 as erasure_api
from headrace.api.common.v1.erasure_service_pb2_grpc import ErasureServiceStub
from headrace.domain.times import now_us
from headrace.rpc.channel import with_token
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.integration.audience_service.test_takeover import shared
from tests.support.audience import QUICK, AudienceClient, client_of, eventually, serving_audience
from tests.support.audience_replicas import consistent, replica_process
from tests.support.reassigned import Stores, World
from tests.support.resolved import event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
TWICE: dict[str, Any] = {"where": {"event": "Purchased", "count": {"gte": 2}}}
NEVER: dict[str, Any] = {"where": {"not": {"event": "Purchased"}}}
GOLD: dict[str, Any] = {"where": {"trait": "plan", "eq": "gold"}}
AUDIENCES = {"twice": TWICE, "never": NEVER, "gold": GOLD}
FROZEN: dict[str, Any] = {"kind": "static", "where": {"event": "Purchased"}}


@pytest.fixture
def settings(db: Database, make_settings: MakeSettings) -> Settings:
    return make_settings(Settings, **QUICK)


@pytest.fixture
def world() -> World:
    return World(PARTITIONS, clock=now_us)


@pytest.fixture
def line(world: World, db: Database, redis: streams.Redis) -> Stores:
    return Stores(world, db, redis)


async def has_true_members(client: AudienceClient, world: World, audience_ids: Iterable[str] = AUDIENCES) -> None:
    """Wait until the members are those of what is left, by the naive reference; the batch evaluator agrees."""
    reference = Reference(list(facts_of_resolved(world.log.values(), world.into)))
    for audience_id in audience_ids:
        await client.has_members(audience_id, reference.members(parse_definition(AUDIENCES[audience_id]), now_us()))
        assert list((await client.verify(audience_id)).mismatched_profile_ids) == []


async def start(client: AudienceClient) -> None:
    for audience_id, definition in AUDIENCES.items():
        await client.start(audience_id, definition)


async def test_an_undone_merge_gives_everybody_back_what_is_theirs(
    settings: Settings, db: Database, world: World, line: Stores
) -> None:
    async with serving_audience(settings) as client:
        await start(client)
        await client.create("frozen", FROZEN)
        world.resolve(event("a", "Purchased"))
        world.resolve(event("b", "Purchased"))
        world.resolve(event("b", traits={"plan": "gold"}))
        world.resolve(event("c", "Viewed"))
        await line.flush()
        await has_true_members(client, world)
        await client.activate("frozen")
        await client.active("frozen")
        await client.has_members("frozen", ["a", "b"])

        world.resolve(event("a", "Viewed"), "b")
        world.resolve(event("c", "Viewed"), "b")  # the survivor is merged again
        await line.flush()
        await client.has_members("frozen", ["c"])
        await client.has_members("twice", ["c"])

        world.split("c", "a", "b")
        await line.flush()
        await client.has_members("frozen", ["a"])
        await has_true_members(client, world)
        world.split("a", "b")
        await line.flush()
        await client.has_members("frozen", ["a", "b"])
        await has_true_members(client, world)
        world.repeat(random.Random(1))
        world.resolve(event("b", "Purchased"))
        await line.flush()
        await has_true_members(client, world)

        changes = await client.changes()
        of_gold = [(c.profile_id, c.member, c.cause) for c in changes if c.audience_id == "gold"]
        assert of_gold == [
            ("b", True, "event"),
            ("b", False, "merge"),
            ("a", True, "merge"),
            ("a", False, "merge"),
            ("c", True, "merge"),
            ("c", False, "reassignment"),
            ("a", True, "reassignment"),
            ("a", False, "reassignment"),
            ("b", True, "reassignment"),
        ] or sorted(of_gold) == sorted(
            [
                ("b", True, "event"),
                ("b", False, "merge"),
                ("c", True, "merge"),
                ("c", False, "reassignment"),
                ("a", True, "reassignment"),
                ("a", False, "reassignment"),
                ("b", True, "reassignment"),
            ]
        )
    await consistent(db)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2])
async def test_random_histories_are_followed_through_kills_and_the_loss_of_redis(
    make_settings: MakeSettings,
    settings_env: dict[str, str],
    db: Database,
    redis: streams.Redis,
    world: World,
    line: Stores,
    seed: int,
) -> None:
    r = random.Random(seed)

    async def live(turns: int) -> None:
        for _ in range(turns):
            part = r.choice([p for p in "abcdefgh" if p not in world.gone])
            what = event(part, traits={"plan": r.choice(["gold", "free"])}) if r.random() < 0.3 else None
            known = world.parts()
            loser = r.choice(known) if known and r.random() < 0.3 else ""
            world.resolve(what or event(part, r.choice(["Purchased", "Viewed"])), loser, late=r.random() < 0.2)
            if r.random() < 0.3:
                roots = sorted({world.survivor(p) for p in world.parts()})
                world.assign_anew(r, r.sample(roots, min(len(roots), r.choice((1, 2)))))
            if r.random() < 0.3:
                world.repeat(r)
            if r.random() < 0.5:
                await line.flush()
        world.send_waiting()
        await line.flush()

    settings = make_settings(Settings, **(QUICK | {"audience_lease_seconds": 2.5}))
    async with serving_audience(settings) as client:
        await start(client)
        await live(20)
        await has_true_members(client, world)
        with replica_process(settings_env, 2.5) as process:
            await shared(db, 2, 2)
            await live(10)
            process.kill()  # wherever it is
            await live(10)
            await has_true_members(client, world)
            await shared(db, 4)
        await live(5)
        await redis.flushall()  # what was sent and not read is in the log only
        await live(5)
        await has_true_members(client, world)
    await live(10)
    await redis.flushall()
    await live(5)
    async with serving_audience(settings) as client:  # from snapshots, without the stream
        await has_true_members(client, world)
    await consistent(db)


async def test_an_undone_merge_is_found_in_the_log_when_its_entries_are_lost(
    settings: Settings, db: Database, redis: streams.Redis, world: World, line: Stores
) -> None:
    async with serving_audience(settings) as client:
        await start(client)
        for part in ("a", "b"):
            world.resolve(event(part, "Purchased"))
        world.resolve(event("c", "Viewed"))
        world.resolve(event("a", "Viewed"), "b")
        await line.flush()
        await client.has_members("twice", ["a"])
        await eventually(lambda: has_snapshots(db))
    world.split("a", "b")
    await line.flush()
    await redis.flushall()
    async with serving_audience(settings) as client:
        await client.has_members("twice", [])
        await has_true_members(client, world)
        world.repeat(random.Random(0))  # what is sent again now was overtaken
        await line.flush()
        world.resolve(event("b", "Purchased"))
        await line.flush()
        await client.has_members("twice", ["b"])
        await has_true_members(client, world)
    await consistent(db)


async def erase(address: str, settings: Settings, profiles: list[str], messages: list[str]) -> dict[str, Any]:
    channel = with_token(address, settings.service_token.get_secret_value())
    try:
        request = erasure_api.ErasePersonRequest(
            parent="workspaces/acme", deletion_id="d1", profile_ids=profiles, message_ids=messages
        )
        answer = await ErasureServiceStub(channel).ErasePerson(request)
        return {place.place: place for place in answer.places}
    finally:
        await channel.close(grace=None)


@pytest.mark.parametrize("log_first", [True, False])
async def test_the_erased_are_gone_everywhere(
    settings: Settings, db: Database, redis: streams.Redis, world: World, line: Stores, log_first: bool
) -> None:
    async with open_service(settings) as running, client_of(running.grpc_address, settings) as client:
        await start(client)
        world.resolve(event("a", "Purchased", message_id="a1"))
        world.resolve(event("b", "Purchased", message_id="b1"))
        world.resolve(event("c", "Purchased", message_id="c1"))
        world.resolve(event("a", "Purchased", message_id="a2"), "b")
        await line.flush()
        await client.has_members("twice", ["a"])
        folder = Path(settings.archive_dir)

        async def is_archived() -> bool:
            return {"a", "b", "c"} <= archived(folder)

        await eventually(is_archived)
        await eventually(lambda: has_snapshots(db))
        sent = await redis.xlen(names.CHANGES)
        assert sent

        profiles, messages = world.erase("a")
        if log_first:
            await line.flush()

        places: dict[str, int] = {}

        async def is_removed() -> bool:
            answer = await erase(running.grpc_address, settings, profiles, messages)
            for name, place in answer.items():
                places[name] = places.get(name, 0) + place.count
            return all(p.outcome == erasure_api.ERASURE_OUTCOME_REMOVED for p in answer.values())

        await eventually(is_removed)
        if not log_first:
            await line.flush()
        assert set(places) == {
            MEMBERSHIPS,
            CHANGES,
            SNAPSHOTS,
            "archive",
            "headrace:resolved",
            names.CHANGES,
        }
        assert places["headrace:resolved"] >= 3

        await client.has_members("twice", [])
        await has_true_members(client, world)
        query = {"w": "acme", "p": {"$in": profiles}}
        assert await db[MEMBERSHIPS].count_documents(query) == await db[CHANGES].count_documents(query) == 0
        assert await db[ERASURES].count_documents({}) == 0
        assert archived(folder) == {"c"}
        for stream in [names.CHANGES, *map(names.resolved, range(PARTITIONS))]:
            entries: Any = await redis.xrange(stream)
            content = b"".join(fields[b"b"] for _, fields in entries)
            assert not any(m.encode() in content for m in messages)
        # Nothing comes back: again, and from snapshots.
        again = await erase(running.grpc_address, settings, profiles, messages)
        assert {p.count for p in again.values()} == {0}
    async with serving_audience(settings) as client:
        await has_true_members(client, world)
    assert not [d async for d in db[CHANGES].find({"p": {"$in": profiles}})]


async def test_an_erasure_says_what_is_not_done_yet_and_goes_on_later(
    settings: Settings, db: Database, world: World, line: Stores, redis: streams.Redis
) -> None:
    """Nobody holds the archive or the partitions: the order waits for them."""
    async with serving_audience(settings) as client:
        await start(client)
        world.resolve(event("a", "Purchased", message_id="a1"))
        await line.flush()
        await client.has_members("never", [])
        await eventually(lambda: has_snapshots(db))
    eraser = Eraser(db, redis, partitions=PARTITIONS, wait_s=0.2)
    whom = Whom("acme", "d1", frozenset(["a"]), frozenset(["a1"]))
    faults = {place.name for place in await eraser.erase(whom) if place.fault}
    assert "archive" in faults and await db[ERASURES].count_documents({}) == 1
    async with serving_audience(settings):

        async def is_done() -> bool:
            return not any(place.fault for place in await eraser.erase(whom))

        await eventually(is_done)
    assert await db[ERASURES].count_documents({}) == 0


async def test_only_services_may_erase(settings: Settings) -> None:
    async with open_service(settings) as running:
        channel = with_token(running.grpc_address, "hr_nobody")
        with pytest.raises(grpc.aio.AioRpcError):
            await ErasureServiceStub(channel).ErasePerson(
                erasure_api.ErasePersonRequest(parent="workspaces/acme", deletion_id="d1")
            )
        await channel.close(grace=None)


def archived(folder: Path) -> set[str]:
    """Profiles of all event files on the disk, valid or not."""
    found: set[str] = set()
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        if "profile" in table.column_names:
            found.update(table["profile"].to_pylist())
    return found


async def has_snapshots(db: Database) -> bool:
    """Whether all partitions have a snapshot."""
    return bool(await db[SNAPSHOTS].count_documents({"snapshot": {"$exists": True}}) == PARTITIONS)
