"""Exact requests of the connectors for TikTok, as golden files: secrets masked, people hashed."""

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
EVENTS = {"access_token": "tiktok-token-for-tests", "event_source_id": "PIXEL123"}
PERSON = {
    "identifiers": {
        "email": ["Ada.Byron+news@gmail.com"], "phone": ["+49 171 1234567"], "user_id": ["u-1"], "ttp": ["cookie-1"],
    },
    "traits": {
        "first_name": "Ada", "last_name": "Byron-King", "country": "GB", "zip": "SW1Y 4JH", "city": "London",
        "state": "Greater London",
    },
}  # fmt: skip
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": {"id": "p-1", **PERSON},
    "context": {
        "page": {"url": "https://shop.example/thanks?ttclid=E.C.P.1", "referrer": "https://shop.example/pay"},
        "userAgent": "Mozilla/5.0", "ip": "203.0.113.7", "locale": "en-GB",
    },
    "properties": {
        "order_id": "T-1001", "revenue": 29.8, "total": 40, "currency": "eur",
        "products": [
            {"product_id": "p1", "sku": "S-1", "name": "Tee", "price": 14.9, "quantity": 2, "brand": "Acme",
             "category": "Shirts"},
            {"sku": "S-2", "name": "Cap"},
        ],
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["tiktok-events", "tiktok-audience"])
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


async def rendered(host: PluginHost, *events: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found = await render(
        host, connector="tiktok-events", settings={**EVENTS, **settings}, now_us=NOW_US, events=lines(*events)
    )
    document = found.document()
    assert_hidden(document, EVENTS["access_token"], "Ada.Byron", "ada.byron", "Byron-King", "1234567")
    return document


async def test_events_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}
    check_golden("plugins/tiktok_events_required", await rendered(host, event))


async def test_events_with_all_there_is(host: PluginHost) -> None:
    check_golden("plugins/tiktok_events_all", await rendered(host, ORDER, limited_data_use=True, test_event_code="T1"))


async def test_several_events(host: PluginHost) -> None:
    events: list[dict[str, Any]] = [
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y"}},
        {"type": "track", "event": "Products Searched", "messageId": "s", "userId": "u",
         "properties": {"query": "tee"}},
        {"type": "track", "event": "Product Viewed", "messageId": "v", "userId": "u",
         "properties": {"product_id": 5, "name": "Tee", "price": "5", "currency": "usd"}},
        {"type": "identify", "messageId": "identify", "userId": "u", "traits": {"plan": "pro"}},
        {"type": "track", "event": "added_to_segment", "messageId": "i", "userId": "u",
         "properties": {"audience_id": "aud-1"}},
        {"type": "track", "event": "Nobody", "messageId": "nobody"},
    ]  # fmt: skip
    check_golden("plugins/tiktok_events_several", await rendered(host, *events))


async def test_events_of_a_crm(host: PluginHost) -> None:
    lead = {
        "type": "track", "event": "Lead Qualified", "messageId": "l",
        "properties": {"lead_id": "7209", "lead_event_source": "CRM"},
    }  # fmt: skip
    document = await rendered(host, lead, event_source="crm", event_source_id="9123")
    check_golden("plugins/tiktok_events_crm", document)


async def test_audience_members(host: PluginHost) -> None:
    """What is required alone, all there is, who is left out, and a removal."""
    device = "AEBE52E7-03EE-455A-B3C4-E57283966239"
    members = lines(
        {"id": "required", "identifiers": {"email": "ada@example.com"}},
        {"id": "all", "identifiers": {"email": ["b@example.com", "c@example.com"], "phone": ["+49 171 1234567"],
                                      "idfa": [device], "gaid": [device]}},
        {"id": "nobody", "traits": {"first_name": "Ada"}},
        {"id": "gone", "identifiers": {"phone": "+49 171 1234567"}, "action": "remove"},
    )  # fmt: skip
    known = {
        "access_token": "tiktok-token-for-tests",
        "advertiser_id": "7178918106775994370",
        "audience_id": "167290896",
    }
    found = await render(host, connector="tiktok-audience", settings=known, now_us=NOW_US, members=members)
    document = found.document()
    assert_hidden(document, known["access_token"], "@example.com", '1234567"', device)
    check_golden("plugins/tiktok_audience_members", document)
