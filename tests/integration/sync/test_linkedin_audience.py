"""LinkedIn matched audiences through mapping, plugin process and outlet, to a vendor that keeps its rules."""

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
from tests.support.vendors.linkedin_audiences import FakeLinkedInAudiences

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "linkedin-audience"
AUDIENCE = "101"


@pytest_asyncio.fixture(loop_scope="module")
async def linkedin() -> AsyncIterator[FakeLinkedInAudiences]:
    fake = FakeLinkedInAudiences()
    await fake.start()
    yield fake
    await fake.stop()


def settings(linkedin: FakeLinkedInAudiences, **more: Any) -> dict[str, Any]:
    account = {"access_token": linkedin.token, "account_id": "123", "source_platform": "HEADRACE"}
    return {**account, "segment_id": AUDIENCE, "base_url": linkedin.url, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(linkedin: FakeLinkedInAudiences, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(linkedin)) as found:
        yield found


def person(number: int) -> Profile:
    identifiers = {"email": [f"Person.{number}@Example.com"], "phone": [f"+49171123456{number % 10}"]}
    return Profile(id=f"p{number}", identifiers=identifiers)


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_audience_and_off_again(linkedin: FakeLinkedInAudiences, there: Way) -> None:
    made = await rows(there, person(1), person(2), Profile(id="p3", identifiers={"user_id": ["u"]}))
    assert len(made) == 2
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 2
    assert sha256("person.1@example.com") in linkedin.members[AUDIENCE] and len(linkedin.members[AUDIENCE]) == 2
    await there.outlet.send(REMOVE_MEMBERS, made[:1])
    assert len(linkedin.members[AUDIENCE]) == 1
    assert linkedin.sizes == [2, 1]


async def test_people_to_be_forgotten_are_taken_off(linkedin: FakeLinkedInAudiences, there: Way) -> None:
    await there.outlet.send(ADD_MEMBERS, await rows(there, person(1), person(2)))
    subjects = [Subject(profile_id="p", identifiers=person(1).identifiers), Subject(profile_id="q")]
    kinds = [verdict.kind for verdict in await there.outlet.send(DELETE_PEOPLE, subjects)]
    assert kinds == [Kind.DELIVERED, Kind.SKIPPED]
    assert linkedin.members[AUDIENCE] == {sha256("person.2@example.com")}


async def test_a_bad_element_does_not_hold_up_the_others(linkedin: FakeLinkedInAudiences, there: Way) -> None:
    ids = [[{"idType": "SHA256_EMAIL", "idValue": one}] for one in ("0" * 64, "no digest", "1" * 64)]
    verdicts = await there.outlet.send(ADD_MEMBERS, [Row.of({"userIds": one}) for one in ids])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert linkedin.members[AUDIENCE] == {"0" * 64, "1" * 64}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"access_token": "wrong"}, "access token is not valid"),
        ({"api_version": "202511"}, "set a newer API version"),
    ],
)
async def test_settings_that_cannot_work_pause_the_destination(
    linkedin: FakeLinkedInAudiences, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(linkedin, **wrong)) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, [Row.of({"firstName": "Ada", "lastName": "Byron"})])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
    assert linkedin.members == {}


async def test_failures_are_tried_again(linkedin: FakeLinkedInAudiences, there: Way) -> None:
    linkedin.failures += [
        web.Response(status=404), web.Response(text="<html>"), web.json_response({"message": "slow"}, status=429),
    ]  # fmt: skip
    row = Row.of({"firstName": "Ada", "lastName": "Byron"})
    kinds = [(await there.outlet.send(ADD_MEMBERS, [row]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and linkedin.members == {}


async def test_segments_are_shown_and_made_and_checked(linkedin: FakeLinkedInAudiences, shared: Station) -> None:
    known = settings(linkedin)
    instance = await shared.host.open(CONNECTOR, known)

    async def ask(request: Request) -> Response:
        return await send(authorised(request, instance.info.auth, known, now_us=now_us()))

    linkedin.segments |= {str(n): "USER" for n in range(1_000, 1_120)}
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
    assert linkedin.segments[made.id] == "USER" and made.name == "Mine"
    (check,) = await instance.check()
    assert await instance.read_check(check, await ask(check.request)) == ""
