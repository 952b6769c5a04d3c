"""Google Ads conversions through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace.plugins.authentication import authorised
from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.google_ads import FakeGoogleAds, failed

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "google-ads-conversions"
EVENTS = {
    "Order Completed": {"conversion_action": "11"},
    "Called": {"conversion_action": "12", "kind": "call"},
    "Paid": {"conversion_action": "13", "kind": "enhancement"},
    "Changed": {"conversion_action": "11", "kind": "restatement"},
    "Order Refunded": {"conversion_action": "11", "kind": "retraction"},
}


@pytest_asyncio.fixture(loop_scope="module")
async def google() -> AsyncIterator[FakeGoogleAds]:
    fake = FakeGoogleAds()
    await fake.start()
    yield fake
    await fake.stop()


def settings(google: FakeGoogleAds, **more: Any) -> dict[str, Any]:
    known = {
        "customer_id": google.account, "login_customer_id": google.manager, "events": EVENTS, "client_id": "client",
        "developer_token": google.developer_token, "client_secret": "hush", "refresh_token": google.refresh_token,
        "base_url": google.url, "token_url": f"{google.url}/token",
    }  # fmt: skip
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(google: FakeGoogleAds, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(google)) as found:
        yield found


def event(name: str, number: int = 1, *, click: str = "", **properties: Any) -> EventItem:
    profile = Profile(
        id=f"p{number}",
        identifiers={"email": [f"Person.{number}@Gmail.com"], "phone": ["+49 171 1234567"]},
        traits={"first_name": "Ada", "last_name": "Byron", "zip": "1", "country": "gb", "city": "London"},
        consents={"ad_user_data": "granted"},
    )
    return EventItem(
        message_id=f"m-{name}-{number}", kind="track", name=name, timestamp_us=now_us() - 1_000_000 * number,
        identifiers={"gclid": [click]} if click else {}, properties=properties, profile=profile,
        context={"userAgent": "Mozilla/5.0"},
    )  # fmt: skip


ORDER: dict[str, Any] = {
    "revenue": 29.9,
    "currency": "eur",
    "products": [{"product_id": "p1", "quantity": 2, "price": 14.95}],
}


async def test_each_kind_arrives_as_google_wants_it(google: FakeGoogleAds, there: Way) -> None:
    events = [
        event("Order Completed", click="Cj0", order_id="T-1", **ORDER),
        event("Order Completed", 2, order_id="T-2", **ORDER),
        event("Called", caller_id="+44 20 7946 0000", call_start_time="2026-11-20T08:00:00Z", value=5, currency="GBP"),
        event("Paid", order_id="T-3"),
        event("Changed", order_id="T-1", value=20, currency="EUR"),
        event("Order Refunded", order_id="T-2"),
        event("Something else", click="Cj1"),
    ]
    kinds = [verdict.kind for verdict in await there.deliver(events)]
    assert kinds == [Kind.DELIVERED] * 6 + [Kind.SKIPPED]
    assert sorted(google.requests) == [
        ("uploadCallConversions", 1), ("uploadClickConversions", 2), ("uploadConversionAdjustments", 3),
    ]  # fmt: skip
    click = next(one for one in google.counted if one.get("gclid") == "Cj0")
    assert click["conversionValue"] == 29.9 and click["consent"] == {"adUserData": "GRANTED"}
    enhanced = next(one for one in google.counted if one.get("adjustmentType") == "ENHANCEMENT")
    assert len(enhanced["userIdentifiers"]) == 3 and enhanced["userAgent"] == "Mozilla/5.0"


async def test_a_partial_failure_concerns_one_conversion(google: FakeGoogleAds, there: Way) -> None:
    google.too_recent = {"young"}
    events = [event("Order Completed", n, click=click) for n, click in enumerate(["a", "young", "b"])]
    verdicts = await there.deliver(events)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.RETRY, Kind.DELIVERED]
    assert verdicts[1].after_s == 6 * 3600 and there.outlet.info.retry.max_age_s > 6 * 3600
    google.too_recent = set()
    (again,) = await there.deliver([events[1]])
    assert again.kind is Kind.DELIVERED and len(google.counted) == 3


async def test_a_conversion_that_is_sent_twice_is_counted_once(google: FakeGoogleAds, there: Way) -> None:
    order = event("Order Completed", click="a", order_id="T-1")
    unmatched = event("Order Completed", 2)
    for expected in (Kind.DELIVERED, Kind.WARNED):
        verdicts = await there.deliver([order, unmatched])
        assert [verdict.kind for verdict in verdicts] == [expected] * 2
    assert len(google.counted) == 2


async def test_the_answer_to_a_full_request_is_read_to_its_end(google: FakeGoogleAds, there: Way) -> None:
    """Google repeats what identifies each conversion, so a long request has a long answer."""
    most = there.outlet.info.batch.max_items
    verdicts = await there.deliver([event("Order Completed", n, click=f"{'c' * 90}{n}", **ORDER) for n in range(most)])
    assert {verdict.kind for verdict in verdicts} == {Kind.DELIVERED}
    assert google.requests == [("uploadClickConversions", most)] and most == 1_000


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"developer_token": "other"}, "DEVELOPER_TOKEN_INVALID"),
        ({"login_customer_id": "1111111111"}, "USER_PERMISSION_DENIED"),
        ({"refresh_token": "revoked"}, "invalid_grant"),
        ({"api_version": "v22"}, "set a newer one"),
        ({"events": {"Order Completed": {"conversion_action": "99"}}}, "a conversion action is not in the account"),
    ],
)
async def test_settings_that_cannot_work_stop_the_destination(
    google: FakeGoogleAds, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(google, **wrong)) as there:
        (verdict,) = await there.deliver([event("Order Completed", click="a")])
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
        assert "other" not in there.halted[0].split() and "revoked" not in there.halted[0]
    assert google.counted == []


async def test_terms_that_are_not_accepted_stop_it_and_lose_nothing(google: FakeGoogleAds, there: Way) -> None:
    google.accepts_contact_data = False
    (verdict,) = await there.deliver([event("Order Completed", click="a")])
    assert verdict.kind is Kind.UNTRIED and "accept the customer data terms" in there.halted[0]


async def test_throttling_and_failures(google: FakeGoogleAds, there: Way) -> None:
    order = event("Order Completed", click="a")
    google.failures.append(failed(400, "ABORTED", {"databaseError": "CONCURRENT_MODIFICATION"}))
    (failure,) = await there.deliver([order])
    assert failure.kind is Kind.RETRY and "CONCURRENT_MODIFICATION" in failure.reason
    details = {"quotaErrorDetails": {"retryDelay": "3s"}}
    google.failures.append(failed(429, "X", {"quotaError": "RESOURCE_EXHAUSTED"}, as_list=True, details=details))
    (slow,) = await there.deliver([order])
    assert (slow.kind, slow.after_s) == (Kind.RETRY, 3.0)


async def test_the_check_finds_a_missing_conversion_action(google: FakeGoogleAds, there: Way) -> None:
    for actions, said in (({"11", "12", "13"}, ""), ({"11", "12"}, "the conversion action 13 is not in the account")):
        google.actions = dict.fromkeys(sorted(actions), "click")
        google.tokens.add("by-hand")
        instance = await there.host.open(CONNECTOR, settings(google))
        (check,) = await instance.check()
        request = authorised(check.request, there.outlet.info.auth, settings(google), now_us=0, token="by-hand")
        assert await instance.read_check(check, await send(request)) == said
