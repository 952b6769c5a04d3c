"""Exact requests of the Google Sheets connector, as golden files: secrets masked."""

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
SETTINGS = {
    "spreadsheet_id": "1spreadsheet-for-tests",
    "sheet_id": 7,
    "service_account": json.dumps(
        {
            "client_email": "a@b.example",
            "private_key": "key-secret-for-tests",
            "private_key_id": "1",
            "token_uri": "https://t.example",
        }
    ),
}
ADA = {
    "id": "p-1", "identifiers": {"email": ["ada@example.com", "ada@work.example"], "phone": ["+491711234567"]},
    "traits": {"first_name": "Ada", "last_name": "=Byron", "address": {"country": "GB"}},
}  # fmt: skip
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "profile": ADA, "context": {"page": {"url": "https://shop.example/thanks"}, "campaign": {"name": "spring"}},
    "properties": {"order_id": "T-1001", "revenue": 29.8, "currency": "EUR", "products": [{"sku": "S-1"}]},
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["google-sheets"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, settings: dict[str, Any] | None = None, **lines: list[Any]) -> dict[str, Any]:
    given: dict[str, Any] = {kind: [json.dumps(one) for one in found] for kind, found in lines.items()}
    values = {**SETTINGS, **(settings or {})}
    document = (await render(host, connector="google-sheets", settings=values, now_us=NOW_US, **given)).document()
    assert "key-secret-for-tests" not in json.dumps(document)
    return document


async def test_events(host: PluginHost) -> None:
    bare = {"type": "page", "name": "Home", "messageId": "m", "anonymousId": "a-1"}
    check_golden("plugins/google_sheets_events", await rendered(host, events=[ORDER, bare]))


async def test_every_column_of_events(host: PluginHost) -> None:
    from headrace_destination_google_sheets.fields import EVENT_COLUMNS

    settings = {"event_columns": list(EVENT_COLUMNS)}
    check_golden("plugins/google_sheets_all", await rendered(host, settings, events=[ORDER]))


async def test_members(host: PluginHost) -> None:
    members = [
        ADA,
        {"id": "p-2", "identifiers": {"email": "bob@example.com"}},
        {"id": "p-3"},
        {**ADA, "action": "remove"},
    ]
    check_golden("plugins/google_sheets_members", await rendered(host, members=members))
