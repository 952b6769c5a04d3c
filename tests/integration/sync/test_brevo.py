"""Brevo through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from headrace_sdk import (
    Delivered,
    EventItem,
    Job,
    MemberBatch,
    Pending,
    Profile,
    Request,
    Response,
    Row,
    Subject,
    VendorList,
    Warned,
)
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.brevo import FakeBrevo

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "brevo"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeBrevo]:
    fake = FakeBrevo()
    await fake.start()
    yield fake
    await fake.stop()


def settings(vendor: FakeBrevo, **more: Any) -> dict[str, Any]:
    return {"api_key": vendor.key, "list_id": "7", "base_url": vendor.url, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(vendor: FakeBrevo, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(vendor)) as found:
        yield found


def event(name: str, *, kind: str = "track", user: str = "u1", **more: Any) -> EventItem:
    moment = now_us()
    known = {"identifiers": {"user_id": [user]}, "timestamp_us": moment - 1_000, "received_at_us": moment, **more}
    return EventItem(message_id=f"m-{name}-{kind}", kind=kind, name=name, **known)


async def test_contacts_and_events_arrive(vendor: FakeBrevo, there: Way) -> None:
    given = [
        event("Order Completed", properties={"order id": "T", "revenue": 29.8}),
        event("", kind="identify", traits={"email": "Ada@example.com", "firstName": "Ada", "phone": "+491711234567"}),
        event("Home", kind="page"),
    ]
    assert [verdict.kind for verdict in await there.deliver(given)] == [Kind.DELIVERED] * 3
    assert [one["event_name"] for one in vendor.events] == ["Order_Completed", "page_viewed"]
    assert vendor.events[0]["event_properties"] == {"order_id": "T", "revenue": 29.8}
    assert vendor.contacts == {"ada@example.com": {"FIRSTNAME": "Ada", "SMS": "+491711234567", "ext_id": "u1"}}


async def test_bad_events_are_found_and_the_others_stay(vendor: FakeBrevo, there: Way) -> None:
    errors = [{"eventIndex": [1], "message": "event_date is not valid"}]
    vendor.failures += [
        web.json_response({"status": "partial", "failed_events": 1, "errors": errors}, status=207),
        web.json_response({"code": "invalid_parameter", "message": "odd"}, status=400),
    ]
    verdicts = await there.deliver([event(name) for name in "ABC"])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    verdicts = await there.deliver([event(name) for name in "DE"])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 2
    assert [one["event_name"] for one in vendor.events] == ["D", "E"]


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_list_and_off_again_and_are_forgotten(vendor: FakeBrevo, there: Way) -> None:
    people = [Profile(id=f"p{n}", identifiers={"email": [f"P{n}@b.co"], "user_id": [f"u{n}"]}) for n in range(3)]
    made = await rows(there, *people, Profile(id="x", identifiers={"user_id": ["x"]}))
    odd = Row.of({"email": "odd"})
    verdicts = await there.outlet.send(ADD_MEMBERS, [*made, odd])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3 + [Kind.REJECTED]
    verdicts = await there.outlet.send(REMOVE_MEMBERS, made[:1])
    assert verdicts[0].kind is Kind.DELIVERED and vendor.members[7] == {"p1@b.co", "p2@b.co"}
    verdicts = await there.outlet.send(REMOVE_MEMBERS, made[:1])
    assert verdicts[0].kind is Kind.DELIVERED  # not on the list: nothing is to be done
    subject = Subject(profile_id="p1", identifiers={"email": ["p1@b.co", "old@b.co"], "user_id": ["u1", "u2"]})
    verdicts = await there.outlet.send(DELETE_PEOPLE, [subject, Subject(profile_id="q")])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.SKIPPED]
    assert vendor.deleted == ["p1@b.co", "p2@b.co"] and vendor.members[7] == set()


async def test_contacts_that_are_there_go_onto_the_list_by_150(vendor: FakeBrevo, shared: Station) -> None:
    vendor.contacts = {f"p{n}@b.co": {} for n in range(200)}
    async with shared.way(settings(vendor, creates_contacts=False)) as there:
        given = [Row.of({"email": f"p{n}@b.co"}) for n in range(199)] + [Row.of({"email": "nobody@b.co"})]
        verdicts = await there.outlet.send(ADD_MEMBERS, given)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 199 + [Kind.WARNED]
    assert sorted(vendor.sizes) == [50, 150] and len(vendor.members[7]) == 199


@pytest.mark.parametrize(
    ("wrong", "reason"), [({"api_key": "wrong"}, "does not let"), ({"list_id": "99"}, "look at the list")]
)
async def test_settings_that_cannot_work_pause_the_destination(
    vendor: FakeBrevo, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(vendor, **wrong)) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, [Row.of({"email": "a@b.co"})])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
    assert vendor.contacts == {}


async def test_failures_are_tried_again(vendor: FakeBrevo, there: Way) -> None:
    limit = {"x-sib-ratelimit-reset": "5"}
    vendor.failures += [
        web.Response(text="<html>"), web.Response(status=503), web.Response(status=429, headers=limit),
    ]  # fmt: skip
    kinds = [(await there.deliver([event("A")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and vendor.events == []


async def test_imports_lists_and_checks(vendor: FakeBrevo, shared: Station) -> None:
    known = settings(vendor, import_from=2)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(request, instance.info.auth, known)

    for emails, expected in ((["a@b.co", "b@b.co"], Delivered), (["c@b.co", "odd"], Warned)):
        batch = MemberBatch(rows=tuple(Row.of({"email": one, "ext_id": one}) for one in emails), now_us=now_us())
        (request,) = (await instance.add_members(batch)).requests
        first = (await instance.read(request, await ask(request))).items
        assert len(first) == 2 and isinstance(first[0], Pending)
        poll = await instance.poll(Job(id=first[0].job, items=2, now_us=now_us()))
        assert [type(one) for one in (await instance.read(poll, await ask(poll))).items] == [expected] * 2
    assert vendor.members[7] == {"a@b.co", "b@b.co", "c@b.co"} and vendor.contacts["a@b.co"] == {"EXT_ID": "a@b.co"}

    vendor.lists |= {n: f"L{n}" for n in range(1_000, 1_060)}
    vendor.members |= {n: set() for n in vendor.lists if n not in vendor.members}
    found: list[VendorList] = []
    page = ""
    for _ in range(2):
        request = await instance.lists(page)
        lists = await instance.read_lists(request, await ask(request))
        found += lists.lists
        page = lists.next_page
    assert len(found) == 61 and page == "" and found[0] == VendorList(id="7", name="Mine", size=3)
    request = await instance.create_list("New")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert vendor.lists[int(made.id)] == made.name == "New"
    checks = await instance.check()
    assert [await instance.read_check(check, await ask(check.request)) for check in checks] == ["", ""]
