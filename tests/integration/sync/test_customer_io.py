"""Customer.io through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from headrace_sdk import EventItem, Profile, Request, Response, Row, Subject
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.customer_io import FakeCustomerIo

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "customer-io"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeCustomerIo]:
    fake = FakeCustomerIo()
    await fake.start()
    yield fake
    await fake.stop()


def settings(vendor: FakeCustomerIo, **more: Any) -> dict[str, Any]:
    known = {"site_id": vendor.site_id, "api_key": vendor.api_key, "segment_id": "7", "base_url": vendor.url}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(vendor: FakeCustomerIo, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(vendor)) as found:
        yield found


def event(name: str, *, kind: str = "track", user: str = "u1", **more: Any) -> EventItem:
    moment = now_us()
    identifiers = {"anonymous_id": ["a1"], **({"user_id": [user]} if user else {})}
    known = {"identifiers": identifiers, "timestamp_us": moment - 1_000, "received_at_us": moment, **more}
    return EventItem(message_id=f"m-{name}-{kind}-{user}", kind=kind, name=name, **known)


async def test_people_groups_and_events_arrive_once(vendor: FakeCustomerIo, there: Way) -> None:
    given = [
        event("Order Completed", properties={"revenue": 29.8}),
        event("", kind="identify", traits={"email": "Ada@example.com", "plan": "pro"}),
        event("", kind="group", group_id="acme", traits={"seats": 7}),
        event("Home", kind="page"),
        event("Seen", user=""),
    ]
    for _ in range(2):
        assert [verdict.kind for verdict in await there.deliver(given)] == [Kind.DELIVERED] * 5
    assert sorted(one["name"] for one in vendor.events.values()) == ["Home", "Order Completed"]
    assert [one["anonymous_id"] for one in vendor.anonymous.values()] == ["a1"]
    assert vendor.people == {"u1": {"email": "ada@example.com", "plan": "pro", "anonymous_id": "a1"}}
    assert vendor.objects["acme"]["cio_relationships"] == [{"identifiers": {"id": "u1"}}]
    assert vendor.sizes == [4, 4]


async def test_bad_operations_are_found_and_the_others_stay(vendor: FakeCustomerIo, there: Way) -> None:
    given = [
        event("A"),
        event("B" * 101),
        event("", kind="identify", user="u2", traits={"plan": "pro"}),
        event("C"),
    ]
    mapping = {"created_at": None, "email": "'ü' && event.properties.email"}
    verdicts = await there.deliver(given, mapping)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.SKIPPED, Kind.DELIVERED, Kind.DELIVERED]
    errors = [{"batch_index": 1, "reason": "invalid", "field": "name", "message": "is odd"}]
    vendor.failures.append(web.json_response({"errors": errors}, status=207))
    verdicts = await there.deliver([event("D"), event("E"), event("F")])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    vendor.failures.append(web.json_response({"errors": [{"reason": "invalid", "message": "odd"}]}, status=400))
    verdicts = await there.deliver([event("G"), event("H")])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 2


async def test_people_go_onto_the_segment_and_off_again_and_are_forgotten(vendor: FakeCustomerIo, there: Way) -> None:
    people = [Profile(id=f"p{n}", identifiers={"user_id": [f"u{n}"]}) for n in range(3)]
    found = await there.outlet.rows(there.members([*people, Profile(id="x", identifiers={"email": ["a@b.c"]})]))
    rows = [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]
    odd = Row.of({"id": "x" * 151})
    verdicts = await there.outlet.send(ADD_MEMBERS, [*rows, odd])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3 + [Kind.REJECTED]
    await there.outlet.send(REMOVE_MEMBERS, rows[:1])
    assert vendor.members == {"u1", "u2"}
    vendor.people = {"u1": {}, "a@b.c": {}, "u2": {}}
    subjects = [
        Subject(profile_id="p", identifiers={"user_id": ["u1"], "email": ["a@b.c"]}),
        Subject(profile_id="q"),
    ]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED] and vendor.people == {"u2": {}}


@pytest.mark.parametrize(
    ("wrong", "reason"), [({"api_key": "wrong"}, "refuses the API key"), ({"segment_id": "99"}, "nothing of that name")]
)
async def test_settings_that_cannot_work_pause_the_destination(
    vendor: FakeCustomerIo, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(vendor, **wrong)) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, [Row.of({"id": "u"})])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
    assert vendor.members == set()


async def test_failures_are_tried_again(vendor: FakeCustomerIo, there: Way) -> None:
    vendor.failures += [web.Response(text="<html>"), web.Response(status=503), web.Response(status=429)]
    kinds = [(await there.deliver([event("A")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and vendor.events == {}


async def test_segments_are_shown_and_made_and_checked(vendor: FakeCustomerIo, shared: Station) -> None:
    known = settings(vendor, app_api_key=vendor.app_api_key)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(request, instance.info.auth, known)

    request = await instance.lists("")
    lists = await instance.read_lists(request, await ask(request))
    assert [(one.id, one.name) for one in lists.lists] == [("7", "Mine")] and lists.next_page == ""
    request = await instance.create_list("New")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert vendor.segments[int(made.id)] == {"name": "New", "type": "manual"}
    checks = await instance.check()
    assert [await instance.read_check(check, await ask(check.request)) for check in checks] == ["", ""]
    vendor.region = "eu"
    assert "other region" in await instance.read_check(checks[0], await ask(checks[0].request))
