"""Explanations of audiences that do not follow events: what is stored, as of when, and no end by time alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import (
    AUDIENCE_STATE_ACTIVE,
    AUDIENCE_STATE_ARCHIVED,
    AUDIENCE_STATE_PAUSED,
)
from headrace.domain.times import DAY_US, HOUR_US, MINUTE_US, format_time_us, now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.audience import QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

BOUGHT = "performed Purchased in last 30d"


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


async def explain(
    client: AudienceClient, audience_id: str, member: str, at_us: int = 0
) -> pb.ExplainMembershipResponse:
    request = pb.ExplainMembershipRequest(name=client.name(audience_id), profile_id=member, at_us=at_us)
    found: pb.ExplainMembershipResponse = await client.stub.ExplainMembership(request)
    return found


async def start(client: AudienceClient, audience_id: str, definition: str) -> None:
    await client.create(audience_id, definition)
    await client.activate(audience_id)
    await client.active(audience_id)


async def bought_since(client: AudienceClient, identity: FakeIdentity) -> str:
    """Somebody who bought something after the service had come to know of the pause."""
    for number in range(100):
        await identity.resolve(event(f"new{number}", "Purchased"))

        async def is_seen(profile_id: str = f"new{number}") -> bool:
            return profile_id in await client.members("witness")

        await eventually(is_seen)
        if f"new{number}" not in await client.members("paused"):
            return f"new{number}"
    raise AssertionError("the audience is not paused")


async def test_members_that_stay_are_explained_as_of_when_they_are(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await identity.resolve(event("old", "Purchased", at_us=now_us() - DAY_US))
    for audience_id, definition in {
        "witness": BOUGHT,
        "frozen": f"{BOUGHT} with kind static",
        "hourly": f"{BOUGHT} with refresh 1h",
        "paused": BOUGHT,
    }.items():
        await start(client, audience_id, definition)
        await client.has_members(audience_id, ["old"])
    await client.pause("paused")
    new = await bought_since(client, identity)

    for audience_id, why, state in (
        ("frozen", "It is static: computed once, its members stay as they are.", AUDIENCE_STATE_ACTIVE),
        ("hourly", "It is refreshed next at ", AUDIENCE_STATE_ACTIVE),
        ("paused", "It is paused: its members stay as they are.", AUDIENCE_STATE_PAUSED),
    ):
        found = await explain(client, audience_id, new)
        as_of_us = found.refresh_time.ToMicroseconds()
        assert (found.member, found.stored_member, found.member_now) == (False, False, True), audience_id
        assert (found.at_us, found.state, found.since_us) == (as_of_us, state, 0)
        begins = f"Stored: out, as of {format_time_us(as_of_us)}; by the definition now: in. {why}"
        assert found.summary.startswith(begins)
        assert "As of then: Out: No Purchased in the last 30 days." in found.summary
        assert not found.condition.changes_at_us
        member = await explain(client, audience_id, "old")
        assert (member.member, member.stored_member, member.member_now) == (True, True, True)
        if audience_id == "hourly":
            assert 0 <= member.changes_at_us - member.at_us - 29 * DAY_US <= HOUR_US + MINUTE_US
            assert f"By time alone it leaves at the refresh of {format_time_us(member.changes_at_us)}" in member.summary
        else:
            assert member.changes_at_us == 0 and "ime alone" not in member.summary
        asked = pb.ListProfileAudiencesRequest(parent=client.parent, profile_id="old")
        ends = {a.display_name: a.leaves_at_us for a in (await client.stub.ListProfileAudiences(asked)).audiences}
        assert ends[audience_id] == 0, "both answers say the same"

    hourly = await explain(client, "hourly", new)
    audience = await client.get("hourly")
    assert hourly.refresh_time == audience.refresh_time and hourly.next_refresh_time == audience.next_refresh_time
    assert hourly.changes_at_us == audience.next_refresh_time.ToMicroseconds()
    again = format_time_us(hourly.changes_at_us)
    assert hourly.summary.endswith(f" By time alone it enters at the refresh of {again}.")
    now = await explain(client, "hourly", new, now_us())
    assert (now.member, now.stored_member, now.changes_at_us) == (True, False, 0)
    assert f"At {format_time_us(now.at_us)} by the definition: In: 1 Purchased" in now.summary

    live = await explain(client, "witness", new)
    assert (live.member, live.stored_member, live.member_now) == (True, True, True)
    assert not live.HasField("refresh_time") and "By time alone it leaves at" in live.summary


async def test_members_until_a_new_version_takes_their_place(client: AudienceClient, identity: FakeIdentity) -> None:
    await identity.resolve(*(event(f"p{n}", "Purchased") for n in range(4)))
    await start(client, "edited", BOUGHT)
    await client.pause("edited")
    paused = await explain(client, "edited", "p0")
    await client.update("edited", "performed Purchased in last 60d")
    assert paused.HasField("refresh_time")
    assert (await explain(client, "edited", "p0")).refresh_time == paused.refresh_time
    assert paused.at_us > now_us() - HOUR_US


async def test_nobody_is_in_what_is_put_away(client: AudienceClient, identity: FakeIdentity) -> None:
    await identity.resolve(event("old", "Purchased"))
    await start(client, "gone", BOUGHT)
    await client.has_members("gone", ["old"])
    await client.stub.ArchiveAudience(pb.ArchiveAudienceRequest(name=client.name("gone")))
    await client.has_members("gone", [])
    found = await explain(client, "gone", "old")
    assert (found.state, found.stored_member, found.member_now) == (AUDIENCE_STATE_ARCHIVED, False, True)
    assert found.summary.startswith(
        "Stored: out; by the definition now: in. It is archived: nobody is in it before it is activated."
        " By the definition: In: "
    )


async def test_groups_that_stay_are_explained_as_of_when_they_are(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    belongs = event("p1", kind="group")
    belongs.event.group_id = "acme inc"
    await identity.resolve(belongs)
    await start(client, "frozen", "any member (performed Login in last 7d) with of groups, kind static")
    await start(client, "live", "any member (performed Login in last 7d) with of groups")
    await identity.resolve(event("p1", "Login"))
    await client.has_members("live", ["acme inc"])
    found = await explain(client, "frozen", "acme inc")
    assert (found.member, found.stored_member, found.member_now, found.changes_at_us) == (False, False, True, 0)
    assert found.summary.startswith(f"Stored: out, as of {format_time_us(found.at_us)}; by the definition now: in.")
    assert "ime alone" not in found.summary

    async def follows() -> bool:
        return (await explain(client, "live", "acme inc")).member

    await eventually(follows)
