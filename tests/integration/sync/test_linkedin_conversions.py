"""LinkedIn's Conversions API through mapping, plugin process and outlet, to a vendor that keeps its rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace_sdk import EventItem, Profile
from headrace_sdk.values import sha256
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.linkedin_conversions import FakeLinkedInConversions

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "linkedin-conversions"


@pytest_asyncio.fixture(loop_scope="module")
async def linkedin() -> AsyncIterator[FakeLinkedInConversions]:
    fake = FakeLinkedInConversions()
    await fake.start()
    yield fake
    await fake.stop()


def settings(linkedin: FakeLinkedInConversions, **more: Any) -> dict[str, Any]:
    known = {"access_token": linkedin.token, "conversion_rule": "104012", "base_url": linkedin.url}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(linkedin: FakeLinkedInConversions, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(linkedin)) as found:
        yield found


def event(name: str, *, kind: str = "track", properties: dict[str, Any] | None = None, **more: Any) -> EventItem:
    profile = Profile(
        id="p1",
        identifiers={"email": ["ada@example.com"], "user_id": ["u-1"]},
        traits={"first_name": "Ada", "last_name": "Byron", "country": "gb"},
    )
    values: dict[str, Any] = {"kind": kind, "timestamp_us": now_us() - 60_000_000, "profile": profile, **more}
    return EventItem(message_id=f"m-{name}", name=name, properties=properties or {}, **values)


ORDER = {"order_id": "T-1", "revenue": 29.8, "total": 35, "currency": "eur"}
RULE = "urn:lla:llaPartnerConversion:104012"


async def test_an_order_in_segments_spec_needs_no_mapping(linkedin: FakeLinkedInConversions, there: Way) -> None:
    context = {"page": {"url": "https://shop.example/thanks?li_fat_id=f-1"}}
    verdicts = await there.deliver([event("Order Completed", properties=ORDER, context=context)])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED]
    assert linkedin.problems == []
    found = linkedin.counted[RULE, "m-Order Completed"]
    assert found["user"] == {
        "userIds": [
            {"idType": "SHA256_EMAIL", "idValue": sha256("ada@example.com")},
            {"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": "f-1"},
        ],
        "userInfo": {"firstName": "Ada", "lastName": "Byron", "countryCode": "GB"},
    }
    assert found["conversionValue"] == {"currencyCode": "EUR", "amount": "29.8"}


async def test_everything_that_is_sent_keeps_linkedins_rules(linkedin: FakeLinkedInConversions, there: Way) -> None:
    events = [
        event("Odd", properties={"value": "many", "currency": "euro", "email": "x", "gaid": "a-b"}),
        event("added_to_segment", properties={"audience_id": "a1", "value": 5, "currency": "usd"}),
        event("early", timestamp_us=now_us() + 3_600_000_000),
        event("almost", timestamp_us=now_us() - 89 * 86_400_000_000),
        event("late", timestamp_us=now_us() - 91 * 86_400_000_000),
        event("Home", kind="page"),
        event("nobody", profile=None),
    ]
    mapping = {"user_id": "profile.identifiers.user_id[0]", "gaid": "event.properties.gaid", "company": "`17`"}
    kinds = [verdict.kind for verdict in await there.deliver(events, mapping)]
    assert kinds == [Kind.DELIVERED] * 4 + [Kind.SKIPPED] * 3
    assert linkedin.problems == [] and linkedin.sizes == [4]


async def test_conversions_that_come_twice_count_once(linkedin: FakeLinkedInConversions, there: Way) -> None:
    assert there.outlet.info.idempotency == "key"
    for _ in range(2):
        await there.deliver([event("Order Completed", properties=ORDER)])
    assert len(linkedin.sizes) == 2 and len(linkedin.counted) == 1


async def test_a_refused_conversion_does_not_hold_up_the_others(
    linkedin: FakeLinkedInConversions, shared: Station
) -> None:
    rules = {"conversion_rules": {"wrong": "5"}}  # of another method: LinkedIn names the indices
    async with shared.way(settings(linkedin, **rules)) as there:
        good, refused, fine = await there.deliver([event("a"), event("wrong"), event("b")])
        assert refused.kind is Kind.REJECTED and "should be CONVERSIONS_API" in refused.reason
        assert (good.kind, fine.kind) == (Kind.DELIVERED, Kind.DELIVERED)
        assert {event_id for _, event_id in linkedin.counted} == {"m-a", "m-b"}


async def test_a_part_that_failed_goes_again(linkedin: FakeLinkedInConversions, there: Way) -> None:
    linkedin.later = {"m-b"}
    first, second = await there.deliver([event("a"), event("b")])
    assert (first.kind, second.kind) == (Kind.DELIVERED, Kind.RETRY)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"access_token": "wrong"}, "access token is not valid"), ({"api_version": "202511"}, "set a newer API version")],
)
async def test_what_pauses_the_destination(
    linkedin: FakeLinkedInConversions, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(linkedin, **wrong)) as there:
        (verdict,) = await there.deliver([event("a")])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
    assert linkedin.counted == {}


async def test_failures_are_tried_again(linkedin: FakeLinkedInConversions, there: Way) -> None:
    linkedin.failures += [
        web.Response(status=503), web.Response(text="<html>"), web.json_response({"message": "slow"}, status=429),
    ]  # fmt: skip
    kinds = [(await there.deliver([event("a")]))[0].kind for _ in range(3)]
    assert kinds == [Kind.RETRY] * 3
    assert there.outlet.paused_s() > 0 and linkedin.counted == {}
