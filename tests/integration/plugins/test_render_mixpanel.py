"""Exact requests of the connector for Mixpanel, as golden files: credentials masked."""

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
SETTINGS: dict[str, Any] = {"project_token": "projecttoken1"}
ACCOUNT = {
    "service_account": "sender.1.mp-service-account", "service_account_secret": "service-secret-for-tests",
    "project_id": "4711",
}  # fmt: skip
PERSON = {
    "identifiers": {"email": ["ada@example.com"], "phone": ["+491711234567"], "user_id": ["u-1"]},
    "traits": {"first_name": "Ada", "last_name": "Byron", "plan": "pro"},
}
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "5a1f2c4e-7b1d-4a56-9c3e-0d2b8f6e1a90", "userId": "u-1",
    "anonymousId": "a-1", "timestamp": "2026-11-29T08:00:00.5Z", "profile": {"id": "p-1", **PERSON},
    "context": {
        "ip": "203.0.113.7", "groupId": "acme", "locale": "en-GB",
        "page": {"url": "https://shop.example/thanks", "referrer": "https://shop.example/pay"},
        "campaign": {"source": "news", "medium": "mail", "name": "November"},
        "os": {"name": "iOS", "version": "19.1"}, "device": {"manufacturer": "Apple", "model": "iPhone18,1"},
        "screen": {"width": 390, "height": 844}, "app": {"version": "5.1", "build": "510"},
        "network": {"carrier": "T", "wifi": True, "bluetooth": False},
    },
    "properties": {
        "order_id": "T-1001", "revenue": 29.8, "currency": "EUR",
        "products": [{"product_id": "p1", "sku": "S-1", "name": "Tee", "price": 14.9, "quantity": 2}],
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["mixpanel"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


def lines(*values: dict[str, Any]) -> list[str]:
    return [json.dumps(value) for value in values]


async def rendered(host: PluginHost, settings: dict[str, Any], **what: Any) -> dict[str, Any]:
    found = await render(host, connector="mixpanel", settings={**SETTINGS, **settings}, now_us=NOW_US, **what)
    document = found.document()
    for secret in (ACCOUNT["service_account_secret"], "cHJvamVjdHRva2VuMTo="):
        assert secret not in json.dumps(document)
    return document


async def test_events_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}
    check_golden("plugins/mixpanel_required", await rendered(host, {}, events=lines(event)))


async def test_events_with_all_there_is(host: PluginHost) -> None:
    settings = {**ACCOUNT, "region": "eu", "group_key": "company_id"}
    check_golden("plugins/mixpanel_all", await rendered(host, settings, events=lines(ORDER)))


async def test_several_events(host: PluginHost) -> None:
    events: list[dict[str, Any]] = [
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y"}},
        {"type": "identify", "messageId": "identify", "userId": "u", "context": {"ip": "203.0.113.7"},
         "traits": {"email": "ada@example.com", "firstName": "Ada", "plan": "pro", "createdAt": "2026-01-02T03:04:05"}},
        {"type": "group", "messageId": "g", "userId": "u", "groupId": "acme", "traits": {"name": "Acme", "seats": 7}},
        {"type": "alias", "messageId": "alias", "userId": "u", "previousId": "old"},
        {"type": "track", "event": "added_to_segment", "messageId": "i", "userId": "u",
         "properties": {"audience_id": "aud-1"}},
        {"type": "track", "event": "Long Ago", "messageId": "old", "userId": "u", "timestamp": "1970-05-01T00:00:00Z"},
        {"type": "track", "event": "Nobody", "messageId": "nobody"},
    ]  # fmt: skip
    check_golden("plugins/mixpanel_several", await rendered(host, {"group_key": "company_id"}, events=lines(*events)))


async def test_members(host: PluginHost) -> None:
    """A member, one with two ids, one who is left out, and a removal."""
    members = lines(
        {"id": "required", "identifiers": {"user_id": "u-1"}, "traits": {"plan": "pro"}},
        {"id": "two", "identifiers": {"user_id": ["u-2", "u-3"]}},
        {"id": "nobody", "identifiers": {"email": "ada@example.com"}},
        {"id": "gone", "identifiers": {"user_id": "u-4"}, "action": "remove"},
    )
    check_golden("plugins/mixpanel_members", await rendered(host, {"audience": "VIPs"}, members=members))
