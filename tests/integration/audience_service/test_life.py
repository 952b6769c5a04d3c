"""The life of an audience: put away and brought back; refreshed at intervals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import (
    AUDIENCE_STATE_ACTIVE,
    AUDIENCE_STATE_ARCHIVED,
    AUDIENCE_STATE_DRAFT,
    Audience,
)
from headrace.domain.ids import partition_of
from headrace.domain.times import HOUR_US, MINUTE_US, SECOND_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
HOURLY: dict[str, Any] = {"refresh": "1h", **COUNT}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


async def refused(call: object, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any awaitable
    assert errors.reason_of(caught.value) == reason, caught.value.details()
    return caught.value


async def archive(client: AudienceClient, audience_id: str) -> Audience:
    request = pb.ArchiveAudienceRequest(name=client.name(audience_id))
    answer: Audience = (await client.stub.ArchiveAudience(request)).audience
    return answer


async def refresh(client: AudienceClient, audience_id: str) -> Audience:
    request = pb.RefreshAudienceRequest(name=client.name(audience_id))
    answer: Audience = (await client.stub.RefreshAudience(request)).audience
    return answer


async def listed(client: AudienceClient, **fields: Any) -> list[str]:
    answer = await client.stub.ListAudiences(pb.ListAudiencesRequest(parent=client.parent, **fields))
    return [audience.name.rpartition("/")[2] for audience in answer.audiences]


# --- archived


async def test_an_archived_audience_has_no_members_and_comes_back(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await client.start("buyers", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Purchased"))
    await client.has_members("buyers", ["p1", "p2"])

    assert (await archive(client, "buyers")).state == AUDIENCE_STATE_ARCHIVED
    assert (await archive(client, "buyers")).state == AUDIENCE_STATE_ARCHIVED
    await client.has_members("buyers", [])
    left = [c for c in await client.changes() if not c.member]
    assert {(c.profile_id, c.cause, c.version) for c in left} == {("p1", "archived", 2), ("p2", "archived", 2)}
    await identity.resolve(event("p3", "Purchased"))
    await client.start("others", COUNT)
    await client.has_members("others", ["p1", "p2", "p3"])
    assert await client.members("buyers") == []

    assert await listed(client) == ["others"]
    assert await listed(client, show_archived=True) == ["buyers", "others"]
    assert json.loads((await client.get("buyers")).definition) == COUNT
    await refused(client.pause("buyers"), errors.WRONG_STATE)
    await refused(client.verify("buyers"), errors.WRONG_STATE)

    await client.activate("buyers")
    await client.has_members("buyers", ["p1", "p2", "p3"])
    (change,) = await client.changes(parent=client.name("buyers"), profile_id="p3")
    assert (change.member, change.version, change.cause) == (True, 1, "fill")
    assert len(await client.changes(parent=client.name("buyers"), profile_id="p1")) == 3, "history stays"
    await client.delete("buyers")


async def test_archiving_is_refused_while_an_audience_needs_it(client: AudienceClient) -> None:
    await client.create("inner", COUNT)
    await client.create("outer", {"where": {"audience": "inner"}})
    error = await refused(archive(client, "inner"), errors.IN_USE)
    assert errors.error_info(error).metadata["used_by"] == "workspaces/acme/audiences/outer"  # type: ignore[union-attr]  # it has one
    await archive(client, "outer")
    await archive(client, "inner")
    error = await refused(client.delete("inner"), errors.IN_USE)

    error = await refused(client.activate("outer"), errors.INVALID_ARGUMENT)
    place = ("audience.definition.where.audience", "the audience 'inner' is archived: activate it first")
    assert errors.field_violations(error) == [place]
    error = await refused(client.create("x", {"where": {"audience": "inner"}}), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error) == [place]
    await client.activate("inner")
    await client.activate("outer")
    await client.active("outer")


async def test_what_was_never_computed_is_archived_at_once(client: AudienceClient, db: Database) -> None:
    await client.create("draft", COUNT)
    await archive(client, "draft")
    await client.delete("draft")
    await client.create("draft", COUNT)
    assert (await client.get("draft")).state == AUDIENCE_STATE_DRAFT


# --- refreshed at intervals


async def is_refreshed(client: AudienceClient, db: Database, audience_id: str) -> Audience:
    """Wait until no refresh is under way; the audience then."""

    async def is_done() -> bool:
        return not (await db[AUDIENCES].find_one({"a": audience_id}))["open"]  # type: ignore[index]  # it is there

    await eventually(is_done)
    return await client.get(audience_id)


async def test_between_refreshes_nobody_moves(client: AudienceClient, identity: FakeIdentity, db: Database) -> None:
    await identity.resolve(event("p1", "Purchased"))
    await client.start("hourly", HOURLY)
    await client.start("live", COUNT)
    await client.create("named", {"where": {"audience": "hourly"}})
    await client.activate("named")
    await client.has_members("hourly", ["p1"])
    filled = await client.get("hourly")
    assert filled.refresh_time == filled.activate_time
    assert filled.next_refresh_time.ToMicroseconds() == filled.refresh_time.ToMicroseconds() + HOUR_US
    assert not (await client.get("live")).HasField("refresh_time")

    await identity.resolve(event("p2", "Purchased"), event("p3", "Viewed"))
    await client.has_members("live", ["p1", "p2"])
    assert await client.members("hourly") == ["p1"]
    # A merge moves who is in it, as it does in a static one.
    await identity.resolve(event("p3", "Viewed", merges=[identity.merge("p1", "p3")]))
    await client.has_members("hourly", ["p3"])
    await client.has_members("named", ["p3"])

    before = now_us()
    await refresh(client, "hourly")
    done = await is_refreshed(client, db, "hourly")
    assert done.state == AUDIENCE_STATE_ACTIVE
    assert before <= done.refresh_time.ToMicroseconds() <= now_us()
    assert done.next_refresh_time == filled.next_refresh_time, "asking for one does not move the others"
    assert await client.members("hourly") == ["p2", "p3"]
    await client.has_members("named", ["p2", "p3"])
    (change,) = await client.changes(parent=client.name("hourly"), profile_id="p2")
    assert (change.cause, change.effective_at_us) == ("refresh", done.refresh_time.ToMicroseconds())


async def test_missed_refreshes_are_made_up_for_by_one(
    make_settings: MakeSettings, identity: FakeIdentity, db: Database
) -> None:
    settings = make_settings(Settings, **QUICK)
    missed_us = 10 * HOUR_US + 30 * MINUTE_US
    async with serving_audience(settings) as client:
        await client.start("hourly", HOURLY)
        at = now_us()
        await identity.resolve(
            event("p1", "Purchased", at_us=at - 31 * MINUTE_US), event("p2", "Purchased", at_us=at - 29 * MINUTE_US)
        )
        await client.start("live", COUNT)
        await client.has_members("live", ["p1", "p2"])
    # All replicas are down for hours.
    await db[AUDIENCES].update_one({"a": "hourly"}, {"$set": {"next": at - missed_us}})
    stored = await db[AUDIENCES].find_one({"a": "hourly"})
    assert stored is not None
    async with serving_audience(settings) as client, serving_audience(settings):
        await client.has_members("hourly", ["p1"])
        done = await is_refreshed(client, db, "hourly")
        due = at - missed_us + 10 * HOUR_US
        assert done.refresh_time.ToMicroseconds() == due, "of the newest that is due, not of now"
        assert done.next_refresh_time.ToMicroseconds() == due + HOUR_US
        await asyncio.sleep(2.0)  # two looks of each replica
        again = await db[AUDIENCES].find_one({"a": "hourly"})
        assert again is not None and again["gen"] == stored["gen"] + 1, "one refresh, whichever replica began it"
        assert await client.members("hourly") == ["p1"]


async def test_a_refresh_that_was_begun_is_finished_by_others(
    make_settings: MakeSettings, identity: FakeIdentity, db: Database
) -> None:
    """Whatever was written before the end, the next replica goes on from there with the same clock."""
    settings = make_settings(Settings, **QUICK)
    async with serving_audience(settings) as client:
        await client.start("hourly", HOURLY)
        await client.start("live", COUNT)
        at = now_us()
        await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(20)))
        await client.has_members("live", [f"p{i}" for i in range(20)])
    late = next(f"late{i}" for i in range(100) if partition_of(f"late{i}", PARTITIONS) == 2)
    for done in ([], [0, 2], [0, 1, 2, 3]):
        stored = await db[AUDIENCES].find_one({"a": "hourly"})
        assert stored is not None
        begun = {"gen": stored["gen"] + 1, "at": at + SECOND_US, "cause": "refresh", "open": True, "updated": now_us()}
        await db[AUDIENCES].update_one({"a": "hourly"}, {"$set": {**begun, "done": done}})
        async with serving_audience(settings) as client:
            found = await is_refreshed(client, db, "hourly")
            assert found.refresh_time.ToMicroseconds() == at + SECOND_US
            if not done:
                await client.has_members("hourly", [f"p{i}" for i in range(20)])
                await identity.resolve(event(late, "Purchased", at_us=at))
                await client.has_members("live", [f"p{i}" for i in range(20)] + [late])
            assert late not in await client.members("hourly"), "partitions that are done are not computed again"


async def test_what_can_be_refreshed(client: AudienceClient) -> None:
    async def why(call: object) -> str:
        return str((await refused(call, errors.WRONG_STATE)).details())

    await client.create("static", {"kind": "static", **COUNT})
    await client.create("live", COUNT)
    await client.create("hourly", HOURLY)
    assert "computed once" in await why(refresh(client, "static"))
    assert "activate it" in await why(refresh(client, "live")), "a draft is not right at any moment"
    await client.activate("live")
    assert "right at every moment" in await why(refresh(client, "live"))
    assert "activate it" in await why(refresh(client, "hourly"))
    await refused(refresh(client, "nobody"), errors.NOT_FOUND)
    await client.activate("hourly")
    await client.active("hourly")
    await client.pause("hourly")
    await refused(client.verify("hourly"), errors.WRONG_STATE)
    assert "activate it" in await why(refresh(client, "hourly"))
    assert not (await client.get("hourly")).HasField("next_refresh_time")
