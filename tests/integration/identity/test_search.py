"""Finding people over gRPC on real stores: nobody is missed and nobody is shown twice, whatever the size of a page."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgspec
import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.people import finder
from headrace_identity.people.profiles import Profiles
from headrace_identity.rules_store import RulesStore
from headrace_identity.settings import Settings
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event, Identifier
from headrace.api.identity.v1.profile_pb2 import Profile
from headrace.api.identity.v1.profile_service_pb2 import SearchProfilesRequest, TraitQuery
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.domain.ids import profile_id
from headrace.rpc import errors
from headrace.rpc.channel import connect
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event
from tests.support.settings import MakeSettings

PARENT = f"workspaces/{WORKSPACE}"


@pytest.fixture
async def stub(db: Database, make_settings: MakeSettings) -> AsyncIterator[Any]:
    settings = make_settings(Settings, event_partitions=1, identity_lanes=1)
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        yield ProfileServiceStub(channel)


async def resolve(db: Database, *events: Event) -> None:
    await Worker(db).process(events[0].workspace_id, [Incoming(e, "s1", i) for i, e in enumerate(events)])


async def found(stub: Any, size: int = 0, parent: str = PARENT, **query: Any) -> list[str]:
    """Ids of the profiles that a search shows, over all pages."""
    request = SearchProfilesRequest(parent=parent, page_size=size, **query)
    ids: list[str] = []
    while True:
        answer = await stub.SearchProfiles(request)
        page = [p.name.rpartition("/")[2] for p in answer.profiles]
        assert len(page) <= (size or 100)
        ids += page
        if not answer.next_page_token:
            return ids
        request.page_token = answer.next_page_token


def beginning(value: str, namespace: str = "") -> dict[str, Any]:
    return {"identifier_prefix": Identifier(namespace=namespace, value=value)}


def trait(name: str, value: str, *, prefix: bool = False) -> dict[str, Any]:
    return {"trait": TraitQuery(name=name, value=value, prefix=prefix)}


async def test_people_are_found_as_they_are_typed(db: Database, stub: Any) -> None:
    await RulesStore(db).write(WORKSPACE, {"namespaces": [{"name": "user_id", "limit": 1}], "default_country": "IN"})
    await resolve(
        db,
        event("m1", ("user_id", "Ann"), ("email", "Ann@Shop.example"), traits={"plan": "Pro", "age": 42, "vip": True}),
        event("m2", ("phone", "098765 43210"), ("hubspot_id", "annual"), traits={"plan": "pro max", "age": 4.0}),
        event("m3", ("anonymous_id", "dev1"), traits={"plan": "pro"}),
        event("m4", ("user_id", "dave"), ("anonymous_id", "dev1"), traits={"plan": "free"}, day=1),
        event("m5", ("anonymous_id", "dev2"), traits={"plan": "PRO"}),
        event("m6", ("user_id", "dave"), ("anonymous_id", "dev2"), day=2),
    )
    ann, phone, dave = (profile_id(WORKSPACE, m) for m in ("m1", "m2", "m3"))
    for value, namespace, expected in (
        ("ANN@", "email", [ann]),
        ("ann", "", [ann, phone]),
        ("Ann", "", [ann]),  # emails alone are lower-cased: other values are as they are
        ("dev", "", [dave]),
        ("dev", "user_id", []),
        ("d", "", [dave]),
        ("9876", "phone", [phone]),
        ("098-76", "phone", [phone]),
        ("+91 98", "phone", [phone]),
        ("98", "", [phone]),
        ("zz", "", []),
        ("dev1x", "anonymous_id", []),
    ):
        assert await found(stub, **beginning(value, namespace)) == expected, value
    for query, expected in (
        (trait("age", "42"), [ann]),
        (trait("age", "4"), [phone]),
        (trait("age", "4", prefix=True), [phone, ann]),
        (trait("vip", "TRUE"), [ann]),
        (trait("pla", "n", prefix=True), []),
        (trait("plan", "pro max"), [phone]),
    ):
        assert await found(stub, **query) == expected, query
    # Dave's "pro" was overridden by "free" on another part, whichever parts hold it.
    assert await found(stub, **trait("plan", "PRO")) == [ann]
    assert await found(stub, **trait("plan", "free")) == [dave]
    assert await found(stub, **trait("plan", "pro", prefix=True)) == [ann, phone]


async def test_a_deleted_or_changed_trait_is_not_found(db: Database, stub: Any) -> None:
    await resolve(db, event("m1", ("user_id", "u1"), traits={"plan": "pro", "city": "Pune"}))
    await resolve(db, event("m2", ("user_id", "u1"), traits={"plan": None, "city": "Goa"}, day=1))
    assert await found(stub, **trait("plan", "pro")) == []
    assert await found(stub, **trait("city", "pune")) == []
    assert await found(stub, **trait("city", "goa")) == [profile_id(WORKSPACE, "m1")]


async def test_every_page_size_shows_everybody_once(db: Database, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    history = []
    for n in range(60):
        identifiers = {
            (space, f"{chance.choice(['a', 'ab', 'b'])}{chance.randrange(16)}")
            for space in chance.sample(["anonymous_id", "crm", "device"], 2)
        }
        traits = {"plan": chance.choice(["a", "ab", "Abc", "b", None, 1]), "city": chance.choice(["x", "y"])}
        made = event(f"m{n}", *identifiers, traits=traits, day=chance.randrange(20))
        history.append(made)
    await resolve(db, *history)
    foreign = event("x", ("crm", "a1"), traits={"plan": "ab"}, workspace_id="other")
    await resolve(db, foreign)
    people = await Profiles(db).page(WORKSPACE, "", 1_000)
    assert sum(len(p.profile.parts) > 1 for p in people) > 3 < len(people), "some were merged"

    def who(matches: Callable[[Any], bool]) -> list[str]:
        return sorted(p.profile.id for p in people if matches(p))

    def plan(person: Any) -> str:
        known = person.traits.get("plan")
        return str(msgspec.json.decode(known.value)).casefold() if known is not None else "-"

    searches = [
        (beginning("a"), who(lambda p: any(v.startswith("a") for _, v in p.profile.identifiers))),
        (beginning("ab1"), who(lambda p: any(v.startswith("ab1") for _, v in p.profile.identifiers))),
        (
            beginning("b", "crm"),
            who(lambda p: any(n == "crm" and v.startswith("b") for n, v in p.profile.identifiers)),
        ),
        (trait("plan", "AB"), who(lambda p: plan(p) == "ab")),
        (trait("plan", "a", prefix=True), who(lambda p: plan(p).startswith("a"))),
        (trait("plan", "1"), who(lambda p: plan(p) == "1")),
        (trait("city", "x"), who(lambda p: msgspec.json.decode(p.traits["city"].value) == "x")),
    ]
    assert all(expected for _, expected in searches)
    for size, most in ((2, 2_000), (100, 2_000), (3, 60)):
        # With little work allowed for a page, pages are short and tokens lead on all the same.
        monkeypatch.setattr(finder, "_MOST_ENTRIES", most)
        for query, expected in searches:
            assert sorted(await found(stub, size, **query)) == expected, (query, size, most)
    assert await found(stub, parent="workspaces/other", **beginning("a")) == [profile_id("other", "x")]
    assert await found(stub, parent="workspaces/other", **trait("plan", "a", prefix=True)) == [profile_id("other", "x")]


async def test_wrong_searches_are_refused(db: Database, stub: Any) -> None:
    await resolve(db, event("m1", ("user_id", "a1")), event("m2", ("user_id", "a2")))
    answer = await stub.SearchProfiles(SearchProfilesRequest(parent=PARENT, page_size=1, **beginning("a")))
    token = answer.next_page_token
    assert isinstance(answer.profiles[0], Profile)
    for query, reason, field in (
        ({}, errors.INVALID_ARGUMENT, "trait"),
        (beginning("a") | trait("a", "b"), errors.INVALID_ARGUMENT, "trait"),
        (beginning(" "), errors.INVALID_ARGUMENT, "identifier_prefix.value"),
        (beginning("a" * 600), errors.INVALID_ARGUMENT, "identifier_prefix.value"),
        (trait("", "b"), errors.INVALID_ARGUMENT, "trait.name"),
        (trait("a", ""), errors.INVALID_ARGUMENT, "trait.value"),
        (trait("a", "b" * 300), errors.INVALID_ARGUMENT, "trait.value"),
        (beginning("a") | {"page_size": -1}, errors.INVALID_ARGUMENT, "page_size"),
        (beginning("b") | {"page_token": token}, errors.INVALID_PAGE_TOKEN, "page_token"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SearchProfiles(SearchProfilesRequest(parent=PARENT, **query))
        assert errors.reason_of(caught.value) == reason
        assert [f for f, _ in errors.field_violations(caught.value)] == [field]
