"""Exact requests of the connectors for LinkedIn, as golden files: secrets masked, people hashed."""

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
CONVERSIONS: dict[str, Any] = {
    "access_token": "linkedin-token-for-tests",
    "conversion_rules": {"Order Completed": "104012"},
}
PERSON = {
    "identifiers": {
        "email": ["Ada.Byron+news@gmail.com"], "phone": ["+49 171 1234567"], "user_id": ["u-1"], "li_fat_id": ["f-1"],
    },
    "traits": {
        "first_name": "Ada", "last_name": "Byron-King", "country": "GB", "zip": "SW1Y 4JH", "city": "London",
        "title": "Countess", "company": {"name": "Acme"},
    },
}  # fmt: skip
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": {"id": "p-1", **PERSON},
    "context": {
        "page": {"url": "https://shop.example/thanks", "referrer": "https://shop.example/pay"},
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
    running = PluginHost(["linkedin-conversions", "linkedin-audience"])
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
        host,
        connector="linkedin-conversions",
        settings={**CONVERSIONS, **settings},
        now_us=NOW_US,
        events=lines(*events),
    )
    document = found.document()
    assert_hidden(document, CONVERSIONS["access_token"], "Ada.Byron", "ada.byron", "1234567")
    return document


async def test_conversions_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "properties": {"li_fat_id": "f-2"}}
    check_golden("plugins/linkedin_conversions_required", await rendered(host, event, conversion_rule="7"))


async def test_conversions_with_all_there_is(host: PluginHost) -> None:
    check_golden("plugins/linkedin_conversions_all", await rendered(host, ORDER))


async def test_several_conversions_and_the_end_of_a_version(host: PluginHost) -> None:
    person = {"profile": {"id": "p", "identifiers": {"email": ["b@example.com"]}}}
    events: list[dict[str, Any]] = [
        ORDER,
        {"type": "track", "event": "added_to_segment", "messageId": "i", **person},
        {"type": "track", "event": "Not Mapped", "messageId": "n", **person},
        {
            "type": "track",
            "event": "Order Completed",
            "messageId": "late",
            "timestamp": "2026-08-01T00:00:00Z",
            **person,
        },
        {"type": "track", "event": "Order Completed", "messageId": "nobody"},
    ]
    rules = {"Order Completed": "104012", "added_to_segment": "urn:lla:llaPartnerConversion:104013"}
    document = await rendered(host, *events, conversion_rules=rules, api_version="202601")
    check_golden("plugins/linkedin_conversions_several", document)


async def test_audience_members(host: PluginHost) -> None:
    """What is required alone, all there is, who is left out, and a removal."""
    device = "38400000-8CF0-11BD-B23E-10B96E40000D"
    all_there_is = {
        "email": ["b@example.com", "c@example.com"], "gaid": device, "first_name": "Ada", "last_name": "Byron",
        "job_title": "Countess", "company": "Acme", "country": "gb",
    }  # fmt: skip
    members = lines(
        {"id": "required", "identifiers": {"email": "ada@example.com"}},
        {"id": "all", "fields": all_there_is},
        {"id": "nobody", "traits": {"first_name": "Ada"}},
        {"id": "gone", "identifiers": {"email": "ada@example.com"}, "action": "remove"},
    )
    known = {"access_token": "linkedin-token-for-tests", "segment_id": "101", "account_id": "123"}
    found = await render(host, connector="linkedin-audience", settings=known, now_us=NOW_US, members=members)
    document = found.document()
    assert_hidden(document, known["access_token"], "@example.com")
    check_golden("plugins/linkedin_audience_members", document)
