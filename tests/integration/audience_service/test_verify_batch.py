"""Audiences whose members are computed for a moment are compared as of that moment, and made right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.settings import Settings
from headrace_audience.store import MEMBERSHIPS

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

MARGIN_S = 0.5
GROUPS: dict[str, Any] = {"of": "groups", "refresh": "1h", "where": {"members": "any", "where": {"event": "Purchased"}}}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK | {"archive_margin_seconds": MARGIN_S})) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


def of_group(profile_id: str, group_id: str) -> ResolvedEvent:
    found = event(profile_id, kind="group")
    found.event.group_id = group_id
    return found


async def test_batch_audiences_are_compared_and_repaired(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    people = [f"p{i}" for i in range(4)]
    await identity.store([event(p, "Purchased") for p in people] + [of_group(p, f"g{p}") for p in people])
    await asyncio.sleep(MARGIN_S)  # what is accepted so shortly before is not told from what came late
    definitions = {"static": {"kind": "static", **COUNT}, "hourly": {"refresh": "1h", **COUNT}, "accounts": GROUPS}
    members = {"static": people, "hourly": people, "accounts": [f"g{p}" for p in people]}
    for audience_id, definition in definitions.items():
        await client.start(audience_id, definition)
        await client.has_members(audience_id, members[audience_id])
        before = await client.get(audience_id)
        # One row is lost, and one is there that nothing says; the memory of the replica is right.
        lost, wrong = members[audience_id][0], f"{members[audience_id][0]}x"
        await db[MEMBERSHIPS].update_one({"a": audience_id, "p": lost}, {"$set": {"in": False}})
        row = await db[MEMBERSHIPS].find_one({"a": audience_id, "p": members[audience_id][1]})
        assert row is not None
        made_up = {
            **row,
            "_id": row["_id"].replace(row["p"], wrong),
            "p": wrong,
            "q": partition_of(wrong, QUICK["partitions"]),
        }
        await db[MEMBERSHIPS].insert_one(made_up)
        found = await client.verify(audience_id)
        assert list(found.mismatched_profile_ids) == [lost, wrong], audience_id
        assert (found.live_size, found.batch_size, found.corrected_count) == (4, 4, 0)
        assert found.evaluate_time == before.refresh_time
        repaired = await client.verify(audience_id, repair=True)
        assert (repaired.mismatch_count, repaired.corrected_count, repaired.unanswered_count) == (2, 2, 0)
        assert await client.members(audience_id) == members[audience_id]
        assert (await client.get(audience_id)).refresh_time == before.refresh_time
        changes = await client.changes(parent=client.name(audience_id))
        assert {(c.profile_id, c.member) for c in changes if c.cause == "repair"} == {(lost, True), (wrong, False)}
        assert (await client.verify(audience_id)).mismatch_count == 0


async def test_what_came_late_is_no_mismatch(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("static", {"kind": "static", **COUNT})
    await client.start("live", COUNT)
    await identity.resolve(event("p1", "Purchased", at_us=now_us() - DAY_US))
    await client.has_members("live", ["p1"])
    found = await client.verify("static")
    assert (found.mismatch_count, found.live_size, found.batch_size) == (0, 1, 1)
    assert await client.members("static") == []


async def test_who_goes_by_stored_members_of_others_is_refused(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("static", {"kind": "static", **COUNT})
    await client.start("reader", {"kind": "static", "where": {"not": {"audience": "static"}}})
    with pytest.raises(grpc.aio.AioRpcError, match="goes by its stored members") as caught:
        await client.verify("reader")
    assert errors.reason_of(caught.value) == errors.WRONG_STATE
