"""Klaviyo through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from tests.support.vendors.klaviyo import FakeKlaviyo, error

CONNECTOR = "klaviyo"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def klaviyo() -> AsyncIterator[FakeKlaviyo]:
    fake = FakeKlaviyo()
    await fake.start()
    yield fake
    assert "an address in a URL" not in fake.problems
    await fake.stop()


def settings(klaviyo: FakeKlaviyo, **more: Any) -> dict[str, Any]:
    known = {"api_key": klaviyo.key, "list_id": "LiSt01", "base_url": klaviyo.url, "subscribe_members": True}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(klaviyo: FakeKlaviyo, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(klaviyo)) as found:
        yield found


def person(number: int, **consents: str) -> Profile:
    identifiers = {"email": [f"Person.{number}@Example.com"], "user_id": [f"u{number}"]}
    return Profile(id=f"p{number}", identifiers=identifiers, traits={"first_name": "Ada"}, consents=consents)


def event(name: str, message_id: str, kind: str = "track", **more: Any) -> EventItem:
    known = {"identifiers": {"email": ["ada@example.com"]}, "timestamp_us": now_us()}
    return EventItem(message_id=message_id, kind=kind, name=name, **{**known, **more})


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_list_and_off_again(klaviyo: FakeKlaviyo, there: Way) -> None:
    """By import jobs whose end is seen; who consents is subscribed; Klaviyo's ids are found for removals."""
    people = (person(1), person(2), person(3, email_marketing="granted"), person(4, email_marketing="denied"))
    made = await rows(there, *people)
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 4
    assert len(klaviyo.lists["LiSt01"]) == 4
    assert klaviyo.subscriptions == {("person.3@example.com", "email"): "SUBSCRIBED"}
    verdicts = await there.outlet.send(REMOVE_MEMBERS, made[:2])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 2
    (verdict,) = await there.outlet.send(REMOVE_MEMBERS, made[2:3])
    assert verdict.kind is Kind.DELIVERED
    assert len(klaviyo.lists["LiSt01"]) == 1 and klaviyo.on_list("person.4@example.com")
    assert klaviyo.problems == []
    assert klaviyo.subscriptions == {("person.3@example.com", "email"): "SUBSCRIBED"}


async def test_a_removal_makes_nobody_again_whom_klaviyo_has_forgotten(klaviyo: FakeKlaviyo, there: Way) -> None:
    made = await rows(there, person(1), person(2))
    await there.outlet.send(ADD_MEMBERS, made)
    forgotten = next(one for one, known in klaviyo.profiles.items() if known["email"] == "person.1@example.com")
    del klaviyo.profiles[forgotten]
    klaviyo.lists["LiSt01"].discard(forgotten)
    for part in (made, made[:1]):
        assert {verdict.kind for verdict in await there.outlet.send(REMOVE_MEMBERS, part)} == {Kind.DELIVERED}
    assert [known["email"] for known in klaviyo.profiles.values()] == ["person.2@example.com"]
    assert not klaviyo.lists["LiSt01"] and klaviyo.problems == []


async def test_profiles_that_an_accepted_import_refuses_are_found(klaviyo: FakeKlaviyo, there: Way) -> None:
    klaviyo.fails = lambda profile: profile["email"] == "person.2@example.com"
    made = await rows(there, person(1), person(2), person(3))
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    klaviyo.names_places = False
    verdicts += await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts[3:]] == [Kind.WARNED] * 3
    assert all("@" not in verdict.reason for verdict in verdicts)


async def test_a_bad_item_does_not_hold_up_the_others(klaviyo: FakeKlaviyo, there: Way) -> None:
    bad = Row(key="k", data={"email": "no address", "subscribe": []})
    made = [*(await rows(there, person(1))), bad, *(await rows(there, person(2)))]
    for named in (True, False):
        klaviyo.names_places = named
        klaviyo.lists["LiSt01"].clear()
        kinds = [verdict.kind for verdict in await there.outlet.send(ADD_MEMBERS, made)]
        assert kinds == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
        assert len(klaviyo.lists["LiSt01"]) == 2
    events = [event("Thing Done", f"m{n}") for n in range(3)]
    mapping = {"currency": "event.message_id == 'm1' && 'EUR' || 'x'", "value": "'1'", "event_id": "event.message_id"}
    verdicts = await there.deliver(events, mapping)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3


async def test_events_are_recorded_once_with_their_profiles(klaviyo: FakeKlaviyo, there: Way) -> None:
    order = event("Order Completed", "o", properties={"revenue": "29.9", "currency": "eur", "order_id": "T1"})
    known = event("", "i", "identify", traits={"first_name": "Ada", "plan": "pro", "phone": "+49 171 1234567"})
    for batch in ([order], [order, event("Thing Done", "t")], [known], [known, known]):
        assert {verdict.kind for verdict in await there.deliver(batch)} == {Kind.DELIVERED}
    metrics = sorted(metric for _, metric, _ in klaviyo.events)
    assert metrics == ["Placed Order", "Thing Done"] and klaviyo.problems == []
    (profile,) = klaviyo.profiles.values()
    assert profile["phone_number"] == "+491711234567" and profile["properties"] == {"plan": "pro"}


async def test_consent_subscribes_and_withdrawal_unsubscribes(klaviyo: FakeKlaviyo, there: Way) -> None:
    both = {"email": ["ada@example.com"], "phone": ["+491711234567"]}
    said = {"email_marketing": "granted", "sms_marketing": "granted"}
    await there.deliver([event("trackConsent", "c1", identifiers=both, properties=said)])
    assert set(klaviyo.subscriptions.values()) == {"SUBSCRIBED"} and len(klaviyo.subscriptions) == 2
    assert klaviyo.lists["LiSt01"] == set()  # the list is that of the audience's members
    changed = {"email_marketing": "denied", "sms_marketing": "granted"}
    (verdict,) = await there.deliver([event("trackConsent", "c2", identifiers=both, properties=changed)])
    assert verdict.kind is Kind.DELIVERED
    assert klaviyo.subscriptions["ada@example.com", "email"] == "UNSUBSCRIBED"
    assert klaviyo.subscriptions["+491711234567", "sms"] == "SUBSCRIBED"
    late = event("trackConsent", "c3", properties={"email_marketing": "granted"},
                 profile=Profile(id="p", consents={"email_marketing": "denied"}))  # fmt: skip
    (verdict,) = await there.deliver([late])
    assert verdict.kind is Kind.SKIPPED and klaviyo.subscriptions["ada@example.com", "email"] == "UNSUBSCRIBED"


async def test_people_are_forgotten_by_each_identifier(klaviyo: FakeKlaviyo, there: Way) -> None:
    known = {"email": ["a@x.de", "b@x.de"], "phone": ["+491711234567"], "user_id": ["u"]}
    subjects = [Subject(profile_id="p", identifiers=known), Subject(profile_id="q", identifiers={"user_id": ["v"]})]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED]
    assert klaviyo.forgotten == ["a@x.de", "b@x.de", "+491711234567"]


async def test_settings_that_cannot_work_pause_the_destination(klaviyo: FakeKlaviyo, shared: Station) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"api_key": "wrong"}, "private key is not valid"),
        ({"list_id": "Gone"}, "does not know the list"),
        ({"revision": "2024-10-15"}, "does not answer this revision"),
    ]
    for change, reason in wrong:
        async with shared.way(settings(klaviyo, **change)) as there:
            verdicts = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2)))
            assert {verdict.kind for verdict in verdicts} == {Kind.UNTRIED} and reason in there.halted[0]
    async with shared.way(settings(klaviyo, list_id="")) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
        assert verdict.kind is Kind.REJECTED and "choose a list" in verdict.reason
    assert klaviyo.lists["LiSt01"] == set() and klaviyo.profiles == {}


async def test_failures_are_tried_again(klaviyo: FakeKlaviyo, there: Way) -> None:
    klaviyo.failures += [
        error(503, "unavailable", "later"),
        web.Response(text="<html>"),
        error(429, "throttled", "slow", headers={"Retry-After": "7"}),
    ]
    kinds = [(await there.deliver([event("Thing Done", "m")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert 5 < there.outlet.paused_s() <= 7 and klaviyo.events == {}


async def test_lists_are_shown_and_made_and_checked(klaviyo: FakeKlaviyo, shared: Station) -> None:
    known = settings(klaviyo)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(authorised(request, instance.info.auth, known, now_us=now_us()))

    klaviyo.names |= {f"L{n}": f"List {n}" for n in range(12)}
    request = await instance.lists("")
    first = await instance.read_lists(request, await ask(request))
    request = await instance.lists(first.next_page)
    second = await instance.read_lists(request, await ask(request))
    assert len(first.lists) == 10 and len(second.lists) == 3 and second.next_page == ""
    request = await instance.create_list("Mine")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert klaviyo.names[made.id] == made.name == "Mine"
    checks = await instance.check()
    assert [await instance.read_check(check, await ask(check.request)) for check in checks] == ["", ""]
    klaviyo.names.clear()
    assert "does not know the list" in await instance.read_check(checks[1], await ask(checks[1].request))
