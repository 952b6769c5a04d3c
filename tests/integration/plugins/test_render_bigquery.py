"""Exact requests of the BigQuery connector, as golden files: secrets masked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from headrace.plugins import PluginConfigError, PluginHost
from headrace.plugins.render import render
from tests.support.golden import check_golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_US = 1_796_000_000_000_000  # 29 November 2026
KEY = {
    "client_email": "w@shop-12345.iam.gserviceaccount.com",
    "private_key": "secret-for-tests",
    "private_key_id": "1",
    "token_uri": "https://t",
}
SETTINGS = {"service_account": json.dumps(KEY), "project": "shop-12345", "dataset": "shop"}
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "anonymousId": "a-1", "context": {"page": {"url": "https://shop.example/thanks"}},
    "profile": {
        "id": "p-1", "identifiers": {"email": ["ada@example.com"], "user_id": ["u-1"]}, "traits": {"plan": "pro"},
    },
    "properties": {"order_id": "T-1001", "revenue": 29.8, "currency": "EUR"},
}  # fmt: skip
PLAIN = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["bigquery"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    lines = [json.dumps(event) for event in events]
    found = await render(host, connector="bigquery", settings=SETTINGS, now_us=NOW_US, events=lines, **more)
    document = found.document()
    assert "secret-for-tests" not in json.dumps(document)
    for request in document["requests"]:
        request["body"] = json.loads(request["body"])
    return document


async def test_with_what_is_required_alone(host: PluginHost) -> None:
    check_golden("plugins/bigquery_required", await rendered(host, PLAIN))


async def test_with_all_there_is(host: PluginHost) -> None:
    mapping = {"columns": "{order_id: event.properties.order_id, revenue: event.properties.revenue}"}
    check_golden("plugins/bigquery_all", await rendered(host, ORDER, mapping=mapping))


async def test_several_events(host: PluginHost) -> None:
    check_golden("plugins/bigquery_several", await rendered(host, ORDER, PLAIN))


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_account": "secret-for-tests"},
        {"service_account": '{"client_email": "secret-for-tests"}'},
        {"project": "Shop"},
        {"dataset": "a/b"},
        {"table": "a b"},
        {"base_url": "ftp://x"},
        {"unknown": 1},
    ],
)
async def test_settings_that_cannot_work(host: PluginHost, wrong: dict[str, Any]) -> None:
    with pytest.raises(PluginConfigError) as caught:
        await host.open("bigquery", {**SETTINGS, **wrong})
    assert "secret-for-tests" not in caught.value.reason
