"""HubSpot through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.batch import ADD_MEMBERS, DELETE_PEOPLE, REMOVE_MEMBERS
from headrace_sync.outlets.verdicts import Kind

from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.plugins.authentication import authorised
from headrace_sdk import EventItem, Profile, Request, Response, Row, Subject
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.hubspot import FakeHubSpot, error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "hubspot"


@pytest_asyncio.fixture(loop_scope="module")
async def hubspot() -> AsyncIterator[FakeHubSpot]:
    fake = FakeHubSpot()
    await fake.start()
    yield fake
    assert "an address in a URL" not in fake.problems
    await fake.stop()


def settings(hubspot: FakeHubSpot, **more: Any) -> dict[str, Any]:
    return {"access_token": hubspot.token, "list_id": "17", "portal_id": "42", "base_url": hubspot.url, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(hubspot: FakeHubSpot, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(hubspot)) as found:
        yield found


def person(number: int) -> Profile:
    return Profile(id=f"p{number}", identifiers={"email": [f"Person.{number}@Example.com"]}, traits={"city": "London"})


def event(name: str, message_id: str, kind: str = "track", **more: Any) -> EventItem:
    known = {"identifiers": {"email": ["ada@example.com"]}, "timestamp_us": now_us()}
    return EventItem(message_id=message_id, kind=kind, name=name, **{**known, **more})


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_list_and_off_again(hubspot: FakeHubSpot, there: Way) -> None:
    """By HubSpot's ids, which are looked up without an address in a URL; the same address goes once in a request."""
    made = await rows(there, *map(person, range(101)), person(1))
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert {verdict.kind for verdict in verdicts} == {Kind.DELIVERED}
    assert len(hubspot.on_list()) == 101 and hubspot.contacts["1000"]["city"] == "London"
    unknown = Row(key="k", data={"email": "nobody@example.com", "properties": {}})
    verdicts = await there.outlet.send(REMOVE_MEMBERS, [*made[:100], unknown])
    assert {verdict.kind for verdict in verdicts} == {Kind.DELIVERED}
    assert hubspot.on_list() == {"person.100@example.com"} and hubspot.problems == []


async def test_contacts_that_a_207_refuses_are_found(hubspot: FakeHubSpot, there: Way) -> None:
    hubspot.fails = lambda email: email == "person.2@example.com"
    made = await rows(there, person(1), person(2), person(3))
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert hubspot.on_list() == {"person.1@example.com", "person.3@example.com"}
    hubspot.names_places = False
    verdicts += await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts[3:]] == [Kind.DELIVERED, Kind.RETRY, Kind.DELIVERED]
    assert all("@" not in verdict.reason for verdict in verdicts)


async def test_a_bad_item_does_not_hold_up_the_others(hubspot: FakeHubSpot, there: Way) -> None:
    bad = Row(key="k", data={"email": "x@example.com", "properties": {"nothing_like_it": "x"}})
    made = [*(await rows(there, person(1))), bad, *(await rows(there, person(2)))]
    for named in (True, False):
        hubspot.names_places = named
        kinds = [verdict.kind for verdict in await there.outlet.send(ADD_MEMBERS, made)]
        assert kinds == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
        events = [event("Thing Done", "m1"), event("Not Defined", "m2"), event("Order Completed", "m3")]
        kinds = [verdict.kind for verdict in await there.deliver(events)]
        assert kinds == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert len(hubspot.events) == 2  # those of the second round are repetitions


async def test_a_repeated_event_counts_once(hubspot: FakeHubSpot, there: Way) -> None:
    assert there.outlet.info.idempotency == "key"
    for _ in range(2):
        await there.deliver([event("Thing Done", "m1")])
        await there.deliver([event("Thing Done", "m1"), event("Thing Done", "m2")])
    assert [one["uuid"] for one in hubspot.events] == ["m1", "m2"]


async def test_events_and_contacts(hubspot: FakeHubSpot, there: Way) -> None:
    order = event("Order Completed", "o", properties={"Order ID": "T1", "total": 29.9, "products": [{"sku": "s"}]})
    known = event("", "i", "identify", traits={"firstName": "Ada", "plan": "pro"})
    visitor = event("Thing Done", "v", identifiers={}, context={"hubspotutk": "cookie"})
    nobody = event("Thing Done", "n", identifiers={})
    kinds = [verdict.kind for verdict in await there.deliver([order, known, visitor, nobody])]
    assert kinds == [Kind.DELIVERED, Kind.DELIVERED, Kind.DELIVERED, Kind.SKIPPED]
    assert hubspot.events[0]["properties"] == {"order_id": "T1", "total": "29.9", "products": '[{"sku":"s"}]'}
    assert (hubspot.events[0]["uuid"], hubspot.events[1]["utk"]) == ("o", "cookie")
    assert hubspot.contacts["1000"] == {"email": "ada@example.com", "firstname": "Ada"}
    await there.deliver([known], {"contact_properties": "{plan: event.traits.plan}"})
    assert hubspot.contacts["1000"]["plan"] == "pro" and hubspot.problems == []


async def test_people_are_forgotten_by_each_address(hubspot: FakeHubSpot, there: Way) -> None:
    await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2)))
    known = {"email": ["person.1@example.com", "unknown@example.com", "Person.2@example.com"]}
    subjects = [Subject(profile_id="p", identifiers=known), Subject(profile_id="q", identifiers={"user_id": ["v"]})]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED] and hubspot.contacts == {}


async def test_settings_that_cannot_work_pause_the_destination(hubspot: FakeHubSpot, shared: Station) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"access_token": "wrong"}, "access token is not valid"),
        ({"api_version": "2026-09"}, "version is not that of HubSpot"),
    ]
    for change, reason in wrong:
        async with shared.way(settings(hubspot, **change)) as there:
            verdicts = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2)))
            assert {verdict.kind for verdict in verdicts} == {Kind.UNTRIED} and reason in there.halted[0]
    async with shared.way(settings(hubspot, list_id="")) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
        assert verdict.kind is Kind.REJECTED and "choose a static list" in verdict.reason
    assert hubspot.contacts == {}


async def test_failures_are_tried_again(hubspot: FakeHubSpot, there: Way) -> None:
    hubspot.failures += [
        error(502, "bad gateway"),
        web.Response(text="<html>"),
        error(429, "limit", policyName="DAILY", errorType="RATE_LIMIT"),
    ]
    kinds = [(await there.deliver([event("Thing Done", "m")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 3_000 and hubspot.events == []


async def test_lists_are_shown_and_made_and_checked(hubspot: FakeHubSpot, shared: Station) -> None:
    known = settings(hubspot)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(authorised(request, instance.info.auth, known, now_us=now_us()))

    hubspot.names |= {str(n): f"List {n}" for n in range(100, 220)}
    request = await instance.lists("")
    first = await instance.read_lists(request, await ask(request))
    request = await instance.lists(first.next_page)
    second = await instance.read_lists(request, await ask(request))
    assert len(first.lists) == 100 and len(second.lists) == 21 and second.next_page == ""
    request = await instance.create_list("Mine")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert hubspot.names[made.id] == made.name == "Mine" and made.size == 0
    checks = await instance.check()
    assert [await instance.read_check(check, await ask(check.request)) for check in checks] == ["", ""]
    hubspot.names.clear()
    assert "does not know the list" in await instance.read_check(checks[1], await ask(checks[1].request))
