"""Exact requests of the connector for Brevo, as golden files: credentials masked."""

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
SETTINGS: dict[str, Any] = {"api_key": "xkeysib-key-for-tests"}
PERSON = {
    "identifiers": {"email": ["ada@example.com"], "user_id": ["u-1"], "phone": ["+491711234567"]},
    "traits": {"first_name": "Ada", "plan": "pro"},
}
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "5a1f2c4e-7b1d-4a56-9c3e-0d2b8f6e1a90", "userId": "u-1",
    "anonymousId": "a-1", "timestamp": "2026-11-29T08:00:00.5Z", "profile": {"id": "p-1", **PERSON},
    "properties": {
        "order_id": "T-1001", "revenue": 29.8, "currency": "EUR",
        "products": [{"product_id": "p1", "sku": "S-1", "name": "Tee", "price": 14.9, "quantity": 2}],
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["brevo"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


def lines(*values: dict[str, Any]) -> list[str]:
    return [json.dumps(value) for value in values]


async def rendered(host: PluginHost, settings: dict[str, Any], **what: Any) -> dict[str, Any]:
    found = await render(host, connector="brevo", settings={**SETTINGS, **settings}, now_us=NOW_US, **what)
    document = found.document()
    assert SETTINGS["api_key"] not in json.dumps(document)
    return document


async def test_events_with_what_is_required_alone(host: PluginHost) -> None:
    event = {"type": "track", "event": "thing_done", "messageId": "m", "userId": "u"}
    check_golden("plugins/brevo_required", await rendered(host, {}, events=lines(event)))


async def test_events_with_all_there_is(host: PluginHost) -> None:
    check_golden("plugins/brevo_all", await rendered(host, {}, events=lines(ORDER)))


async def test_several_events(host: PluginHost) -> None:
    traits = {"email": "ada@example.com", "firstName": "Ada", "plan": "pro", "phone": "+49 171 1234567"}
    events: list[dict[str, Any]] = [
        {"type": "page", "name": "Home", "messageId": "p", "userId": "u", "properties": {"url": "https://x.y/"}},
        {"type": "identify", "messageId": "identify", "userId": "u", "traits": traits},
        {"type": "group", "messageId": "g", "userId": "u", "groupId": "acme"},
        {"type": "track", "event": "added_to_segment", "messageId": "i", "userId": "u",
         "properties": {"audience_id": "aud-1"}},
        {"type": "track", "event": "Nobody", "messageId": "nobody", "anonymousId": "a"},
    ]  # fmt: skip
    settings = {"attributes": {"plan": "PLAN"}}
    check_golden("plugins/brevo_several", await rendered(host, settings, events=lines(*events)))


MEMBERS = lines(
    {"id": "required", "identifiers": {"email": "ada@example.com"}},
    {"id": "two", "identifiers": {"email": ["b@example.com", "c@example.com"], "user_id": "u-2"},
     "traits": {"first_name": "Bea"}},
    {"id": "nobody", "identifiers": {"user_id": "u-3"}},
    {"id": "gone", "identifiers": {"email": "d@example.com"}, "action": "remove"},
)  # fmt: skip


async def test_members(host: PluginHost) -> None:
    """A member, one with two addresses, one who is left out, and a removal."""
    check_golden("plugins/brevo_members", await rendered(host, {"list_id": "7"}, members=MEMBERS))


async def test_many_members(host: PluginHost) -> None:
    """The same by an import."""
    check_golden("plugins/brevo_import", await rendered(host, {"list_id": "7", "import_from": 2}, members=MEMBERS))
