"""Google Analytics 4 through mapping, plugin process and outlet, to a vendor that keeps the documented rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.google_analytics import FakeAnalytics

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "google-analytics-4"


@pytest_asyncio.fixture(loop_scope="module")
async def google() -> AsyncIterator[FakeAnalytics]:
    fake = FakeAnalytics()
    await fake.start()
    yield fake
    await fake.stop()


def settings(google: FakeAnalytics, **more: Any) -> dict[str, Any]:
    known = {"api_secret": google.api_secret, "measurement_id": "G-TEST123456", "base_url": google.url}
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(google: FakeAnalytics, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(google, send_user_data=True)) as found:
        yield found


def event(name: str, *, kind: str = "track", properties: dict[str, Any] | None = None, **more: Any) -> EventItem:
    profile = Profile(
        id="p1",
        identifiers={"email": ["ada@example.com"], "user_id": ["u-1"], "ga_client_id": ["123.456"]},
        traits={"first_name": "Ada", "country": "gb"},
        consents={"ad_user_data": "granted"},
    )
    values: dict[str, Any] = {"kind": kind, "timestamp_us": now_us() - 60_000_000, "profile": profile, **more}
    return EventItem(message_id=f"m-{name}", name=name, properties=properties or {}, **values)


ORDER = {
    "order_id": "T-1", "revenue": 29.8, "total": 35, "tax": 5.2, "currency": "eur", "coupon": "SPRING",
    "products": [{"product_id": "p1", "name": "Tee", "price": "14.9", "quantity": 2, "brand": "Acme"}],
    "gift": True, "comment": "x" * 200, "nested": {"a": 1},
}  # fmt: skip


async def test_an_order_in_segments_spec_needs_no_mapping(google: FakeAnalytics, there: Way) -> None:
    context = {"page": {"url": "https://shop.example/thanks", "title": "Thanks"}, "sessionId": 1_700_000_000}
    verdicts = await there.deliver([event("Order Completed", properties=ORDER, context=context)])
    assert [verdict.kind for verdict in verdicts] == [Kind.WARNED]
    assert google.dropped == []
    (body,) = google.counted
    assert (
        body["client_id"] == "123.456" and body["user_id"] == "u-1" and body["consent"] == {"ad_user_data": "GRANTED"}
    )
    assert body["user_data"]["address"][0]["country"] == "GB"
    (purchase,) = body["events"]
    assert purchase["name"] == "purchase"
    assert purchase["params"] == {
        "currency": "EUR", "value": 29.8, "transaction_id": "T-1", "coupon": "SPRING", "tax": 5.2,
        "page_location": "https://shop.example/thanks", "page_title": "Thanks",
        "items": [{"item_id": "p1", "item_name": "Tee", "item_brand": "Acme", "price": 14.9, "quantity": 2}],
        "session_id": 1_700_000_000, "engagement_time_msec": 1,
        "total": 35, "gift": True, "comment": "x" * 100,
    }  # fmt: skip


async def test_everything_that_is_sent_keeps_googles_rules(google: FakeAnalytics, there: Way) -> None:
    odd = {"a b": 1, "_x": 1, "ga_x": 1, "x" * 50: 1, "list": [1], **{f"p{n}": "v" * 200 for n in range(40)}}
    events = [
        event("Product Viewed", properties={"product_id": 5, "name": "Tee", "price": "5", "currency": "usd"}),
        event("Products Searched", properties={"query": "shoes"}),
        event("Something Odd!", properties=odd),
        event("Home", kind="page", properties={"url": "https://x.example/" + "p" * 2000, "search": ""}),
        event("added_to_segment", properties={"audience_id": "a1"}),
        event("", kind="group", group_id="acme"),
        event("session_start"),
        event("", kind="identify"),
        event("late", timestamp_us=now_us() - 80 * 3_600_000_000),
        event("early", timestamp_us=now_us() + 3_600_000_000),
    ]
    mapping = {"user_properties": "profile.traits", "device": "event.context.device"}
    kinds = [verdict.kind for verdict in await there.deliver(events, mapping)]
    sent, remarked, left_out = Kind.DELIVERED, Kind.WARNED, Kind.SKIPPED
    assert kinds == [sent, sent, remarked, remarked, sent, sent, left_out, left_out, left_out, sent]
    assert google.dropped == []
    names = sorted(body["events"][0]["name"] for body in google.counted)
    assert names == ["Something_Odd", "added_to_segment", "early", "join_group", "page_view", "search", "view_item"]


async def test_an_app_stream(google: FakeAnalytics, shared: Station) -> None:
    app = settings(google, measurement_id="", firebase_app_id="1:42:android:abc")
    async with shared.way(app) as there:
        context = {"app_instance_id": "f" * 32}
        verdicts = await there.deliver([event("Home", kind="screen", context=context), event("Order Completed")])
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.SKIPPED]
    assert google.dropped == []
    assert google.counted[0]["events"][0]["params"]["screen_name"] == "Home"


async def test_the_validation_server_says_what_is_wrong(google: FakeAnalytics, shared: Station) -> None:
    async with shared.way(settings(google, validation_only=True)) as there:
        right, wrong = await there.deliver(
            [
                event("Order Completed", properties=ORDER),
                event("Order Completed", properties={**ORDER, "currency": "euro"}),
            ]
        )
    assert right.kind is Kind.WARNED and "nothing is counted" in right.reason
    assert wrong.kind is Kind.REJECTED and "VALUE_INVALID at events[0].params.currency" in wrong.reason
    assert google.counted == []


async def test_a_lost_answer_is_not_repeated_and_failures_are(google: FakeAnalytics, there: Way) -> None:
    assert there.outlet.info.idempotency == "none"
    google.failures += [web.Response(status=503), web.Response(status=429, headers={"Retry-After": "2"})]
    (failed,) = await there.deliver([event("a")])
    assert (failed.kind, failed.code) == (Kind.RETRY, 503)
    (slow,) = await there.deliver([event("a")])
    assert (slow.kind, slow.after_s) == (Kind.RETRY, 2.0)
    assert 0 < there.outlet.paused_s() <= 2.0


async def test_a_wrong_address_pauses_the_destination(google: FakeAnalytics, there: Way) -> None:
    google.failures.append(web.Response(status=404))
    (verdict,) = await there.deliver([event("a")])
    assert verdict.kind is Kind.UNTRIED and "not that of Google Analytics" in there.halted[0]
