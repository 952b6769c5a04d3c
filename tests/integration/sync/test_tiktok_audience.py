"""TikTok audiences through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

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
from headrace_sdk import Profile, Request, Response, Row, Subject, VendorList
from headrace_sdk.values import sha256
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.tiktok_audiences import FakeTikTokAudiences
from tests.support.vendors.tiktok_events import answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "tiktok-audience"
AUDIENCE = "167290896"


@pytest_asyncio.fixture(loop_scope="module")
async def tiktok() -> AsyncIterator[FakeTikTokAudiences]:
    fake = FakeTikTokAudiences()
    await fake.start()
    yield fake
    await fake.stop()


def settings(tiktok: FakeTikTokAudiences, **more: Any) -> dict[str, Any]:
    known = {
        "access_token": tiktok.token,
        "advertiser_id": tiktok.account,
        "audience_id": "167290896",
        "base_url": tiktok.url,
    }
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(tiktok: FakeTikTokAudiences, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(tiktok)) as found:
        yield found


def person(number: int) -> Profile:
    identifiers = {"email": [f"Person.{number}@Example.com"], "phone": [f"+49171123456{number % 10}"]}
    return Profile(id=f"p{number}", identifiers=identifiers)


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_audience_and_off_again(tiktok: FakeTikTokAudiences, there: Way) -> None:
    made = await rows(there, person(1), person(2), Profile(id="p3", identifiers={"phone": ["+491711234569"]}))
    assert len(made) == 3
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 3
    assert sha256("person.1@example.com") in tiktok.members[AUDIENCE] and len(tiktok.members[AUDIENCE]) == 5
    await there.outlet.send(REMOVE_MEMBERS, made[:1])
    assert len(tiktok.members[AUDIENCE]) == 3
    assert tiktok.problems == [] and tiktok.bodies[0]["id_schema"] == ["EMAIL_SHA256", "PHONE_SHA256"]


async def test_people_to_be_forgotten_are_taken_off(tiktok: FakeTikTokAudiences, there: Way) -> None:
    await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2)))
    subjects = [Subject(profile_id="p", identifiers=person(1).identifiers), Subject(profile_id="q")]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED]
    assert tiktok.members[AUDIENCE] == {sha256("person.2@example.com"), sha256("+491711234562")}


@pytest.mark.parametrize("named", [True, False])
async def test_a_bad_row_does_not_hold_up_the_others(tiktok: FakeTikTokAudiences, there: Way, named: bool) -> None:
    tiktok.names_rows = named
    made = [Row.of({"EMAIL_SHA256": one}) for one in ("0" * 64, "no digest", "1" * 64)]
    kinds = [verdict.kind for verdict in await there.outlet.send(ADD_MEMBERS, made)]
    assert kinds == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert tiktok.members[AUDIENCE] == {"0" * 64, "1" * 64}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"access_token": "wrong"}, "access token is not valid"),
        ({"advertiser_id": "1"}, "may not change audiences"),
        ({"audience_id": "1"}, "TikTok does not know it"),
    ],
)
async def test_settings_that_cannot_work_pause_the_destination(
    tiktok: FakeTikTokAudiences, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(tiktok, **wrong)) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, [Row.of({"EMAIL_SHA256": "0" * 64})])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
    assert tiktok.members == {}


async def test_failures_that_say_200_are_tried_again(tiktok: FakeTikTokAudiences, there: Way) -> None:
    tiktok.failures += [answer(50000, "System error"), web.Response(text="<html>"), answer(40100, "Too many requests")]
    row = Row.of({"EMAIL_SHA256": "0" * 64})
    kinds = [(await there.outlet.send(ADD_MEMBERS, [row]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and tiktok.members == {}


async def test_audiences_are_shown_and_made_and_checked(tiktok: FakeTikTokAudiences, shared: Station) -> None:
    known = settings(tiktok)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(authorised(request, instance.info.auth, known, now_us=now_us()))

    tiktok.names |= {str(n): f"Audience {n}" for n in range(120)}
    found: list[VendorList] = []
    page = ""
    for _ in range(2):
        request = await instance.lists(page)
        lists = await instance.read_lists(request, await ask(request))
        found += lists.lists
        page = lists.next_page
    assert len(found) == 121 and page == ""
    request = await instance.create_list("Mine")
    (made,) = (await instance.read_lists(request, await ask(request))).lists
    assert tiktok.names[made.id] == made.name == "Mine"
    (check,) = await instance.check()
    assert await instance.read_check(check, await ask(check.request)) == ""
