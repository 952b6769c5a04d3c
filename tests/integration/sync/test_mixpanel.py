"""Mixpanel through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from headrace_sdk import EventItem, Profile, Row, Subject
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.mixpanel import FakeMixpanel

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "mixpanel"


@pytest_asyncio.fixture(loop_scope="module")
async def mixpanel() -> AsyncIterator[FakeMixpanel]:
    fake = FakeMixpanel()
    await fake.start()
    yield fake
    await fake.stop()


def settings(mixpanel: FakeMixpanel, **more: Any) -> dict[str, Any]:
    known = {"project_token": mixpanel.token, "audience": "VIPs", "group_key": "company", "base_url": mixpanel.url}
    return {**known, **more}


def account(mixpanel: FakeMixpanel) -> dict[str, Any]:
    return {
        "service_account": mixpanel.account, "service_account_secret": mixpanel.secret, "project_id": mixpanel.project,
    }  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def there(mixpanel: FakeMixpanel, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(mixpanel)) as found:
        yield found


def event(name: str, *, kind: str = "track", id: str = "", **more: Any) -> EventItem:
    moment = now_us()
    identifiers = {"user_id": ["u1"], "anonymous_id": ["a1"]}
    known = {"identifiers": identifiers, "timestamp_us": moment - 1_000, "received_at_us": moment, **more}
    return EventItem(message_id=id or f"m-{name}-{kind}".replace(" ", ""), kind=kind, name=name, **known)


async def test_events_profiles_and_groups_arrive(mixpanel: FakeMixpanel, there: Way) -> None:
    given = [
        event("Order Completed", properties={"revenue": 29.8}),
        event("", kind="identify", traits={"email": "ada@example.com", "plan": "pro"}),
        event("", kind="group", group_id="acme", traits={"seats": 7}),
        event("Home", kind="page"),
    ]
    verdicts = await there.deliver(given)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 4
    assert {name for name, *_ in mixpanel.events} == {"Order Completed", "Loaded a Page"}
    assert mixpanel.profiles == {"u1": {"$email": "ada@example.com", "plan": "pro"}}
    assert mixpanel.groups == {("company", "acme"): {"seats": 7}}
    (again,) = await there.deliver(given[:1])
    assert again.kind is Kind.DELIVERED and len(mixpanel.events) == 2


async def test_bad_records_are_found_and_the_others_stay(mixpanel: FakeMixpanel, there: Way) -> None:
    deep: dict[str, Any] = {"a": {"b": {"c": {"d": {}}}}}
    given = [event("A"), event("B", properties=deep), event("C", properties={str(n): n for n in range(300)})]
    given += [event("", kind="identify", traits={f"t{n}": n for n in range(2_001)}), event("D")]
    verdicts = await there.deliver(given)
    delivered, rejected = Kind.DELIVERED, Kind.REJECTED
    assert [verdict.kind for verdict in verdicts] == [delivered, rejected, rejected, rejected, delivered]
    assert "properties.a" in verdicts[1].reason
    assert {name for name, *_ in mixpanel.events} == {"A", "D"} and mixpanel.sizes == [4]


async def test_what_is_refused_as_a_whole_goes_on_without_the_one_at_fault(mixpanel: FakeMixpanel, there: Way) -> None:
    mixpanel.failures.append(web.json_response({"code": 413, "error": "request exceeds max limit"}, status=413))
    verdicts = await there.deliver([event(str(n)) for n in range(4)])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 4
    assert sum(mixpanel.sizes) == 4 and len(mixpanel.sizes) > 1


async def test_people_go_onto_the_audience_and_off_again(mixpanel: FakeMixpanel, there: Way) -> None:
    people = [Profile(id=f"p{n}", identifiers={"user_id": [f"u{n}"]}) for n in range(3)]
    found = await there.outlet.rows(there.members([*people, Profile(id="x", identifiers={"email": ["a@b.c"]})]))
    rows = [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]
    assert [verdict.kind for verdict in await there.outlet.send(ADD_MEMBERS, rows)] == [Kind.DELIVERED] * 3
    await there.outlet.send(REMOVE_MEMBERS, rows[:1])
    assert mixpanel.profiles == {"u0": {"Audiences": []}, "u1": {"Audiences": ["VIPs"]}, "u2": {"Audiences": ["VIPs"]}}


async def test_people_are_forgotten(mixpanel: FakeMixpanel, shared: Station, there: Way) -> None:
    mixpanel.profiles = {"u1": {}, "u2": {}}
    subjects = [Subject(profile_id="p", identifiers={"user_id": ["u1"]}), Subject(profile_id="q")]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED] and mixpanel.profiles == {"u2": {}}
    known = settings(mixpanel, gdpr_token=mixpanel.gdpr_token, **account(mixpanel))
    async with shared.way(known) as whole:
        await whole.outlet.send(DELETE_PEOPLE, subjects)
    assert mixpanel.deletions == [["u1"]]


async def test_a_service_account_is_let_in_and_checked(mixpanel: FakeMixpanel, shared: Station) -> None:
    known = settings(mixpanel, **account(mixpanel))
    async with shared.way(known) as there:
        (verdict,) = await there.deliver([event("A")])
        assert verdict.kind is Kind.DELIVERED
    for secret, problem in ((mixpanel.secret, ""), ("wrong", "refuses the service account")):
        tried = {**known, "service_account_secret": secret}
        instance = await shared.host.open(CONNECTOR, tried)
        (check,) = await instance.check()
        said = await instance.read_check(check, await send(check.request, instance.info.auth, tried))
        assert problem in said and bool(problem) == bool(said)


async def test_credentials_that_are_refused_pause_the_destination(mixpanel: FakeMixpanel, shared: Station) -> None:
    async with shared.way(settings(mixpanel, project_token="wrong")) as there:
        (verdict,) = await there.deliver([event("A")])
        assert verdict.kind is Kind.UNTRIED and "refuses the credentials" in there.halted[0]
    assert mixpanel.events == {}


async def test_failures_are_tried_again(mixpanel: FakeMixpanel, there: Way) -> None:
    mixpanel.failures += [
        web.Response(text="<html>"), web.Response(status=503),
        web.json_response({"code": 429, "error": "Project exceeded rate limits."}, status=429),
    ]  # fmt: skip
    kinds = [(await there.deliver([event("A")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and mixpanel.events == {}


async def test_settings_with_a_bad_row_do_not_reach_the_vendor(mixpanel: FakeMixpanel, there: Way) -> None:
    (verdict,) = await there.outlet.send(ADD_MEMBERS, [Row.of({"distinct_id": ""})])
    assert verdict.kind is Kind.REJECTED and mixpanel.profiles == {}
