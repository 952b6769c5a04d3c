"""Exact requests of the connector for Intercom, as golden files: secrets masked."""

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
SETTINGS = {"access_token": "token-for-tests", "list_id": "21"}
TRAITS = {
    "email": "Ada@Example.com", "phone": "+49 171 1234567", "firstName": "Ada", "lastName": "Byron",
    "title": "Countess",
    "company": {"name": "Analytical Engines"}, "avatar": "https://img.example/ada.png", "plan": "pro", "seats": 3,
    "address": {"street": "12 St James's Square", "city": "London", "state": "Greater London", "postalCode": "SW1Y 4JH",
                "country": "United Kingdom"},
}  # fmt: skip
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "userId": "u-1", "anonymousId": "d-1",
    "context": {"ip": "203.0.113.7", "locale": "en-GB", "traits": {"email": "Ada@Example.com", "firstName": "Ada"}},
    "properties": {
        "order_id": "T-1001", "revenue": 29.8, "total": 40, "currency": "eur",
        "products": [{"product_id": "p1", "sku": "S-1", "name": "Tee", "price": 14.9, "quantity": 2}],
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["intercom"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, *, events: Any = (), members: Any = (), **settings: Any) -> dict[str, Any]:
    found = await render(
        host,
        connector="intercom",
        settings={**SETTINGS, **settings},
        now_us=NOW_US,
        events=[json.dumps(one) for one in events] if events else None,
        members=[json.dumps(one) for one in members] if members else None,
    )
    document = found.document()
    assert SETTINGS["access_token"] not in json.dumps(document)
    return document


async def test_events_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "traits": {"email": "a@example.com"}}
    check_golden("plugins/intercom_required", await rendered(host, events=[event]))


async def test_an_order_with_all_there_is(host: PluginHost) -> None:
    check_golden("plugins/intercom_order", await rendered(host, events=[ORDER]))


async def test_an_identify_event_with_all_there_is(host: PluginHost) -> None:
    event = {"type": "identify", "messageId": "i", "userId": "u-1", "traits": TRAITS}
    check_golden("plugins/intercom_identify", await rendered(host, events=[event]))


async def test_several_events(host: PluginHost) -> None:
    events: list[dict[str, Any]] = [
        ORDER,
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y"}},
        {"type": "track", "event": "added_to_segment", "messageId": "s", "context": {"traits": {"email": "a@x.de"}},
         "properties": {"audience_id": "aud-1", "audience_name": "Big spenders"}},
        {"type": "identify", "messageId": "i1", "userId": "u", "traits": {"email": "V@example.com"}},
        {"type": "identify", "messageId": "i2", "userId": "v", "traits": {"email": "v@example.com"}},
        {"type": "group", "messageId": "g", "userId": "u", "groupId": "acme"},
        {"type": "track", "event": "Nobody", "messageId": "nobody"},
    ]  # fmt: skip
    check_golden("plugins/intercom_several", await rendered(host, events=events))


async def test_members(host: PluginHost) -> None:
    """What is required alone, all there is, who is left out, and removals."""
    known = {"email": ["ada@example.com"], "phone": ["+491711234567"], "user_id": ["u-1"]}
    members: list[dict[str, Any]] = [
        {"id": "required", "identifiers": {"email": "b@example.com"}},
        {"id": "all", "identifiers": known, "traits": TRAITS},
        {"id": "nobody", "traits": {"first_name": "Ada"}},
        {"id": "gone", "identifiers": known, "action": "remove"},
    ]
    check_golden("plugins/intercom_members", await rendered(host, members=members))
