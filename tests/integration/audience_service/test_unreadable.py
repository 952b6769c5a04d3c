"""A stored definition that cannot be read, as after a return to an older program: everything else goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import AUDIENCE_STATE_ACTIVE, AUDIENCE_STATE_UNREADABLE
from headrace.domain.times import now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

NEWER = {"where": {"any": [{"event": "Purchased"}, {"all": [{"audience": "needed"}, {"telepathy": "strong"}]}]}}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


async def refused(call: Any, reason: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert errors.reason_of(caught.value) == reason, caught.value.details()
    return caught.value.details() or ""


async def test_an_unreadable_definition_holds_up_nothing_else(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    await client.create("needed", COUNT)
    await client.start("strange", COUNT)
    await client.start("reader", {"where": {"audience": "strange"}})
    await client.start("other", COUNT)
    await identity.resolve(event("p1", "Purchased"))
    await client.has_members("reader", ["p1"])
    written = {"def": json.dumps(NEWER), "updated": now_us()}
    await db[AUDIENCES].update_one({"a": "strange"}, {"$set": written})

    strange = await client.get("strange")
    assert strange.state == AUDIENCE_STATE_UNREADABLE
    assert "where.any[1].all[1]" in strange.warnings[0]
    listed = (await client.stub.ListAudiences(pb.ListAudiencesRequest(parent=client.parent))).audiences
    states = {found.name.rpartition("/")[2]: found.state for found in listed}
    assert states["strange"] == AUDIENCE_STATE_UNREADABLE
    assert states["other"] == AUDIENCE_STATE_ACTIVE

    # Its members stay, also for who names it, while others follow what happens and can be changed.
    await client.start("newer", {"where": {"all": [{"audience": "strange"}, {"not": {"event": "Viewed"}}]}})
    await identity.resolve(event("p2", "Purchased"))
    await client.has_members("other", ["p1", "p2"])
    for audience_id in ("strange", "reader", "newer"):
        assert await client.members(audience_id) == ["p1"], audience_id
    preview = pb.PreviewAudienceRequest(parent=client.parent, definition="in audience strange")
    assert (await client.stub.PreviewAudience(preview)).size == 1
    await client.update("other", {"where": {"event": ["Purchased", "Viewed"]}})
    await client.delete("newer")
    # What it names, and that it is named, is known all the same.
    assert "strange" in await refused(client.delete("needed"), errors.IN_USE)
    assert "reader" in await refused(client.delete("strange"), errors.IN_USE)
    circle = {"where": {"audience": "strange"}}
    assert "circle" in await refused(client.update("needed", circle), errors.INVALID_ARGUMENT)
    explain = pb.ExplainMembershipRequest(name=client.name("strange"), profile_id="p1")
    for call in (client.verify("strange"), client.stub.ExplainMembership(explain)):
        assert "cannot be read by this version" in await refused(call, errors.WRONG_STATE)

    # Another definition mends it: compared with the members that it has, as that of any other.
    await client.update("strange", COUNT)

    async def is_mended() -> bool:
        return (await client.get("strange")).state == AUDIENCE_STATE_ACTIVE

    await eventually(is_mended)
    for audience_id in ("strange", "reader"):
        await client.has_members(audience_id, ["p1", "p2"])
