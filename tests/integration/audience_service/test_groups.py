"""Audiences of groups through the service: filled, refreshed, followed, paused, removed; people move their groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.answers import preview
from headrace_audience.filling import behind
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import DAY_US, HOUR_US, SECOND_US, format_time_us, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

ACTIVE_ACCOUNTS = (
    "trait plan = enterprise and any member (performed Login in last 7d) and no member (performed Cancelled)"
    " with of groups, refresh 1h"
)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine computing takes long, and resting ten times as long."""
    monkeypatch.setattr(behind, "REST", 1)


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


def group_call(profile_id: str, group_id: str, **fields: Any) -> ResolvedEvent:
    """A group call: somebody, or nobody, belongs to a group, and says what it is like."""
    found = event(profile_id, kind="group", **fields)
    found.event.group_id = group_id
    return found


async def refresh(client: AudienceClient, audience_id: str) -> None:
    await client.stub.RefreshAudience(pb.RefreshAudienceRequest(name=client.name(audience_id)))


async def refused(call: Any, reason: str, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
        await call
    assert errors.reason_of(caught.value) == reason


async def test_groups_follow_their_members_and_their_traits(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    old = now_us() - DAY_US
    await identity.store(
        [
            group_call("p1", "acme inc", at_us=old, traits={"plan": "enterprise"}),
            group_call("p2", "acme inc", at_us=old),
            group_call("p3", "tiny", at_us=old, traits={"plan": "free"}),
            event("p2", "Login", at_us=old),
            event("p3", "Login", at_us=old),
        ]
    )

    async def archived() -> bool:
        return bool(await db["archive_files"].count_documents({"live": True}))

    await eventually(archived)
    # Of nobody, and not in the archive yet.
    await identity.store([group_call("", "globex", traits={"plan": "enterprise"})])
    await client.create("accounts", ACTIVE_ACCOUNTS)
    await client.create("everybody", {"where": {"not": {"event": "Nothing"}}})
    for audience_id in ("accounts", "everybody"):
        await client.activate(audience_id)
        await client.active(audience_id)
    await client.has_members("accounts", ["acme inc"])
    await client.has_members("everybody", ["p1", "p2", "p3"])
    assert (await client.get("accounts")).size == 1

    await identity.resolve(group_call("p4", "globex"), event("p4", "Login"), event("p1", "Cancelled"))
    await refresh(client, "accounts")
    await client.has_members("accounts", ["globex"])
    changes = await client.changes(parent=client.name("accounts"))
    assert sorted((c.profile_id, c.version, c.member, c.cause) for c in changes) == [
        ("acme inc", 1, True, "fill"),
        ("acme inc", 2, False, "refresh"),
        ("globex", 1, True, "refresh"),
    ]

    # Merged people are one member: what one of them did counts for the groups of both.
    merge = identity.merge("p3", "p5")
    await identity.resolve(event("p5", "Cancelled", merges=[merge]))
    await client.create("left", "any member (performed Cancelled) with of groups, refresh 1h")
    await client.activate("left")
    await client.has_members("left", ["acme inc", "tiny"])


async def test_continuous_groups_follow_whatever_they_read(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    """Events, merges, time alone, other audiences; and nothing is computed while nothing happens."""
    await identity.store([group_call("p1", "acme inc", traits={"plan": "pro"}), group_call("p2", "globex")])
    await client.create("paying", {"kind": "static", "where": {"event": "Purchased"}})
    definitions = {
        "lately": "any member (performed Login in last 7d until 5s ago) with of groups, refresh continuous",
        "pro": "trait plan = pro and no member (performed Cancelled) with of groups",
        "paid": "any member (in audience paying) or in audience pro with of groups",
    }
    for audience_id, definition in definitions.items():
        await client.create(audience_id, definition)
        await client.activate(audience_id)
    await client.has_members("pro", ["acme inc"])
    await client.has_members("paid", ["acme inc"])

    login = event("p2", "Login")
    await identity.resolve(login)
    await client.has_members("lately", ["globex"])  # by time alone
    (entered,) = await client.changes(parent=client.name("lately"))
    assert (entered.member, entered.cause) == (True, "refresh")
    assert entered.effective_at_us >= login.event.timestamp_us + 5 * SECOND_US

    await identity.resolve(group_call("", "globex", traits={"plan": "pro"}), event("p9", "Cancelled"))
    await client.has_members("pro", ["acme inc", "globex"])
    await identity.resolve(event("p2", "Seen", merges=[identity.merge("p9", "p2")]))
    await client.has_members("pro", ["acme inc"])
    await client.has_members("paid", ["acme inc"])

    await identity.resolve(event("p2", "Purchased"))
    await client.activate("paying")
    await client.has_members("paid", ["acme inc", "globex"])
    await client.update("pro", "trait plan = free with of groups")
    await client.has_members("paid", ["globex"])
    for audience_id in definitions:
        assert (await client.get(audience_id)).HasField("refresh_time")
        assert not (await client.get(audience_id)).HasField("next_refresh_time")

    generations: list[int] = []

    async def is_quiet() -> bool:
        generations.append(sum([d["gen"] async for d in db["audiences"].find({"a": {"$in": [*definitions]}})]))
        await asyncio.sleep(1)
        return len(generations) > 3 and len(set(generations[-3:])) == 1

    await eventually(is_quiet)


async def test_continuous_groups_follow_what_happened_while_nobody_looked(
    db: Database, redis: streams.Redis, make_settings: MakeSettings
) -> None:
    identity = FakeIdentity(db, redis, QUICK["partitions"])
    await identity.store([group_call(f"p{n}", f"g{n}") for n in range(4)])
    async with serving_audience(make_settings(Settings, **QUICK)) as client:
        await client.create("all-groups", "all members (not performed Nothing) with of groups")
        await client.activate("all-groups")
        await client.has_members("all-groups", ["g0", "g1", "g2", "g3"])
    await identity.store([event("p0", "Nothing")])
    await redis.flushall()
    async with serving_audience(make_settings(Settings, **QUICK)) as client:
        await client.has_members("all-groups", ["g1", "g2", "g3"])
        await identity.store([event("p1", "Nothing")])
        await redis.flushall()  # what was sent is lost while somebody looks
        await client.has_members("all-groups", ["g2", "g3"])


async def test_why_a_group_is_in_or_out(client: AudienceClient, identity: FakeIdentity) -> None:
    old = now_us() - DAY_US
    said = group_call("p0", "acme inc", at_us=old, traits={"plan": "enterprise"})
    await identity.store([said, *(group_call(f"p{n:02}", "acme inc", at_us=old) for n in range(1, 15))])
    await identity.store([event(f"p{n:02}", "Login", at_us=old + n) for n in range(1, 3)])
    await client.create("accounts", ACTIVE_ACCOUNTS)

    async def explain(at_us: int = 0) -> Any:
        request = pb.ExplainMembershipRequest(name=client.name("accounts"), profile_id="acme inc", at_us=at_us)
        return await client.stub.ExplainMembership(request)

    draft = await explain()
    assert (draft.member, draft.stored_member, draft.HasField("refresh_time")) == (True, False, False)
    await client.activate("accounts")
    await client.active("accounts")
    found = await explain()
    audience = await client.get("accounts")
    assert (found.profile_id, found.member, found.stored_member) == ("acme inc", True, True)
    assert (found.refresh_time, found.next_refresh_time) == (audience.refresh_time, audience.next_refresh_time)
    refreshed_us, next_us = audience.refresh_time.ToMicroseconds(), audience.next_refresh_time.ToMicroseconds()
    late_us = old + 2 + 7 * DAY_US - next_us
    ends_us = next_us + -(-late_us // HOUR_US) * HOUR_US
    assert (found.changes_at_us, found.since_us) == (ends_us, refreshed_us)
    assert found.summary == (
        f"Stored: in, as of {format_time_us(refreshed_us)}; by the definition now: in."
        f" It is refreshed next at {format_time_us(next_us)}. As of then: "
        'In: The trait plan is "enterprise" (wanted: "enterprise").'
        " 2 of 15 members with performed Login in last 7d (one is enough)."
        " 0 of 15 members with performed Cancelled (none wanted)."
        ' To leave, a change of 1 condition is enough: Must no longer hold: trait plan = "enterprise".'
        f" By time alone it leaves at the refresh of {format_time_us(ends_us)}."
    )
    trait, logins, cancelled = found.condition.parts
    assert (trait.set_by.message_id, trait.set_by.timestamp_us) == (said.event.message_id, old)
    assert (logins.kind, logins.members, logins.members_holding) == ("members", 15, 2)
    assert list(logins.holding_profile_ids) == ["p01", "p02"]
    assert list(logins.lacking_profile_ids) == ["p0", *(f"p{n:02}" for n in range(3, 12))]
    assert (cancelled.holds, cancelled.members_holding, list(cancelled.holding_profile_ids)) == (True, 0, [])
    before = await explain(old - 1)
    assert (before.member, before.condition.parts[1].members) == (False, 0)
    wanted = "must hold: any member (performed Login in last 7d) (found: the group has no members (one is enough)"
    assert any(said.startswith(wanted) for said in before.missing)
    assert before.since_us == 0, "it is told of now"


async def test_groups_outlive_a_restart_and_leave_with_their_audience(
    db: Database, redis: streams.Redis, make_settings: MakeSettings
) -> None:
    identity = FakeIdentity(db, redis, QUICK["partitions"])
    await identity.store([group_call(f"p{n}", f"g{n}") for n in range(12)])
    groups = sorted(f"g{n}" for n in range(12))
    async with serving_audience(make_settings(Settings, **QUICK)) as client:
        await client.create("all-groups", "all members (not performed Nothing) with of groups, refresh 1h")
        await client.activate("all-groups")
        await client.has_members("all-groups", groups)
    async with serving_audience(make_settings(Settings, **QUICK)) as client:
        await identity.resolve(event("p0", "Nothing"))
        await refresh(client, "all-groups")
        await client.has_members("all-groups", groups[1:])
        await client.pause("all-groups")
        assert await client.members("all-groups") == groups[1:]
        await client.activate("all-groups")
        await client.active("all-groups")
        assert await client.members("all-groups") == groups[1:]
        assert len(await client.changes(parent=client.name("all-groups"))) == 13
        await client.delete("all-groups")

        async def left() -> bool:
            changes = await client.changes()
            return sum(not change.member for change in changes) == 12

        await eventually(left)


async def test_groups_are_counted_for_so_long_only(
    client: AudienceClient, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    await identity.store([group_call("p1", "g1"), event("p1", "Login")])
    monkeypatch.setattr(preview, "GROUPS_S", 0.0)
    definition = "any member (performed Login) with of groups"
    request = pb.PreviewAudienceRequest(parent=client.parent, definition=definition)
    await refused(client.stub.PreviewAudience(request), errors.LIMIT_EXCEEDED, "exact preview")
    request.exact = True
    assert (await client.stub.PreviewAudience(request)).size == 1


async def test_what_does_not_go_with_groups_is_refused(client: AudienceClient, identity: FakeIdentity) -> None:
    await identity.store([group_call("p1", "g1", traits={"plan": "pro"}), event("p1", "Login")])
    await client.create("people", {"where": {"event": "Login"}})
    await client.create("accounts", "trait plan = pro with of groups")
    wrong = {
        "in audience people with of groups": "is of people; here one of groups is needed",
        "in audience accounts": "is of groups; here one of people is needed",
        "any member (in audience accounts) with of groups": "is of groups; here one of people is needed",
        "performed Login with of groups": "is about people",
    }
    for text, error in wrong.items():
        await refused(client.create("wrong", text), errors.INVALID_ARGUMENT, error)
    await client.create("right", "any member (in audience people) and in audience accounts with of groups")
    await refused(client.update("accounts", "performed Login"), errors.INVALID_ARGUMENT, "cannot be changed")
    explain = pb.ExplainMembershipRequest(name=client.name("accounts"), profile_id="p1")
    await refused(client.stub.ExplainMembership(explain), errors.NOT_FOUND, "workspaces/acme/groups/p1")

    request = pb.PreviewAudienceRequest(parent=client.parent, definition="any member (performed Login) with of groups")
    answer = await client.stub.PreviewAudience(request)
    assert (answer.size, list(answer.sample_profile_ids)) == (1, ["g1"])
    for audience_id in ("people", "accounts", "right"):
        await client.activate(audience_id)
        await client.active(audience_id)
    await refresh(client, "right")
    await client.has_members("right", ["g1"])
