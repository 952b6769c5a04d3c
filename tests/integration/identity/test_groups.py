"""Groups on real stores: what micro-batches write, hot groups, merges, the service over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import msgspec
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.groups import erasure as group_erasure
from headrace_identity.groups.fold import GroupFold
from headrace_identity.groups.store import GroupReader
from headrace_identity.people.profiles import Profiles
from headrace_identity.settings import Settings
from headrace_identity.store import GROUP_MEMBERS, GROUP_TRAITS, GROUPS
from headrace_identity.worker import Incoming, Worker
from headrace_identity.workspaces import Workspaces

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1 import group_service_pb2 as pb
from headrace.api.identity.v1.group_service_pb2_grpc import GroupServiceStub
from headrace.domain.ids import profile_id
from headrace.rpc import errors
from headrace.rpc.channel import connect
from headrace.storage.mongo.client import Database, transaction
from headrace.storage.mongo.log import delete_events, events_of_profiles
from tests.support.identity import WORKSPACE, event
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"


def in_group(
    message_id: str,
    *identifiers: tuple[str, str],
    group: str = "acme",
    traits: Mapping[str, object] | None = None,
    day: float = 0,
    workspace_id: str = WORKSPACE,
) -> Event:
    """A group call when it has traits, else a track that names the group."""
    made = event(message_id, *identifiers, day=day, workspace_id=workspace_id)
    made.group_id = group
    if traits is not None:
        made.kind = EventKind.EVENT_KIND_GROUP
        made.traits = msgspec.json.encode(traits)
    return made


async def resolve(db: Database, *events: Event, worker: Worker | None = None) -> None:
    workspace_id = events[0].workspace_id
    await (worker or Worker(db)).process(workspace_id, [Incoming(e, "s1", i) for i, e in enumerate(events)])


async def test_a_group_its_people_and_its_traits(db: Database, make_settings: MakeSettings) -> None:
    await resolve(
        db,
        in_group("m1", ("user_id", "u1"), traits={"plan": "free", "email": "office@acme.example"}),
        in_group("m2", ("anonymous_id", "x2"), day=1),
        in_group("m3", ("user_id", "null"), traits={"plan": "pro"}, day=2),
        in_group("m4", ("user_id", "u1"), group="acme inc", day=3),
        event("m5", ("user_id", "u3"), day=4),
    )
    # Two people of the group turn out to be one; the loser's membership was the earlier one.
    await resolve(db, in_group("m6", ("email", "a@b.example"), day=0.5))
    await resolve(db, event("m7", ("email", "a@b.example"), ("anonymous_id", "x2"), day=5))
    settings = make_settings(Settings, event_partitions=4)
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        stub: Any = GroupServiceStub(channel)
        group = (await stub.GetGroup(pb.GetGroupRequest(parent=PARENT, group_id="acme"))).group
        assert {t.name: (t.value, t.message_id) for t in group.traits} == {
            "plan": (b'"pro"', "m3"),
            "email": (b'"office@acme.example"', "m1"),
        }
        assert (group.parent, group.group_id, group.member_count) == (PARENT, "acme", 2)
        members = await stub.ListGroupMembers(pb.ListGroupMembersRequest(parent=PARENT, group_id="acme"))
        merged = profile_id(WORKSPACE, "m2")
        assert {p.name.rpartition("/")[2] for p in members.profiles} == {profile_id(WORKSPACE, "m1"), merged}
        (person,) = [p for p in members.profiles if p.name.endswith(merged)]
        assert [(g.group_id, g.message_id, g.source_id) for g in person.groups] == [("acme", "m6", "web")]
        listed = await stub.ListGroups(pb.ListGroupsRequest(parent=PARENT))
        assert [g.group_id for g in listed.groups] == ["acme", "acme inc"]
        assert listed.groups[0].create_time == group.create_time
        timeline = await stub.ListGroupEvents(pb.ListGroupEventsRequest(parent=PARENT, group_id="acme"))
        assert [e.event.message_id for e in timeline.events] == ["m3", "m2", "m6", "m1"]
        assert [e.profile_id for e in timeline.events] == ["", merged, merged, profile_id(WORKSPACE, "m1")]
        for name, request in (
            ("GetGroup", pb.GetGroupRequest(parent=PARENT, group_id="nobody")),
            ("ListGroupMembers", pb.ListGroupMembersRequest(parent="workspaces/other", group_id="acme")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(stub, name)(request)
            assert errors.reason_of(caught.value) == errors.NOT_FOUND


async def test_every_page_size_lists_everything_once(db: Database, make_settings: MakeSettings) -> None:
    for n in range(7):
        group = f"g{n % 3}" if n < 5 else "g%"
        await resolve(db, in_group(f"m{n}", ("user_id", f"u{n}"), group=group, traits={"n": n}, day=n // 2))
    for n in range(5):  # five people of one group, two of them one
        await resolve(db, in_group(f"b{n}", ("anonymous_id", f"a{n}"), group="big", day=n // 3))
    await resolve(db, event("join", ("anonymous_id", "a1"), ("anonymous_id", "a4"), day=9))
    await resolve(db, in_group("elsewhere", ("user_id", "u"), group="big", workspace_id="other"))
    settings = make_settings(Settings, event_partitions=4)

    async def pages(method: Any, request: Any, field: str, size: int) -> list[Any]:
        found: list[Any] = []
        request.page_size = size
        while True:
            answer = await method(request)
            found += getattr(answer, field)
            assert len(getattr(answer, field)) <= size
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found

    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        stub: Any = GroupServiceStub(channel)
        for size in range(1, 8):
            groups = await pages(stub.ListGroups, pb.ListGroupsRequest(parent=PARENT), "groups", size)
            assert [g.group_id for g in groups] == ["big", "g%", "g0", "g1", "g2"]
            some = await pages(stub.ListGroups, pb.ListGroupsRequest(parent=PARENT, prefix="g"), "groups", size)
            assert [g.group_id for g in some] == ["g%", "g0", "g1", "g2"]
            members = pb.ListGroupMembersRequest(parent=PARENT, group_id="big")
            people = await pages(stub.ListGroupMembers, members, "profiles", size)
            assert sorted(p.name for p in people) == sorted(
                f"{PARENT}/profiles/{profile_id(WORKSPACE, f'b{n}')}" for n in range(4)
            )
            request = pb.ListGroupEventsRequest(parent=PARENT, group_id="big")
            events = await pages(stub.ListGroupEvents, request, "events", size)
            assert [e.event.message_id for e in events] == ["b4", "b3", "b2", "b1", "b0"]
        first = await stub.ListGroups(pb.ListGroupsRequest(parent=PARENT, page_size=1))
        foreign = pb.ListGroupsRequest(parent="workspaces/other", page_size=1, page_token=first.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListGroups(foreign)
        assert errors.reason_of(caught.value) == errors.INVALID_PAGE_TOKEN


async def test_what_says_nothing_new_writes_nothing(db: Database) -> None:
    worker = Worker(db)
    user = ("user_id", "u1")
    # The database was another test's before, whose writes are recorded too.
    before = len(await _group_writes(db))
    await resolve(db, in_group("m1", user, day=1), in_group("t1", user, traits={"a": 1}, day=1), worker=worker)
    assert (await _group_writes(db))[before:] == [("i", GROUP_MEMBERS), ("i", GROUP_TRAITS), ("i", GROUPS)]
    await resolve(db, in_group("m2", user, day=2), in_group("t2", user, traits={"a": 2}, day=1), worker=worker)
    assert len(await _group_writes(db)) == before + 4, "newer traits are written, and nothing else"
    await resolve(db, in_group("m3", user, day=3), in_group("t3", user, traits={"a": 3}, day=0.5), worker=worker)
    # Only the membership moved: the group call is earlier than what made it, and than the traits that are known.
    assert (await _group_writes(db))[before + 4 :] == [("u", GROUP_MEMBERS)]


async def _group_writes(db: Database) -> list[tuple[str, str]]:
    """Writes to collections of groups, in order, as the replica set recorded them."""
    found = []
    async for entry in db.client["local"]["oplog.rs"].find({"o.applyOps.ns": {"$regex": f"^{db.name}\\.group"}}):
        for operation in entry["o"]["applyOps"]:
            collection = operation["ns"].partition(".")[2]
            if collection.startswith("group"):
                found.append((operation["op"], collection))
    return found


async def test_many_workers_on_one_company(db: Database) -> None:
    """Their micro-batches do not wait for each other: each new member, and the same traits again and again."""
    await resolve(db, in_group("m0", ("user_id", "u0"), traits={"plan": "pro"}))
    workers = [Worker(db) for _ in range(4)]

    async def busy(number: int) -> None:
        for round_ in range(5):
            name = f"w{number}r{round_}"
            call = in_group(
                name, ("user_id", f"u{name}"), traits={"plan": "pro", "size": number}, day=round_ + number / 10
            )
            await resolve(db, call, worker=workers[number])

    await asyncio.gather(*(busy(n) for n in range(4)))
    assert await db[GROUP_MEMBERS].count_documents({"w": WORKSPACE, "g": "acme"}) == 21
    assert await db[GROUPS].count_documents({}) == 1
    group = await GroupReader(db).get(WORKSPACE, "acme")
    assert group is not None
    assert {n: (t.value, t.message_id) for n, t in group.traits.items()} == {
        "plan": (b'"pro"', "w3r4"),
        "size": (b"3", "w3r4"),
    }


async def test_memberships_follow_their_events(db: Database) -> None:
    await resolve(
        db,
        in_group("m1", ("user_id", "u1"), day=1),
        in_group("m2", ("user_id", "u1"), day=2, group="beta"),
        in_group("m3", ("user_id", "u2"), day=3),
    )
    one, other = profile_id(WORKSPACE, "m1"), profile_id(WORKSPACE, "m3")
    events = {e.event.message_id: e async for e in events_of_profiles(db, WORKSPACE, [one, other])}
    # As if m1 had always been of the other one, and m2 were gone.
    async with transaction(db.client) as session:
        workspace = await Workspaces(db).read(WORKSPACE, session)
        await GroupFold().rewrite(db, session, workspace, [one, other], {other: [events["m1"], events["m3"]]})
    people = await Profiles(db).get(WORKSPACE, [one, other])
    assert people[one].groups == {}
    assert {g: m.message_id for g, m in people[other].groups.items()} == {"acme": "m1"}
    assert await db[GROUPS].count_documents({}) == 2, "what was said of a group stays"


async def test_what_a_deleted_person_said_of_groups_goes(db: Database) -> None:
    ann, bob = ("user_id", "ann"), ("user_id", "bob")
    await resolve(db, in_group("b1", bob, traits={"plan": "free", "city": "Pune", "old": 1}, day=1))
    await resolve(db, in_group("a1", ann, traits={"plan": "pro", "contact": "ann@acme.example", "old": None}, day=2))
    await resolve(db, in_group("b2", bob, traits={"plan": "gold"}, day=1.5), in_group("a2", ann, day=3))
    await resolve(db, in_group("a3", ann, group="ann at home", traits={"rooms": 3}))
    messages = ["a1", "a2", "a3"]
    async with transaction(db.client) as session:
        removed = await group_erasure.forget(db, session, WORKSPACE, messages)
        await delete_events(db, session, WORKSPACE, messages)
    assert removed == 5, "plan, contact, old and rooms, and a group that nobody else named"
    reader = GroupReader(db)
    group = await reader.get(WORKSPACE, "acme")
    assert group is not None
    assert {n: (t.value, t.message_id) for n, t in group.traits.items()} == {
        "plan": (b'"gold"', "b2"),
        "city": (b'"Pune"', "b1"),
        "old": (b"1", "b1"),
    }
    assert await reader.get(WORKSPACE, "ann at home") is None
    for name in (GROUPS, GROUP_TRAITS):
        assert not [d async for d in db[name].find({}) if "ann" in str(d) or "a1" in str(d)]
    async with transaction(db.client) as session:
        assert await group_erasure.forget(db, session, WORKSPACE, messages) == 0, "once more changes nothing"
