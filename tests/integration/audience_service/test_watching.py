"""Changes of memberships are followed as they are written."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import grpc
import pytest
from headrace_audience.calls import watching
from headrace_audience.calls.watching import TooManyWatchersError, Watching
from headrace_audience.memberships.flips import head_key
from headrace_audience.settings import Settings
from headrace_audience.store import CHANGES, SNAPSHOTS

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
WAIT_S = 60.0


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


class Follower:
    """What a caller has seen."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.cursor = ""

    async def next(self) -> list[tuple[str, str, bool]]:
        """The changes of the next answer."""
        answer = await asyncio.wait_for(self.call.read(), WAIT_S)
        self.cursor = answer.cursor
        return [(c.audience_id, c.profile_id, c.member) for c in answer.changes]

    async def gets(self, number: int) -> list[tuple[str, str, bool]]:
        """So many changes, and not one more with them."""
        found: list[tuple[str, str, bool]] = []
        while len(found) < number:
            found += await self.next()
        assert len(found) == number
        return sorted(found)


@asynccontextmanager
async def following(client: AudienceClient, parent: str, **fields: Any) -> AsyncIterator[Follower]:
    call = client.stub.WatchMembership(pb.WatchMembershipRequest(parent=parent, **fields))
    follower = Follower(call)
    assert await follower.next() == [], "first it is said where it begins"
    try:
        yield follower
    finally:
        call.cancel()


async def test_changes_are_told_to_those_whom_they_concern(client: AudienceClient, identity: FakeIdentity) -> None:
    other = AudienceClient(client.stub, "other")
    await client.start("buyers", COUNT)
    await client.start("viewers", {"where": {"event": "Viewed"}})
    await other.start("buyers", COUNT)
    await identity.resolve(event("before", "Purchased"))
    await client.has_members("buyers", ["before"])
    async with (
        following(client, client.parent) as everything,
        following(client, client.name("buyers")) as audience,
        following(client, client.parent, profile_id="p2") as person,
        following(client, other.parent) as others,
    ):
        await identity.resolve(
            event("p1", "Purchased"),
            event("p2", "Purchased"),
            event("p2", "Viewed"),
            event("p9", "Purchased", workspace_id="other"),
        )
        assert await everything.gets(3) == [("buyers", "p1", True), ("buyers", "p2", True), ("viewers", "p2", True)]
        assert await audience.gets(2) == [("buyers", "p1", True), ("buyers", "p2", True)]
        assert await person.gets(2) == [("buyers", "p2", True), ("viewers", "p2", True)]
        assert await others.gets(1) == [("buyers", "p9", True)]


async def test_who_comes_back_misses_nothing(
    make_settings: MakeSettings, identity: FakeIdentity, redis: streams.Redis
) -> None:
    settings = make_settings(Settings, **QUICK)
    async with serving_audience(settings) as client:
        await client.start("buyers", COUNT)
        async with following(client, client.parent) as first:
            await identity.resolve(event("p1", "Purchased"))
            assert await first.gets(1) == [("buyers", "p1", True)]
        people = [f"q{i}" for i in range(50)]
        await identity.resolve(*(event(p, "Purchased") for p in people))
        await client.has_members("buyers", ["p1", *people])
    await redis.delete("headrace:changes")  # what was sent meanwhile is gone
    async with serving_audience(settings) as client:
        async with following(client, client.parent, cursor=first.cursor) as second:
            assert await second.gets(50) == sorted(("buyers", p, True) for p in people)
        async with following(client, client.parent, cursor=second.cursor) as third:
            await identity.resolve(event("last", "Purchased"))
            assert await third.gets(1) == [("buyers", "last", True)]


async def test_much_is_read_in_parts_that_end_with_a_transaction(db: Database) -> None:
    flushes = [1, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6]
    await db[SNAPSHOTS].insert_one({"_id": head_key(0), "f": 6})
    await db[CHANGES].insert_many(
        [{"_id": f"c{i:02d}", "w": "acme", "a": "x", "p": "p", "q": 0, "f": f} for i, f in enumerate(flushes)]
    )
    with mock.patch.object(watching, "READ_AT_A_TIME", 4):
        follower = Watching(db, 1).follow("acme", "", "", [0])
        assert (await anext(follower)).changes == ()
        seen = [await asyncio.wait_for(anext(follower), WAIT_S) for _ in range(5)]
    assert [d["f"] for one in seen for d in one.changes] == flushes
    assert [list(one.positions) for one in seen] == [[1], [2], [4], [5], [6]]


async def test_an_old_place_is_looked_through_in_parts_that_tell_how_far_they_came(db: Database) -> None:
    """Very much of other workspaces may lie between two changes of one."""
    await db[SNAPSHOTS].insert_one({"_id": head_key(0), "f": 1_000})
    await db[CHANGES].insert_many(
        [
            {"_id": f"c{f:04d}{i}", "w": "acme" if f in (3, 901) else "other", "a": "x", "p": "p", "q": 0, "f": f}
            for f in range(1, 1_001)
            for i in range(2)
        ]
    )
    with mock.patch.object(watching, "LOOKED_THROUGH_AT_A_TIME", 100):
        follower = Watching(db, 1, heartbeat_s=0.0).follow("acme", "", "", [0])
        assert (await anext(follower)).positions == (0,)
        seen: list[watching.Seen] = []
        while not seen or seen[-1].positions != (1_000,):
            seen.append(await asyncio.wait_for(anext(follower), WAIT_S))
    assert [d["f"] for one in seen for d in one.changes] == [3, 3, 901, 901]
    places = [one.positions[0] for one in seen]
    assert len(places) >= 1_000 // 51
    assert all(later - earlier <= 51 for earlier, later in itertools.pairwise(places))


async def test_who_goes_away_makes_room(client: AudienceClient) -> None:
    with mock.patch.object(watching, "MOST_WATCHERS", 1):
        async with following(client, client.parent):
            await refused(
                client.stub.WatchMembership(pb.WatchMembershipRequest(parent=client.parent)), errors.LIMIT_EXCEEDED
            )

        async def has_room() -> bool:
            try:
                async with following(client, client.parent):
                    return True
            except grpc.aio.AioRpcError:
                return False

        await eventually(has_room)


async def refused(call: Any, reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert errors.reason_of(caught.value) == reason


async def test_what_is_refused(client: AudienceClient, db: Database) -> None:
    await client.create("buyers", COUNT)

    def watch(parent: str, **fields: Any) -> Any:
        return client.stub.WatchMembership(pb.WatchMembershipRequest(parent=parent, **fields))

    await refused(watch(client.name("nobody")), errors.NOT_FOUND)
    await refused(watch("acme"), errors.INVALID_ARGUMENT)
    await refused(watch(client.parent, cursor="junk"), errors.INVALID_ARGUMENT)
    async with following(client, client.parent) as follower:
        pass
    await refused(watch("workspaces/other", cursor=follower.cursor), errors.INVALID_ARGUMENT)
    await refused(watch(client.name("buyers"), cursor=follower.cursor), errors.INVALID_ARGUMENT)
    another = Watching(db, PARTITIONS + 1)
    with pytest.raises(watching.CursorError):
        await anext(another.follow("acme", "", "", [0] * PARTITIONS))


async def test_signs_of_life_and_room(db: Database) -> None:
    quiet = Watching(db, PARTITIONS, heartbeat_s=0.01)
    with mock.patch.object(watching, "MOST_WATCHERS", 1):
        one = quiet.follow("acme", "", "", None)
        for _ in range(3):
            seen = await asyncio.wait_for(anext(one), WAIT_S)
            assert seen.changes == () and len(seen.positions) == PARTITIONS
        with pytest.raises(TooManyWatchersError):
            await anext(quiet.follow("acme", "", "", None))
        await one.aclose()  # type: ignore[attr-defined]  # a generator has it
        await anext(quiet.follow("acme", "", "", None))
