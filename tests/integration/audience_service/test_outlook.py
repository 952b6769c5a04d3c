"""The audiences of a profile on real stores: with the live state at hand, and without it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from headrace_audience import worker as worker_module
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.domain.times import HOUR_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

LATELY = {"where": {"event": "Purchased", "within": "1h"}}
EVER = {"where": {"event": "Purchased"}}
FIRST_HALF = {"where": {"all": [{"audience": "lately"}, {"event": "Purchased", "within": "30m"}]}}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


async def test_a_profile_s_audiences_and_when_each_ends(
    client: AudienceClient, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    for audience_id, definition in (("lately", LATELY), ("ever", EVER), ("half", FIRST_HALF), ("paused", LATELY)):
        await client.start(audience_id, definition)
    at = now_us()
    await identity.resolve(event("p2", "Purchased", at_us=at - HOUR_US // 4), event("q", "Purchased", at_us=at))
    await identity.resolve(event("p1", "Viewed", at_us=at - HOUR_US))
    merge = identity.merge("p2", "p1")
    await identity.resolve(event("p1", "Viewed", at_us=at, merges=[merge]))
    await client.has_members("lately", ["p1", "q"])
    await client.has_members("half", ["p1", "q"])
    await client.has_members("paused", ["p1", "q"])
    await client.pause("paused")

    async def listed(profile_id: str, parts: tuple[str, ...] = ()) -> list[tuple[str, str, int]]:
        request = pb.ListProfileAudiencesRequest(parent=client.parent, profile_id=profile_id, parts=parts)
        answer = await client.stub.ListProfileAudiences(request)
        assert all(one.since_us > 0 for one in answer.audiences)
        return [(one.audience, one.display_name, one.leaves_at_us) for one in answer.audiences]

    first = at - HOUR_US // 4
    ends = (("ever", 0), ("half", first + HOUR_US // 2), ("lately", first + HOUR_US), ("paused", 0))
    expected = [(client.name(a), (await client.get(a)).display_name, end) for a, end in ends]

    async def is_known() -> bool:
        return await listed("p1") == expected

    await eventually(is_known, lambda: "the live state does not say when memberships end")
    assert await listed("p2") == [], "it was merged into another"
    assert await listed("nobody") == []
    # Another replica keeps the partition: the log says the same, with the parts or without.
    monkeypatch.setattr(worker_module.Worker, "live", lambda *_: None)
    assert await listed("p1") == expected
    assert await listed("p1", ("p1", "p2")) == expected
    assert {a: end for a, _, end in await listed("p1", ("p1",))}[client.name("lately")] == 0


async def test_wrong_calls_are_refused(client: AudienceClient) -> None:
    for request, field in (
        (pb.ListProfileAudiencesRequest(parent=client.parent), "profile_id"),
        (pb.ListProfileAudiencesRequest(parent=client.parent, profile_id="p", parts=["p"] * 1_001), "parts"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.ListProfileAudiences(request)
        assert errors.field_violations(caught.value)[0][0] == field
    elsewhere = pb.ListProfileAudiencesRequest(parent="workspaces/other", profile_id="p")
    assert not (await client.stub.ListProfileAudiences(elsewhere)).audiences
