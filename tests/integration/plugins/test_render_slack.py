"""Exact requests of the Slack connector, as golden files: secrets masked."""

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
WEBHOOK = {"webhook_url": "https://hooks.slack.com/services/T0/B0/secret-for-tests"}
BOT = {"bot_token": "xoxb-secret-for-tests", "channel": "C1"}
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": {
        "id": "p-1", "identifiers": {"email": ["ada@example.com"], "user_id": ["u-1"], "phone": ["+491711234567"]},
        "traits": {"first_name": "Ada", "last_name": "<!channel>", "plan": "pro"},
    },
    "context": {"page": {"url": "https://shop.example/thanks"}},
    "properties": {"order_id": "T-1001", "revenue": 29.8, "currency": "EUR", "products": [{"sku": "S-1"}]},
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["slack"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, settings: dict[str, Any], *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    lines = [json.dumps(event) for event in events]
    found = await render(host, connector="slack", settings=settings, now_us=NOW_US, events=lines, **more)
    document = found.document()
    assert "secret-for-tests" not in json.dumps(document)
    return document


async def test_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}
    check_golden("plugins/slack_required", await rendered(host, WEBHOOK, event))


async def test_with_all_there_is(host: PluginHost) -> None:
    names = (
        "event person summary email phone user_id first_name last_name order_id value currency audience time "
        "properties.products traits.plan context.page.url"
    )
    settings = {**BOT, "message": " | ".join(f"${{{name}}}" for name in names.split()), "unfurl_links": True}
    check_golden("plugins/slack_all", await rendered(host, settings, ORDER, mapping={"channel": "'C2'"}))


async def test_several_events(host: PluginHost) -> None:
    settings = {**WEBHOOK, "messages": {"Order Completed": "Sold for ${value} ${currency}", "Noise": ""}}
    events = (
        ORDER,
        {"type": "track", "event": "Noise", "messageId": "n", "userId": "u"},
        {"type": "identify", "messageId": "i", "userId": "u", "traits": {"plan": "pro"}},
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y"}},
        {"type": "track", "event": "added_to_segment", "messageId": "s", "userId": "u",
         "properties": {"audience_name": "Loyal"}},
    )  # fmt: skip
    check_golden("plugins/slack_several", await rendered(host, settings, *events))
