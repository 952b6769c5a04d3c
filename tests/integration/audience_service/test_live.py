"""One replica under live traffic: events, time, merges, filling, static and paused audiences, removal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from headrace_audience.filling import recording
from headrace_audience.settings import Settings
from headrace_audience.store import MEMBERSHIPS

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from tests.support.audience import COUNT, QUICK, AudienceClient, eventually, expected_members, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
TWICE = {"where": {"event": "Purchased", "count": {"gte": 2}}}
NEVER = {"where": {"not": {"event": "Purchased"}}}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, PARTITIONS)


def in_other_partition(profile_id: str) -> str:
    """Another profile, of another partition."""
    here = partition_of(profile_id, PARTITIONS)
    return next(f"q{i}" for i in range(100) if partition_of(f"q{i}", PARTITIONS) != here)


async def test_events_move_people_and_the_change_tells_why(
    client: AudienceClient, identity: FakeIdentity, redis: streams.Redis
) -> None:
    await client.start("buyers", COUNT)
    at = now_us()
    tp = "00-11111111111111111111111111111111-2222222222222222-00"
    await identity.resolve(event("p1", "Purchased", at_us=at, message_id="m1", traceparent=tp))
    await identity.resolve(event("p2", "Viewed"))
    await client.has_members("buyers", ["p1"])

    (change,) = await client.changes()
    assert (change.audience_id, change.profile_id, change.member, change.version) == ("buyers", "p1", True, 1)
    assert (change.effective_at_us, change.cause, change.message_id) == (at, "event", "m1")
    assert change.traceparent == tp, "without an exporter the event's own context is handed on"
    assert await client.changes(message_id="m1") == [change] and not await client.changes(message_id="m2")
    assert await client.changes(profile_id="p1", parent=client.name("buyers")) == [change]
    entries = await streams.read_from(redis, {names.CHANGES: "0"}, count=10, block_ms=1)
    batches = [MembershipChangeBatch.FromString(e.payload) for e in entries]
    assert [list(b.changes) for b in batches] == [[change]] and batches[0].workspace_id == "acme"
    assert (await client.get("buyers")).size == 1

    await identity.send(identity.stored)  # the same again
    await identity.resolve(event("p3", "Purchased"))
    await client.has_members("buyers", ["p1", "p3"])
    assert len(await client.changes(profile_id="p1")) == 1


async def test_changes_and_members_in_pages(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("buyers", COUNT)
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(7)))
    await client.has_members("buyers", [f"p{i}" for i in range(7)])
    request = pb.ListMembershipChangesRequest(parent=client.name("buyers"), page_size=3)
    seen: list[str] = []
    while True:
        page = await client.stub.ListMembershipChanges(request)
        seen += [c.profile_id for c in page.changes]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert sorted(seen) == [f"p{i}" for i in range(7)] and len(seen) == 7
    members = await client.stub.ListMembers(pb.ListMembersRequest(parent=client.name("buyers"), page_size=4))
    assert [m.profile_id for m in members.members] == ["p0", "p1", "p2", "p3"] and members.next_page_token
    assert all(m.version == 1 and m.since_us for m in members.members)


async def test_time_alone_moves_people(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("recent", {"where": {"event": "Viewed", "within": "1s"}})
    at = now_us()
    await identity.resolve(event("p1", "Viewed", at_us=at))
    await identity.resolve(event("p2", "Viewed", at_us=at + 2 * SECOND_US))  # of the future: counts from then on
    await client.has_members("recent", ["p1"])
    await client.has_members("recent", ["p2"])
    await client.has_members("recent", [])
    changes = await client.changes()
    assert [(c.profile_id, c.member, c.effective_at_us) for c in changes] == [
        ("p1", True, at),
        ("p1", False, at + SECOND_US),
        ("p2", True, at + 2 * SECOND_US),
        ("p2", False, at + 3 * SECOND_US),
    ]
    assert [c.cause for c in changes][1] == "time"


async def test_conditions_on_when_events_came_are_filled_and_then_kept(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    """From the archive, from what is not in it yet, and live; by events and by time alone."""
    at = now_us()
    old = at - 40 * DAY_US
    await identity.store([event("p1", "Purchased", at_us=old, properties={"value": 300})])
    await identity.store([event("p2", "Purchased", at_us=old, properties={"value": 500})])
    await identity.store(
        [event("p5", at_us=old, context={"campaign": {"source": "meta"}, "timezone": "Asia/Calcutta"})]
    )

    async def archived() -> bool:
        return bool(await db["archive_files"].count_documents({"live": True}))

    await eventually(archived)
    await identity.store([event("p1", "Purchased", at_us=at - 5, properties={"value": 250})])
    await identity.store([event("p3", traits={"consent": {"ads": True}})])
    await identity.store([event("p5", context={"campaign": {"source": "google"}, "device": {"type": "ios"}})])
    audiences = {
        "reached": "first touch campaign.source = meta and last touch country = IN and last touch platform != android",
        "spenders": "performed Purchased in last 60d sum(value) >= 500",
        "new": "first performed Purchased in last 7d",
        "back": "restarted Purchased inactive for 30d active within 7d",
        "left": "sequence (Viewed then not Purchased within 1s) in last 7d",
        "agreed": "consent ads = granted",
        "today": 'performed Purchased in last 1cd count >= 2 with time zone "Asia/Kolkata"',
    }
    for audience_id, definition in audiences.items():
        await client.create(audience_id, definition)
        await client.activate(audience_id)
    await client.has_members("spenders", ["p1", "p2"])
    await client.has_members("back", ["p1"])
    await client.has_members("agreed", ["p3"])
    await client.has_members("reached", ["p5"])
    viewed = now_us()
    await identity.resolve(event("p4", "Viewed", at_us=viewed), event("p4", "Purchased", at_us=viewed - 1))
    await identity.resolve(event("p3", traits={"consent": {"ads": False}}))
    await identity.resolve(event("p5", context={"device": {"type": "android"}}))
    await client.has_members("reached", [])
    await client.has_members("new", ["p4"])
    await client.has_members("agreed", [])
    await client.has_members("left", ["p4"])
    (change,) = await client.changes(parent=client.name("left"))
    assert (change.effective_at_us, change.cause) == (viewed + SECOND_US, "time")
    for audience_id in audiences:
        answer = await client.verify(audience_id)
        assert not answer.mismatched_profile_ids and answer.live_size == answer.batch_size, audience_id


async def test_audiences_are_filled_from_archive_and_log(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    old = now_us() - 40 * DAY_US
    await identity.store([event(f"p{i}", "Purchased", at_us=old + i) for i in range(10)])

    async def archived() -> bool:
        head = await db["archive_files"].find_one({"_id": "head"})
        return bool(head and await db["archive_files"].count_documents({"live": True}))

    await eventually(archived)
    await identity.store([event("p20", "Purchased"), event("p21", "Viewed")])
    await client.start("buyers", COUNT)
    await client.start("never", NEVER)
    await client.start("lately", {"where": {"event": "Purchased", "within": "30d"}})
    await client.has_members("buyers", [*(f"p{i}" for i in range(10)), "p20"])
    await client.has_members("never", ["p21"])
    await client.has_members("lately", ["p20"])
    assert {c.cause for c in await client.changes()} == {"fill"}


async def test_filling_while_traffic_flows(client: AudienceClient, identity: FakeIdentity) -> None:
    """Every event is before, in, or after the view from which the audience is filled, and counts exactly once."""
    await identity.resolve(*(event(f"p{i % 20}", "Purchased") for i in range(30)))
    flowing = True

    async def traffic() -> None:
        turn = 0
        while flowing:
            turn += 1
            await identity.resolve(*(event(f"p{(turn * 7 + i) % 60}", "Purchased") for i in range(3)))
            await asyncio.sleep(0.005)

    task = asyncio.create_task(traffic())
    try:
        await client.start("twice", TWICE)
        await client.start("never", NEVER)
        await client.update("twice", {"where": {"event": "Purchased", "count": {"gte": 3}}})
        await client.active("twice")
    finally:
        flowing = False
        await task
    thrice: dict[str, Any] = {"where": {"event": "Purchased", "count": {"gte": 3}}}
    for audience_id, definition in (("twice", thrice), ("never", NEVER)):
        await client.has_members(audience_id, expected_members(identity.stored, identity.into, definition, now_us()))
        verified = await client.verify(audience_id)
        assert list(verified.mismatched_profile_ids) == [] and verified.live_size == verified.batch_size


async def test_merge_completes_the_survivor_and_removes_the_loser(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    winner, loser = "p1", in_other_partition("p1")
    await client.start("twice", TWICE)
    await client.start("buyers", COUNT)
    await client.start("never", NEVER)
    await identity.resolve(event(winner, "Purchased"), event(loser, "Purchased"))
    await client.has_members("buyers", [winner, loser])

    await identity.resolve(event(winner, "Viewed", message_id="m", merges=[identity.merge(loser, winner)]))
    await client.has_members("twice", [winner])
    await client.has_members("buyers", [winner])
    left = (await client.changes(profile_id=loser, parent=client.name("buyers")))[-1]
    assert (left.member, left.cause, left.merged_into) == (False, "merge", winner)
    entered = (await client.changes(profile_id=winner, parent=client.name("twice")))[-1]
    assert entered.cause == "merge"
    await client.has_members("never", [])


async def test_merge_races(client: AudienceClient, identity: FakeIdentity, db: Database) -> None:
    """Stragglers of a loser: each is counted for the survivor once, whichever way it goes."""
    winner, loser = "p1", in_other_partition("p1")
    await client.start("five", {"where": {"event": "Purchased", "count": {"gte": 5}}})
    await client.start("buyers", COUNT)
    await identity.resolve(event(loser, "Purchased"))
    await client.has_members("buyers", [loser])

    # 1: resolved to the loser before the merge, sent after it: the stream's straggler is dropped, the log has it.
    straggler = event(loser, "Purchased")
    await identity.store([straggler])
    merging = event(winner, "Purchased", merges=[identity.merge(loser, winner)])
    await identity.resolve(merging)
    await client.has_members("buyers", [winner])
    sent = ResolvedEvent()
    sent.CopyFrom(straggler)  # as identity sends it when it looked for merges just before this one was committed
    batch = pb_batch(sent)
    await identity.redis.xadd(names.resolved(partition_of(loser, PARTITIONS)), {b"b": batch})
    # 2: resolved to the loser, but committed after the merge: identity sees the merge and sends it to the survivor.
    await identity.resolve(event(loser, "Purchased"))
    await client.has_members("five", [])
    await identity.resolve(event(winner, "Purchased"))
    await client.has_members("five", [winner])
    assert await client.members("buyers") == [winner]
    # 3: the merge is announced again, by a redelivery.
    await identity.send([merging])
    await identity.resolve(event("p9", "Purchased"))
    await client.has_members("buyers", sorted([winner, "p9"]))
    assert [c.member for c in await client.changes(profile_id=loser)] == [True, False]


def pb_batch(resolved: ResolvedEvent) -> bytes:
    from headrace.api.identity.v1.profile_pb2 import ResolvedBatch

    return ResolvedBatch(workspace_id=resolved.event.workspace_id, events=[resolved]).SerializeToString()


async def test_chains_of_merges_in_any_order_of_streams(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("three", {"where": {"event": "Purchased", "count": {"gte": 3}}})
    chains = [(f"a{i}", f"b{i}", f"c{i}") for i in range(8)]  # over all partitions
    await identity.resolve(*(event(p, "Purchased") for chain in chains for p in chain))
    merging = []
    for first, second, third in chains:
        merging.append(event(second, "Viewed", merges=[identity.merge(first, second)]))
        merging.append(event(third, "Viewed", merges=[identity.merge(second, third)]))
    await identity.store(merging)
    await identity.send(list(reversed(merging)))
    await client.has_members("three", [third for _, _, third in chains])
    assert list((await client.verify("three")).mismatched_profile_ids) == []


async def test_static_audiences_are_computed_once(client: AudienceClient, identity: FakeIdentity) -> None:
    winner, loser = "p1", in_other_partition("p1")
    static: dict[str, Any] = {"kind": "static", **COUNT}
    await identity.resolve(event(loser, "Purchased"), event("p5", "Purchased"), event(winner, "Viewed"))
    await client.start("static", static)
    await client.has_members("static", [loser, "p5"])
    await client.create("in-static", {"where": {"all": [{"audience": "static"}, {"event": "Viewed"}]}})
    await client.activate("in-static")

    await identity.resolve(event("p6", "Purchased"), event("p5", "Viewed"))
    await client.has_members("in-static", ["p5"])
    assert await client.members("static") == sorted([loser, "p5"]), "never refreshed"
    # A person stays in it over a merge.
    await identity.resolve(event(winner, "Viewed", merges=[identity.merge(loser, winner)]))
    await client.has_members("static", [winner, "p5"])
    await client.has_members("in-static", [winner, "p5"])
    # What came since may make it differ with right.
    assert (await client.verify("static")).mismatch_count == 0
    await client.pause("static")
    await client.activate("static")
    await client.active("static")
    assert await client.members("static") == sorted([winner, "p5"]), "activated again it has whom it had"
    await identity.resolve(event("p7", "Viewed", merges=[identity.merge("p5", "p7")]))
    await client.has_members("static", [winner, "p7"])
    await client.delete("in-static")
    await client.stub.ArchiveAudience(pb.ArchiveAudienceRequest(name=client.name("static")))
    await client.has_members("static", [])
    await client.activate("static")  # computed anew
    await client.active("static")
    await client.has_members("static", [winner, "p6", "p7"])


async def test_a_static_audience_waits_for_those_that_it_names(client: AudienceClient, identity: FakeIdentity) -> None:
    """It is computed once, from their members: these must all be there, directly or through another."""
    buyers = [f"p{i}" for i in range(12)]
    await identity.resolve(*(event(p, "Purchased") for p in buyers))
    await client.create("last", {"kind": "static", "where": {"event": "Purchased"}})
    await client.create("between", {"where": {"audience": "last"}})
    await client.create("direct", {"kind": "static", "where": {"audience": "last"}})
    await client.create("first", {"refresh": "1h", "where": {"audience": "between"}})
    for audience_id in ("last", "between", "direct", "first"):
        await client.activate(audience_id)
    for audience_id in ("direct", "first", "between"):
        await client.active(audience_id)
        await client.has_members(audience_id, buyers)


async def test_paused_audiences_stay_and_catch_up(client: AudienceClient, identity: FakeIdentity) -> None:
    await client.start("buyers", COUNT)
    await client.start("control", COUNT)
    await identity.resolve(event("p1", "Purchased"))
    await client.has_members("buyers", ["p1"])
    await client.pause("buyers")
    await asyncio.sleep(0.3)  # a change of state is followed within a moment
    await identity.resolve(event("p2", "Purchased"))
    await client.has_members("control", ["p1", "p2"])
    assert await client.members("buyers") == ["p1"]
    await client.activate("buyers")
    await client.active("buyers")
    await client.has_members("buyers", ["p1", "p2"])
    assert len(await client.changes(parent=client.name("buyers"), profile_id="p1")) == 1, "who stayed in did not move"


async def test_a_new_definition_is_filled_and_reports_the_difference(
    client: AudienceClient, identity: FakeIdentity
) -> None:
    await client.start("target", COUNT)
    await client.start("dependent", {"where": {"audience": "target"}})
    await identity.resolve(event("p1", "Purchased"), event("p2", "Viewed"), event("p3", "Purchased"))
    await identity.resolve(event("p3", "Viewed"))
    await client.has_members("target", ["p1", "p3"])
    await client.has_members("dependent", ["p1", "p3"])
    await client.update("target", {"where": {"event": "Viewed"}})
    await client.has_members("target", ["p2", "p3"])
    await client.has_members("dependent", ["p2", "p3"])
    await client.active("target")
    changed = [c for c in await client.changes(parent=client.name("target")) if c.cause == "definition"]
    assert sorted((c.profile_id, c.member) for c in changed) == [("p1", False), ("p2", True)]


@pytest.mark.parametrize("at_a_time", [1, 5_000], ids=["row by row", "at once"])
async def test_members_of_a_removed_audience_leave(
    client: AudienceClient, identity: FakeIdentity, db: Database, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(recording, "ROWS_AT_A_TIME", at_a_time)
    await client.start("buyers", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p2", "Purchased"))
    await client.has_members("buyers", ["p1", "p2"])
    await client.delete("buyers")

    async def gone() -> bool:
        document = await db["audiences"].find_one({"a": "buyers"})
        return document is not None and document["state"] == "DELETED"

    await eventually(gone)
    assert await db[MEMBERSHIPS].count_documents({}) == 0
    left = [c for c in await client.changes() if not c.member]
    assert sorted((c.profile_id, c.version, c.cause) for c in left) == [
        ("p1", 2, "definition"),
        ("p2", 2, "definition"),
    ]
    await client.start("buyers", COUNT)
    await client.has_members("buyers", ["p1", "p2"])
    assert {c.version for c in (await client.changes())[-2:]} == {3}, "versions go on"


async def test_preview(client: AudienceClient, identity: FakeIdentity) -> None:
    await identity.store([event(f"p{i}", "Purchased", properties={"value": i}) for i in range(30)])
    await client.start("buyers", COUNT)
    valuable = {"event": "Purchased", "where": [{"property": "value", "gte": 10}]}
    definition = json.dumps({"where": {"all": [{"audience": "buyers"}, valuable]}})
    request = pb.PreviewAudienceRequest(parent=client.parent, definition=definition, sample_size=5)
    found = await client.stub.PreviewAudience(request)
    assert found.size == 20 and len(set(found.sample_profile_ids)) == 5 and found.evaluate_time.seconds
    assert all(int(p[1:]) >= 10 for p in found.sample_profile_ids)
    other = pb.PreviewAudienceRequest(parent="workspaces/other", definition='{"where": {"event": "Purchased"}}')
    assert (await client.stub.PreviewAudience(other)).size == 0


async def test_verify_finds_what_is_wrong(client: AudienceClient, identity: FakeIdentity, db: Database) -> None:
    await client.start("buyers", COUNT)
    await identity.resolve(*(event(f"p{i}", "Purchased") for i in range(5)))
    await client.has_members("buyers", [f"p{i}" for i in range(5)])
    right = await client.verify("buyers")
    assert (right.live_size, right.batch_size, list(right.mismatched_profile_ids)) == (5, 5, [])
    await db[MEMBERSHIPS].update_one({"p": "p1"}, {"$set": {"in": False}})
    wrong = await client.verify("buyers")
    assert (wrong.live_size, wrong.batch_size, list(wrong.mismatched_profile_ids)) == (4, 5, ["p1"])


async def test_workspaces_do_not_see_each_other(client: AudienceClient, identity: FakeIdentity) -> None:
    other = AudienceClient(client.stub, "other")
    await client.start("buyers", COUNT)
    await other.start("buyers", COUNT)
    await identity.resolve(event("p1", "Purchased"), event("p1", "Viewed", workspace_id="other"))
    await identity.resolve(event("p2", "Purchased", workspace_id="other"))
    await client.has_members("buyers", ["p1"])
    await other.has_members("buyers", ["p2"])


async def test_an_entry_that_cannot_be_read_is_made_good_from_the_log(
    client: AudienceClient, identity: FakeIdentity, db: Database
) -> None:
    await client.start("buyers", COUNT)
    await identity.store([event("p1", "Purchased")])
    await identity.redis.xadd(names.resolved(partition_of("p1", PARTITIONS)), {b"b": b"\xff\xff broken"})
    await client.has_members("buyers", ["p1"])
    assert await db[log.EVENTS].count_documents({}) == 1
