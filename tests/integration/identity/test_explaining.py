"""Why people are who they are, through gRPC on real stores: chains, what kept people apart, the graph page by page."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from headrace_identity import links_store, workspaces
from headrace_identity.bootstrap import open_service
from headrace_identity.resolving.links import Kind, ManualLink
from headrace_identity.resolving.offline import read_events
from headrace_identity.resolving.rules import Identifier
from headrace_identity.rules_store import RulesStore
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.identity_service_pb2 import (
    ExplainLinkRequest,
    ExplainLinkResponse,
    GetIdentityGraphRequest,
    GetIdentityGraphResponse,
    ListMergesRequest,
    UndoMergeRequest,
)
from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from headrace.api.identity.v1.profile_pb2 import Decision
from headrace.domain.ids import event_key, profile_id
from headrace.rpc import errors
from headrace.rpc.channel import connect
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, transaction
from tests.support.identity import WORKSPACE, event, read_stored
from tests.support.identity_histories import history
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "cases/identity.json").read_text())["cases"]


@asynccontextmanager
async def identity_of(settings: Settings) -> AsyncIterator[Any]:
    """The service's own stub, called as another service."""
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield IdentityServiceStub(channel)


async def resolve(db: Database, events: Sequence[Event], workspace_id: str = WORKSPACE) -> None:
    """Resolve events one by one, without the streams."""
    worker = Worker(db)
    for number, one in enumerate(events):
        await worker.process(workspace_id, [Incoming(one, "s1", number)])


async def force(db: Database, kind: Kind, first: Identifier, second: Identifier) -> None:
    """Store a manual link."""
    async with transaction(db.client) as session:
        link = ManualLink(f"{kind}1", kind, first, second, "asked for", created_us=1)
        await links_store.add(db, session, WORKSPACE, [link])
        await workspaces.count(db, session, WORKSPACE, "l")


def name(message_id: str) -> str:
    """Resource name of the profile that an event created."""
    return f"{PARENT}/profiles/{profile_id(WORKSPACE, message_id)}"


async def explained(
    stub: Any, start: Identifier, end: Identifier, workspace_id: str = WORKSPACE
) -> ExplainLinkResponse:
    request = ExplainLinkRequest(parent=f"workspaces/{workspace_id}")
    getattr(request, "from").CopyFrom(IdentifierMessage(namespace=start[0], value=start[1]))
    request.to.CopyFrom(IdentifierMessage(namespace=end[0], value=end[1]))
    answer: ExplainLinkResponse = await stub.ExplainLink(request)
    for text in (start[1], end[1]):
        assert text not in answer.summary or len(text) < 3, "values are personal data"
    return answer


def chain(answer: ExplainLinkResponse) -> list[str]:
    """What joins the steps, after checking that they lead from one to the next."""
    ends = [(getattr(s, "from"), s.to) for s in answer.steps]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))
    for (start, end), step in zip(ends, answer.steps, strict=True):
        assert step.manual_link or (start in step.link.decision.identifiers and end in step.link.decision.identifiers)
        assert step.manual_link or step.link.source_id
    return [s.manual_link or s.link.message_id for s in answer.steps]


async def graph_of(stub: Any, profile: str, size: int = 1_000) -> GetIdentityGraphResponse:
    """All pages put together."""
    whole = GetIdentityGraphResponse()
    token = ""
    while True:
        page = await stub.GetIdentityGraph(GetIdentityGraphRequest(name=profile, page_size=size, page_token=token))
        assert len(page.links) <= size
        whole.MergeFrom(page)
        token = page.next_page_token
        if not token:
            whole.next_page_token = ""
            return whole


async def test_worked_cases(db: Database, make_settings: MakeSettings) -> None:
    """Of the cases of other systems every two identifiers are explained: together exactly when they are one person."""
    async with identity_of(make_settings(Settings)) as stub:
        for number, case in enumerate(CASES):
            workspace_id = f"case-{number}"
            if "rules" in case:
                await RulesStore(db).write(workspace_id, case["rules"])
            events = read_events(map(json.dumps, case["events"]))
            for one_event in events:
                one_event.workspace_id, one_event.source_id = workspace_id, "web"
            await resolve(db, events, workspace_id)
            people = [[(n, v) for n, v in profile] for profile in case["expect"]["profiles"]]
            for one, other in itertools.permutations(range(len(people)), 2):
                answer = await explained(stub, people[one][0], people[other][0], workspace_id)
                assert not answer.together and not answer.steps
                assert answer.from_profile != answer.to_profile
            for person in people:
                for start, end in itertools.permutations(person[:4], 2):
                    answer = await explained(stub, start, end, workspace_id)
                    assert answer.together and chain(answer), case["id"]
                    assert answer.from_profile == answer.to_profile != ""


async def test_the_graph_has_everything_that_was_done_and_nothing_else(
    db: Database, make_settings: MakeSettings
) -> None:
    """Over merged parts, in pages of any size: what was created, brought, merged, demoted or blocked, in order."""
    events = [event(f"x{i:02}", ("anonymous_id", "d9x")) for i in range(5)]
    events += history(7, WORKSPACE, aliases=True, size=60)
    events += [event("blocked", ("user_id", "u1"), ("email", "null"))]
    await resolve(db, events)
    stored = await read_stored(db)
    async with identity_of(make_settings(Settings)) as stub:
        for root in [p for p in stored.graph.profiles.values() if p.merged_into is None]:
            parts = set(root.parts)
            of_person = [r for r in stored.events if r.profile_id in parts]
            did = [
                r for r in of_person if r.decision.brought or r.decision.merges or r.decision.set_aside
            ]  # who creates brings something
            assert len(did) < len(of_person) or root.id != profile_id(WORKSPACE, "x00")
            for size in (1, 7, 1_000):
                graph = await graph_of(stub, f"{PARENT}/profiles/{root.parts[-1]}", size)
                assert graph.profile == f"{PARENT}/profiles/{root.id}"
                assert [link.message_id for link in graph.links] == [r.event.message_id for r in did]
                assert [link.decision for link in graph.links] == [r.decision for r in did]
                assert [(x.part, x.source_id, x.timestamp_us) for x in graph.links] == [
                    (r.profile_id, "web", r.event.timestamp_us) for r in did
                ]
                found = {(n.identifier.namespace, n.identifier.value): n for n in graph.nodes}
                assert found.keys() == root.identifiers.keys() and len(graph.nodes) == len(found)
                for identifier, node in found.items():
                    assert node.timestamp_us == root.identifiers[identifier]
                    assert node.part == stored.graph.holders[identifier]
                merges = [(r.event.message_id, m) for r in of_person for m in r.decision.merges]
                assert [(m.message_id, m.merge) for m in graph.merges] == merges
                assert {m.merge.loser for m in graph.merges} == parts - {root.id}


async def test_merges_newest_first(db: Database, make_settings: MakeSettings) -> None:
    """Of the workspace and of a person, page by page, with the identifiers by which each side was found."""
    events = [event(f"d{i}", ("anonymous_id", f"dev{i}")) for i in range(5)]
    events += [event("e0", ("email", "a@shop.example"), ("user_id", "u1"))]
    events += [event("j1", ("user_id", "u1"), ("anonymous_id", "dev1"), ("anonymous_id", "dev2"))]  # two losers at once
    events += [event("j2", ("user_id", "u1"), ("anonymous_id", "dev0"), ("phone", "+4930123456"))]
    events += [
        event("j3", ("user_id", "u2"), ("anonymous_id", "dev3")),
        event("j4", ("user_id", "u2"), ("anonymous_id", "dev4")),
    ]
    await resolve(db, events)
    async with identity_of(make_settings(Settings)) as stub:

        async def listed(parent: str, size: int) -> list[Any]:
            found, token = [], ""
            while True:
                page = await stub.ListMerges(ListMergesRequest(parent=parent, page_size=size, page_token=token))
                found += page.merges
                token = page.next_page_token
                if not token:
                    return found

        for size in (1, 2, 100):
            everything = await listed(PARENT, size)
            assert [m.message_id for m in everything] == ["j4", "j2", "j1", "j1"]
            assert everything == sorted(everything, key=lambda m: (m.sequence, m.merge.loser), reverse=True)
            assert await listed(name("d0"), size) == everything[1:] == await listed(name("e0"), size)
            assert await listed(name("d3"), size) == everything[:1]
        newest, last = everything[0], everything[1]
        assert newest.name == f"{PARENT}/merges/{profile_id(WORKSPACE, 'd4')}"
        assert (newest.rule, newest.source_id) == ("merge", "web")
        assert last.merge.loser == profile_id(WORKSPACE, "d1")
        assert [i.value for i in last.loser_identifiers] == ["u1"]
        assert [i.value for i in last.survivor_identifiers] == ["dev0"]
        both = {m.merge.loser: [i.value for i in m.loser_identifiers] for m in everything[2:]}
        assert both == {profile_id(WORKSPACE, "d2"): ["dev2"], profile_id(WORKSPACE, "e0"): ["u1"]}
        assert await listed("workspaces/other", 100) == []


async def test_together(db: Database, make_settings: MakeSettings) -> None:
    events = [
        event("m1", ("anonymous_id", "dev1")),
        event("m2", ("user_id", "user-1"), ("email", "ann@shop.example")),
        event("m3", ("user_id", "user-1"), ("anonymous_id", "dev1")),
        event("m4", ("user_id", "user-1"), previous_id="dev-2"),
        event("m5", ("anonymous_id", "dev1")),
    ]
    await resolve(db, events)
    async with identity_of(make_settings(Settings)) as stub:
        answer = await explained(stub, ("anonymous_id", "dev1"), ("email", " ANN@shop.example"))
        assert answer.together and chain(answer) == ["m3", "m2"]
        assert answer.from_profile == answer.to_profile == name("m1")
        assert [s.link.decision.rule for s in answer.steps] == ["merge", "create"]
        assert answer.summary == (
            "The anonymous_id and the email belong to one person: a chain of 2 events leads from one to the other by"
            " way of user_id."
        )
        alias = await explained(stub, ("anonymous_id", "dev-2"), ("user_id", "user-1"))
        assert chain(alias) == ["m4"]
        assert alias.steps[0].link.decision.rule == "alias"
        assert "one event carried both" in alias.summary


async def test_apart(db: Database, make_settings: MakeSettings) -> None:
    ann, ben, shared = ("user_id", "user-1"), ("user_id", "user-2"), ("anonymous_id", "dev1")
    events = [event("m1", ann, shared), event("m2", ben, ("email", "ben@shop.example"))]
    events += [event(f"s{i:02}", ben, shared) for i in range(30)]
    events += [event("z1", ("user_id", "user-3"), ("email", "ben@shop.example")), event("z2", ("user_id", "user-4"))]
    await resolve(db, events)
    async with identity_of(make_settings(Settings)) as stub:
        answer = await explained(stub, ann, ("email", "ben@shop.example"))
        assert not answer.together and not answer.steps
        assert (answer.from_profile, answer.to_profile) == (name("m1"), name("m2"))
        assert [link.message_id for link in answer.kept_apart_by] == [f"s{i:02}" for i in range(20)]
        assert answer.kept_apart_by[0].decision.set_aside[0].rule == "limit:user_id"
        assert answer.kept_apart_by[0].source_id == "web"
        assert answer.summary == (
            "The user_id and the email belong to two people: 20 or more events carried identifiers of both, kept apart"
            " by limit:user_id."
        )
        few = await explained(stub, ben, ("user_id", "user-3"))
        assert [link.message_id for link in few.kept_apart_by] == ["z1"]
        none = await explained(stub, ann, ("user_id", "user-4"))
        assert none.summary == (
            "The two values of user_id belong to two people: no event of one of them carried an identifier of the"
            " other."
        )
        unknown = await explained(stub, ann, ("email", "nobody@shop.example"))
        assert (unknown.from_profile, unknown.to_profile) == (name("m1"), "")
        assert unknown.summary == "The email is held by nobody, so nothing joins it to the other."
        blocked = await explained(stub, ("anonymous_id", "undefined"), ann)
        assert (blocked.from_profile, blocked.to_profile) == ("", name("m1"))
        assert "blocked:value" in blocked.summary


async def test_devices_that_were_handed_over(db: Database, make_settings: MakeSettings) -> None:
    """A device that went from one person to the next is explained for both, also where it is no more."""
    ann, ben, device, email = (
        ("user_id", "ann"),
        ("user_id", "ben"),
        ("device_id", "dev-1"),
        ("email", "a@shop.example"),
    )
    rules = {"policies": [{"policy": "isolation", "devices": ["device_id"], "logout_events": ["Logged out"]}]}
    await RulesStore(db).write(WORKSPACE, rules)
    events = [
        event("m1", device, email),
        event("m2", ann, email),
        event("m3", ann, device),
        event("out", device, name="Logged out"),
        event("m4", ben, email),
        event("m5", device),
    ]
    await resolve(db, events)
    async with identity_of(make_settings(Settings)) as stub:
        assert chain(await explained(stub, ann, email)) == ["m2"]
        answer = await explained(stub, ann, device)
        assert not answer.together, answer
        graph = await graph_of(stub, answer.to_profile)
        assert [n.message_id for n in graph.nodes] == ["out"]
        assert [i.identifier.value for i in graph.links[0].decision.handovers] == ["dev-1"]


async def test_manual_links_are_steps(db: Database, make_settings: MakeSettings) -> None:
    ann, ben = ("user_id", "user-1"), ("user_id", "user-2")
    await force(db, "together", ann, ben)
    await force(db, "apart", ann, ("anonymous_id", "dev-9"))
    await resolve(
        db, [event("m1", ann), event("m2", ben, ("email", "b@shop.example")), event("m3", ("anonymous_id", "dev-9"))]
    )
    await resolve(db, [event("m4", ben, ("anonymous_id", "dev-9"))])
    async with identity_of(make_settings(Settings)) as stub:
        answer = await explained(stub, ann, ("email", "b@shop.example"))
        assert chain(answer) == [f"{PARENT}/identityLinks/together1", "m2"]
        assert [m.name for m in answer.manual_links] == [f"{PARENT}/identityLinks/{k}1" for k in ("apart", "together")]
        assert "1 event and 1 manual link" in answer.summary
        apart = await explained(stub, ("email", "b@shop.example"), ("anonymous_id", "dev-9"))
        assert [link.message_id for link in apart.kept_apart_by] == ["m4"]
        assert [m.name for m in apart.manual_links] == [f"{PARENT}/identityLinks/apart1"]
        assert apart.summary == (
            "The email and the anonymous_id belong to two people, and a manual link keeps them apart: 1 event carried"
            " identifiers of both, kept apart by apart:apart1."
        )
        graph = await graph_of(stub, name("m1"))
        assert [m.reason for m in graph.manual_links] == ["asked for", "asked for"]
        assert [n.message_id for n in graph.nodes] == ["m2", "m1", "m2"]


async def test_an_undone_merge_is_explained_as_what_holds_now(db: Database, make_settings: MakeSettings) -> None:
    """Events that were assigned anew do other things than before: the index of links follows them."""
    device, user = ("anonymous_id", "dev-1"), ("user_id", "user-1")
    events = [
        event("m1", device),
        event("m2", user),
        event("m3", user, device),
        event("m4", device, ("email", "a@b.io")),
    ]
    await resolve(db, events)
    async with identity_of(make_settings(Settings)) as stub:
        assert chain(await explained(stub, device, user)) == ["m3"]
        (merge,) = (await stub.ListMerges(ListMergesRequest(parent=PARENT))).merges
        (link,) = (await stub.UndoMerge(UndoMergeRequest(name=merge.name, reason="not the same"))).links
        answer = await explained(stub, device, user)
        assert not answer.together
        assert [x.message_id for x in answer.kept_apart_by] == ["m3"]
        assert [m.name for m in answer.manual_links] == [link.name]
        assert answer.manual_links[0].undone_merge == merge.name
        assert f"kept apart by apart:{link.name.rsplit('/')[-1]}" in answer.summary
        assert not (await stub.ListMerges(ListMergesRequest(parent=PARENT))).merges
        graphs = [await graph_of(stub, profile) for profile in (answer.from_profile, answer.to_profile)]
        assert sorted([x.message_id for x in g.links] for g in graphs) == [["m1", "m4"], ["m2", "m3"]]
    async for document in db[log.EVENTS].find({}):
        assert document.get("l", 0) == log.linked_of(Decision.FromString(document["d"])), document["_id"]


async def test_wrong_calls_are_refused(db: Database, make_settings: MakeSettings) -> None:
    await resolve(db, [event("m1", ("email", "ann@shop.example")), event("m2", ("user_id", "u1"))])
    email = IdentifierMessage(namespace="email", value="ann@shop.example")
    same = {"from": email, "to": IdentifierMessage(namespace="email", value=" Ann@shop.example ")}
    async with identity_of(make_settings(Settings)) as stub:
        calls: list[tuple[Any, Any, str, str]] = [
            (stub.ExplainLink, ExplainLinkRequest(parent=PARENT, **same), "INVALID_ARGUMENT", "to"),
            (
                stub.ExplainLink,
                ExplainLinkRequest(parent=PARENT, **{"from": email}),
                "INVALID_ARGUMENT",
                "to.namespace",
            ),
            (stub.ExplainLink, ExplainLinkRequest(parent=PARENT, to=email), "INVALID_ARGUMENT", "from.namespace"),
            (stub.ExplainLink, ExplainLinkRequest(parent=f"{PARENT}/x"), "INVALID_ARGUMENT", "parent"),
            (stub.GetIdentityGraph, GetIdentityGraphRequest(name=PARENT), "INVALID_ARGUMENT", "name"),
            (stub.GetIdentityGraph, GetIdentityGraphRequest(name=f"{PARENT}/profiles/p1"), "NOT_FOUND", ""),
            (
                stub.GetIdentityGraph,
                GetIdentityGraphRequest(name=name("m1").replace(WORKSPACE, "other")),
                "NOT_FOUND",
                "",
            ),
            (
                stub.GetIdentityGraph,
                GetIdentityGraphRequest(name=name("m1"), page_size=-1),
                "INVALID_ARGUMENT",
                "page_size",
            ),
            (
                stub.GetIdentityGraph,
                GetIdentityGraphRequest(name=name("m1"), page_token="x"),
                "INVALID_PAGE_TOKEN",
                "page_token",
            ),
            (stub.ListMerges, ListMergesRequest(parent=f"{PARENT}/profiles/p1"), "NOT_FOUND", ""),
            (stub.ListMerges, ListMergesRequest(parent=f"{PARENT}/sources/web"), "INVALID_ARGUMENT", "parent"),
            (stub.ListMerges, ListMergesRequest(parent=PARENT, page_token="x"), "INVALID_PAGE_TOKEN", "page_token"),
        ]
        for call, request, reason, field in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert errors.reason_of(caught.value) == reason, request
            assert [f for f, _ in errors.field_violations(caught.value)] == ([field] if field else []), request
            assert "ann@" not in (caught.value.details() or "").lower()


async def test_people_of_many_events_and_identifiers_are_read_by_their_links(
    db: Database, make_settings: MakeSettings
) -> None:
    """A page reads the events of the page; a chain reads those that joined something, whatever else there is."""
    user = ("user_id", "user-1")
    await RulesStore(db).write(WORKSPACE, {"default_limit": 1_000})
    worker = Worker(db)
    events = [event(f"m{i:04}", user, ("anonymous_id", f"dev-{i}")) for i in range(999)]
    await worker.process(WORKSPACE, [Incoming(e, "s1", i) for i, e in enumerate(events)])
    sample = await db[log.EVENTS].find_one({"_id": event_key(WORKSPACE, "m0500")})
    assert sample is not None
    del sample["l"]  # it repeats what is known
    repeats = [{**sample, "_id": event_key(WORKSPACE, f"r{i}"), "s": sample["s"] - 10**9 + i} for i in range(20_000)]
    await db[log.EVENTS].insert_many(repeats)
    async with identity_of(make_settings(Settings)) as stub:
        await db.command("profile", 2)
        try:
            page = await stub.GetIdentityGraph(GetIdentityGraphRequest(name=name("m0000"), page_size=50))
            answer = await explained(stub, ("anonymous_id", "dev-1"), ("anonymous_id", "dev-998"))
        finally:
            await db.command("profile", 0)
        assert [link.message_id for link in page.links] == [f"m{i:04}" for i in range(50)]
        assert len(page.nodes) == 1_000
        assert chain(answer) == ["m0001", "m0998"]
        operations = [o async for o in db["system.profile"].find({"ns": f"{db.name}.{log.EVENTS}", "op": "query"})]
        await db.drop_collection("system.profile")
        read = sum(o.get("docsExamined", 0) for o in operations)
        assert 0 < read <= 2 * 1_001 + 60, [(o["planSummary"], o["docsExamined"]) for o in operations]
