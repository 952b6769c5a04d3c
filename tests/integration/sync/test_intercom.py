"""Intercom through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from tests.support.vendors.intercom import FakeIntercom, error, in_seconds

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "intercom"


@pytest_asyncio.fixture(loop_scope="module")
async def intercom() -> AsyncIterator[FakeIntercom]:
    fake = FakeIntercom()
    await fake.start()
    yield fake
    assert "an address in a URL" not in fake.problems
    await fake.stop()


def settings(intercom: FakeIntercom, **more: Any) -> dict[str, Any]:
    return {"access_token": intercom.token, "list_id": "21", "base_url": intercom.url, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(intercom: FakeIntercom, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(intercom)) as found:
        yield found


def person(number: int) -> Profile:
    identifiers = {"email": [f"Person.{number}@Example.com"], "user_id": [f"u{number}"]}
    return Profile(id=f"p{number}", identifiers=identifiers, traits={"firstName": "Ada"})


def event(name: str, message_id: str, kind: str = "track", **more: Any) -> EventItem:
    known = {"identifiers": {"user_id": ["u1"], "email": ["ada@example.com"]}, "timestamp_us": now_us()}
    return EventItem(message_id=message_id, kind=kind, name=name, **{**known, **more})


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_get_the_tag_and_lose_it(intercom: FakeIntercom, there: Way) -> None:
    """Also those whom Intercom has already, and those whom it has twice or not at all."""
    intercom.contacts["5ba682d23d7cf92bef87bfaa"] = {"email": "person.1@example.com"}
    made = await rows(there, person(1), person(2), person(3))
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3
    assert intercom.tagged() == {"", "u2", "u3"}
    intercom.contacts["5ba682d23d7cf92bef87bfbb"] = {"email": "person.2@example.com"}
    intercom.tags["21"].add("5ba682d23d7cf92bef87bfbb")
    verdicts = await there.outlet.send(REMOVE_MEMBERS, [*made[:2], *(await rows(there, person(9)))])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3
    assert intercom.tagged() == {"u3"} and intercom.problems == []


async def test_contacts_are_made_and_brought_up_to_date(intercom: FakeIntercom, there: Way) -> None:
    traits = {"firstName": "Ada", "lastName": "Byron", "plan": "pro", "createdAt": "2026-01-31T08:15:30Z"}
    first = event("", "i1", "identify", traits=traits)
    denied = Profile(id="p", identifiers={}, consents={"email_marketing": "denied"})
    second = event("", "i2", "identify", traits={"plan": "free", "seats": 3}, profile=denied)
    for one in (first, second):
        assert [verdict.kind for verdict in await there.deliver([one])] == [Kind.DELIVERED]
    (contact,) = intercom.contacts.values()
    assert contact == {
        "role": "user", "external_id": "u1", "email": "ada@example.com", "name": "Ada Byron",
        "signed_up_at": 1769847330, "custom_attributes": {"plan": "free", "seats": 3}, "unsubscribed_from_emails": True,
    }  # fmt: skip
    unknown = event("", "i3", "identify", identifiers={"user_id": ["u5"]}, traits={"nothing_like_it": 1})
    intercom.contacts["5ba682d23d7cf92bef87bfcc"] = {"external_id": "old"}
    intercom.archived.add("5ba682d23d7cf92bef87bfcc")
    archived = event("", "i4", "identify", identifiers={"user_id": ["old"]})
    verdicts = await there.deliver([unknown, archived, event("", "i5", "identify", identifiers={})])
    assert [verdict.kind for verdict in verdicts] == [Kind.REJECTED, Kind.REJECTED, Kind.SKIPPED]
    assert "nothing_like_it" in verdicts[0].reason and "archived" in verdicts[1].reason


async def test_events_of_people_whom_intercom_does_not_know_make_them(intercom: FakeIntercom, there: Way) -> None:
    order = event("Order Completed", "o", properties={"total": 29.9, "products": [{"sku": "s"}], "coupon": None})
    (verdict,) = await there.deliver([order])
    assert verdict.kind is Kind.RETRY and intercom.events == {}
    for _ in range(2):
        (verdict,) = await there.deliver([order])
        assert verdict.kind is Kind.DELIVERED
    ((_, name, _),) = intercom.events
    (sent,) = intercom.events.values()
    assert name == "Order Completed" and sent["metadata"] == {"total": 29.9} and intercom.problems == []


async def test_people_are_forgotten_by_all_that_is_known(intercom: FakeIntercom, there: Way) -> None:
    await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2), person(3)))
    known = {"email": ["Person.1@example.com"], "user_id": ["u2", "u7"]}
    subjects = [
        Subject(profile_id="p", identifiers=known),
        Subject(profile_id="q", identifiers={"user_id": ["u8"]}),
        Subject(profile_id="r", identifiers={"phone": ["+491711234567"]}),
    ]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.DELIVERED, Kind.SKIPPED]
    assert len(intercom.forgotten) == 2 and [one["external_id"] for one in intercom.contacts.values()] == ["u3"]


async def test_settings_that_cannot_work_pause_the_destination(intercom: FakeIntercom, shared: Station) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"access_token": "wrong"}, "access token is not valid"),
        ({"api_version": "2.99"}, "set another API version"),
        ({"list_id": "99"}, "does not know the tag"),
    ]
    for change, reason in wrong:
        async with shared.way(settings(intercom, **change)) as there:
            (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
            assert verdict.kind in (Kind.UNTRIED, Kind.LOST) and reason in there.halted[0]
    async with shared.way(settings(intercom, list_id="")) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
        assert verdict.kind is Kind.REJECTED and "choose a tag" in verdict.reason
    assert intercom.tagged() == set()


async def test_failures_are_tried_again(intercom: FakeIntercom, there: Way) -> None:
    intercom.failures += [
        error(503, "service_unavailable", "later"),
        web.Response(text="<html>"),
        error(429, "rate_limit_exceeded", "slow", headers=in_seconds(60)),
    ]
    kinds = [(await there.deliver([event("Thing Done", "m")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert 40 < there.outlet.paused_s() <= 60 and intercom.events == {}


async def test_tags_are_shown_and_made_and_checked(intercom: FakeIntercom, shared: Station) -> None:
    known = settings(intercom)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(authorised(request, instance.info.auth, known, now_us=now_us()))

    request = await instance.create_list("Mine")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert intercom.names[made.id] == made.name == "Mine"
    request = await instance.lists("")
    found = await instance.read_lists(request, await ask(request))
    assert [one.name for one in found.lists] == ["Everybody", "Mine"] and found.next_page == ""
    checks = await instance.check()
    assert [await instance.read_check(check, await ask(check.request)) for check in checks] == ["", ""]
    intercom.names.clear()
    assert "does not know the tag" in await instance.read_check(checks[1], await ask(checks[1].request))
