"""Exact requests of the connectors for Google, as golden files: secrets masked, people hashed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from headrace.plugins import PluginHost
from headrace.plugins.render import render
from tests.support.golden import check_golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_US = 1_796_000_000_000_000  # 29 November 2026
ANALYTICS = {"api_secret": "mp-secret-for-tests", "measurement_id": "G-TEST123456"}
AUDIENCE = {
    "customer_id": "123-456-7890", "user_list_id": "777", "client_id": "client-id-for-tests",
    "client_secret": "client-secret-for-tests", "refresh_token": "refresh-token-for-tests",
}  # fmt: skip
CONVERSIONS = {
    "customer_id": "123-456-7890", "client_id": "client-id-for-tests", "client_secret": "client-secret-for-tests",
    "refresh_token": "refresh-token-for-tests", "developer_token": "developer-token-for-tests",
    "events": {
        "Order Completed": {"conversion_action": "11"},
        "Called": {"conversion_action": "12", "kind": "call"},
        "Order Paid": {"conversion_action": "13", "kind": "enhancement"},
        "Order Updated": {"conversion_action": "11", "kind": "restatement"},
        "Order Refunded": {"conversion_action": "11", "kind": "retraction"},
    },
}  # fmt: skip
PERSON = {
    "identifiers": {
        "email": ["Ada.Byron+news@gmail.com"], "phone": ["+49 171 1234567"], "user_id": ["u-1"],
        "ga_client_id": ["1234567890.1700000000"],
    },
    "traits": {
        "first_name": "Ada", "last_name": "Byron-King", "plan": "pro", "country": "gb", "zip": "SW1Y 4JH",
        "city": "London", "street": "12 St James's Square",
    },
    "consents": {"ad_user_data": "granted", "ad_personalization": "denied"},
}  # fmt: skip
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": {"id": "p-1", **PERSON},
    "context": {
        "page": {"url": "https://shop.example/thanks?ref=1", "referrer": "https://shop.example/pay", "title": "Thanks"},
        "sessionId": 1700000000, "userAgent": "Mozilla/5.0", "ip": "203.0.113.7",
    },
    "properties": {
        "order_id": "T-1001", "revenue": 29.8, "total": 40, "tax": 5.2, "shipping": 5, "currency": "eur",
        "coupon": "SPRING", "gift": True,
        "products": [
            {"product_id": "p1", "sku": "S-1", "name": "Tee", "price": 14.9, "quantity": 2, "brand": "Acme",
             "category": "Shirts", "variant": "red", "position": 1, "url": "https://shop.example/p1"},
            {"sku": "S-2", "name": "Cap"},
        ],
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["google-analytics-4", "google-ads-audience", "google-ads-conversions"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


def lines(*values: dict[str, Any]) -> list[str]:
    return [json.dumps(value) for value in values]


def assert_hidden(document: dict[str, Any], *hidden: str) -> None:
    text = json.dumps(document)
    for value in hidden:
        assert value not in text


async def test_analytics_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}
    found = await render(host, connector="google-analytics-4", settings=ANALYTICS, now_us=NOW_US, events=lines(event))
    document = found.document()
    assert_hidden(document, ANALYTICS["api_secret"])
    check_golden("plugins/google_analytics_required", document)


async def test_analytics_with_all_there_is(host: PluginHost) -> None:
    mapping = {
        "user_properties": "{plan: profile.traits.plan}", "user_agent": "event.context.userAgent",
        "ip_override": "event.context.ip",
    }  # fmt: skip
    settings = {**ANALYTICS, "send_user_data": True, "base_url": "https://region1.google-analytics.com"}
    found = await render(
        host, connector="google-analytics-4", settings=settings, now_us=NOW_US, mapping=mapping, events=lines(ORDER)
    )
    document = found.document()
    assert_hidden(document, ANALYTICS["api_secret"], "Ada.Byron", "Byron-King", '1234567"')
    check_golden("plugins/google_analytics_all", document)


async def test_analytics_with_several_events(host: PluginHost) -> None:
    events = lines(
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y"}},
        {"type": "track", "event": "Products Searched", "messageId": "s", "userId": "u", "properties": {"query": "t"}},
        {"type": "identify", "messageId": "identify", "userId": "u", "traits": {"plan": "pro"}},
        {"type": "track", "event": "Late", "messageId": "late", "userId": "u", "timestamp": "2026-11-20T00:00:00Z"},
        {"type": "track", "event": "added_to_segment", "messageId": "i", "userId": "u", "properties": {"n": 1}},
    )  # fmt: skip
    found = await render(host, connector="google-analytics-4", settings=ANALYTICS, now_us=NOW_US, events=events)
    check_golden("plugins/google_analytics_several", found.document())


async def test_audience_members(host: PluginHost) -> None:
    """What is required alone, all there is, a removal, and who is left out."""
    members = lines(
        {"id": "required", "identifiers": {"email": "ada@example.com"}},
        {"id": "all", **PERSON, "consents": {"ad_user_data": "granted", "ad_personalization": "granted"}},
        {"id": "denied", **PERSON},
        {"id": "nobody", "traits": {"first_name": "Ada"}},
        {"id": "gone", **PERSON, "consents": {"ad_user_data": "granted"}, "action": "remove"},
    )
    settings = {**AUDIENCE, "login_customer_id": "9876543210", "consent_ad_user_data": "granted"}
    found = await render(host, connector="google-ads-audience", settings=settings, now_us=NOW_US, members=members)
    document = found.document()
    assert_hidden(document, AUDIENCE["client_secret"], AUDIENCE["refresh_token"], "Ada.Byron", "Byron-King", "ada@")
    check_golden("plugins/google_ads_audience_members", document)


@pytest.mark.parametrize("key_type", ["user_id", "mobile"])
async def test_audience_of_other_kinds(host: PluginHost, key_type: str) -> None:
    device = "aebe52e7-03ee-455a-b3c4-e57283966239"
    members = lines(
        {"id": "ada", "identifiers": {"user_id": ["u-1", "u-2"], "idfa": [device]}},
        {"id": "bob", "identifiers": {"user_id": ["u-3"], "idfa": [device]}, "action": "remove"},
    )
    settings = {**AUDIENCE, "key_type": key_type}
    found = await render(host, connector="google-ads-audience", settings=settings, now_us=NOW_US, members=members)
    check_golden(f"plugins/google_ads_audience_{key_type}", found.document())


async def test_conversions_with_what_is_required_alone(host: PluginHost) -> None:
    event = {
        "type": "track", "event": "Order Completed", "messageId": "m", "anonymousId": "a",
        "timestamp": "2026-11-29T08:00:00Z", "properties": {"gclid": "Cj0KCQ"},
    }  # fmt: skip
    found = await render(
        host, connector="google-ads-conversions", settings=CONVERSIONS, now_us=NOW_US, events=lines(event)
    )
    document = found.document()
    assert_hidden(document, *(str(CONVERSIONS[name]) for name in ("client_secret", "refresh_token", "developer_token")))
    check_golden("plugins/google_ads_conversions_required", document)


async def test_conversions_of_each_kind(host: PluginHost) -> None:
    def event(name: str, number: str, **properties: Any) -> dict[str, Any]:
        return {
            "type": "track", "event": name, "messageId": number, "timestamp": "2026-11-29T08:00:00Z",
            "profile": {"id": "p", **PERSON}, "context": {"userAgent": "Mozilla/5.0"}, "properties": properties,
        }  # fmt: skip

    events = lines(
        {**ORDER, "identifiers": {"gclid": ["Cj0KCQ"]}},
        event("Called", "call", callerId="+44 20 7946 0000", callStartDateTime="2026-11-28T08:00:00Z", value=5),
        event("Order Paid", "enhancement", order_id="T-1001"),
        event("Order Updated", "restatement", order_id="T-1001", value=20.5, currency="EUR"),
        event("Order Refunded", "retraction", order_id="T-1001"),
        event("Order Refunded", "unknown"),
        event("Other", "other"),
    )
    settings = {
        **CONVERSIONS, "login_customer_id": "9876543210", "send_cart": True, "merchant_id": "77", "environment": "web",
    }  # fmt: skip
    mapping = {"custom_variables": '{"5": profile.traits.plan}'}
    found = await render(
        host, connector="google-ads-conversions", settings=settings, now_us=NOW_US, mapping=mapping, events=events
    )
    document = found.document()
    assert_hidden(document, "Ada.Byron", "Byron-King", "+49")
    check_golden("plugins/google_ads_conversions_all", document)
