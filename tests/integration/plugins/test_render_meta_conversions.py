"""Dry runs of the Meta Conversions API and of offline conversions: exact requests as golden files."""

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
SETTINGS = {"pixel_id": "1234567890", "access_token": "meta-access-token", "app_secret": "meta-app-secret"}
REQUIRED: list[dict[str, Any]] = [
    {
        "type": "track", "event": "Quiz taken", "messageId": "m-1", "userId": "u-1",
        "timestamp": "2026-11-29T08:00:00Z",
    },
]  # fmt: skip
ORDER: dict[str, Any] = {
    "type": "track", "event": "Order Completed", "messageId": "m-2", "userId": "u-1", "anonymousId": "a-1",
    "timestamp": "2026-11-29T08:00:00Z",
    "properties": {
        "order_id": "o-7", "revenue": 39.8, "total": 45, "currency": "EUR", "coupon": "SPRING",
        "products": [
            {"product_id": "p1", "sku": "S1", "name": "Tee", "category": "Tops", "price": 14.9, "quantity": 2},
            {"product_id": "p2", "name": "Hat", "price": "10", "quantity": 1, "brand": "Acme"},
        ],
    },
    "context": {
        "ip": "203.0.113.7", "userAgent": "Mozilla/5.0", "locale": "de-DE",
        "page": {"url": "https://shop.example/thanks?fbclid=IwAR0", "referrer": "https://shop.example/cart"},
        "fbp": "fb.1.1795000000000.1098115397",
    },
    "profile": {
        "id": "p-1",
        "identifiers": {"email": ["ada@example.com", "ada@work.example"], "phone": "+49 171 1234567", "user_id": "u-1"},
        "traits": {
            "first_name": "Ada", "last_name": "de la Cruz", "gender": "female", "date_of_birth": "1990-02-03",
            "city": "New York", "state": "New York", "zip": "10001-1234", "country": "US",
        },
    },
}  # fmt: skip
SEVERAL: list[dict[str, Any]] = [
    {"type": "page", "messageId": "m-3", "anonymousId": "a-1", "name": "Home", "timestamp": "2026-11-29T08:00:00Z"},
    {
        "type": "track", "event": "Product Added", "messageId": "m-4", "anonymousId": "a-1",
        "timestamp": "2026-11-29T08:00:01.9Z",
        "properties": {"product_id": "p1", "name": "Tee", "category": "Tops", "price": 14.9, "currency": "EUR"},
    },
    {
        "type": "track", "event": "added_to_segment", "messageId": "m-5", "timestamp": "2026-11-29T08:00:02Z",
        "properties": {"audience_id": "gold"}, "profile": {"identifiers": {"fbp": "fb.1.1795000000000.1098115397"}},
    },
    {"type": "identify", "messageId": "m-6", "userId": "u-1", "timestamp": "2026-11-29T08:00:03Z"},
    {"type": "track", "event": "Order Completed", "messageId": "m-7", "userId": "u-1"},
    {"type": "track", "event": "Quiz taken", "messageId": "m-8", "userId": "u-1", "timestamp": "2026-11-20T08:00:00Z"},
    {"type": "track", "event": "Quiz taken", "messageId": "m-9"},
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["meta-conversions", "meta-offline"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(
    host: PluginHost,
    events: list[dict[str, Any]],
    mapping: Any = None,
    connector: str = "meta-conversions",
    settings: dict[str, Any] = SETTINGS,
    **more: Any,
) -> dict[str, Any]:
    rendering = await render(
        host, connector=connector, settings={**settings, **more}, now_us=NOW_US, mapping=mapping,
        events=[json.dumps(event) for event in events],
    )  # fmt: skip
    document = rendering.document()
    for hidden in ("meta-access-token", "meta-app-secret", "ada@", "Cruz", "491711234567", '"u-1"'):
        assert all(hidden not in request["body"] + request["url"] for request in document["requests"])
    return document


async def test_an_event_with_nothing_but_what_must_be(host: PluginHost) -> None:
    check_golden("plugins/meta_conversions_required", await rendered(host, REQUIRED))


async def test_an_order_with_all_that_can_be_known(host: PluginHost) -> None:
    check_golden("plugins/meta_conversions_order", await rendered(host, [ORDER], test_event_code="TEST7"))


async def test_several_events_go_in_one_request(host: PluginHost) -> None:
    check_golden("plugins/meta_conversions_several", await rendered(host, SEVERAL, limited_data_use=True))


async def test_a_mapping_of_its_own(host: PluginHost) -> None:
    mapping = {
        "value": "event.properties.total", "custom_data": "{coupon: event.properties.coupon}",
        "email": "profile.identifiers.email[0]", "action_source": "'phone_call'",
        "fbclid": None, "event_source_url": None,
    }  # fmt: skip
    document = await rendered(host, [ORDER], mapping, event_names={"Order Completed": "Subscribe"}, app_secret=None)
    (event,) = json.loads(document["requests"][0]["body"])["data"]
    assert (event["event_name"], event["action_source"]) == ("Subscribe", "phone_call")
    assert event["custom_data"]["value"] == 45 and event["custom_data"]["coupon"] == "SPRING"
    assert isinstance(event["user_data"]["em"], str) and "fbc" not in event["user_data"]


async def test_offline_conversions(host: PluginHost) -> None:
    settings = {"dataset_id": "555", **{name: SETTINGS[name] for name in ("access_token", "app_secret")}}
    visit = {
        "type": "track", "event": "Store visited", "messageId": "m-0", "userId": "u-1",
        "timestamp": "2026-10-01T08:00:00Z", "properties": {"order_id": "r-1"},
    }  # fmt: skip
    document = await rendered(host, [visit, ORDER, *SEVERAL], None, "meta-offline", settings, upload_tag="store 7")
    check_golden("plugins/meta_offline_events", document)
    check_golden("plugins/meta_offline_required", await rendered(host, REQUIRED, None, "meta-offline", settings))


async def test_the_end_of_a_version_is_said(host: PluginHost) -> None:
    document = await rendered(host, [ORDER], api_version="v21.0")
    reason = "Meta Conversions API: the vendor stops answering version v21.0 on 2027-01-21: set a newer api_version"
    assert document["warnings"] == [{"message_id": "", "reason": reason}]
