"""Exact requests of the S3 connector, as golden files: signed, secrets masked."""

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
SETTINGS = {
    "bucket": "shop-events", "region": "eu-central-1", "access_key_id": "AKIDEXAMPLE",
    "secret_access_key": "secret-for-tests", "compression": "none",
}  # fmt: skip
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
    running = PluginHost(["s3"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, settings: dict[str, Any], *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    lines = [json.dumps(event) for event in events]
    found = await render(host, connector="s3", settings=settings, now_us=NOW_US, events=lines, **more)
    document = found.document()
    assert "secret-for-tests" not in json.dumps(document)
    return document


async def test_with_what_is_required_alone(host: PluginHost) -> None:
    check_golden("plugins/s3_required", await rendered(host, SETTINGS, PLAIN))


async def test_with_all_there_is(host: PluginHost) -> None:
    partition = "{type}/{event}/{source}/{date}/{hour}/"
    check_golden("plugins/s3_all", await rendered(host, {**SETTINGS, "partition": partition}, ORDER))


async def test_several_events_at_a_service_of_its_own(host: PluginHost) -> None:
    settings = {**SETTINGS, "endpoint": "https://storage.example:9000", "prefix": "", "partition": "date={date}/"}
    later = {**ORDER, "messageId": "later", "timestamp": "2026-11-30T08:00:00Z"}
    found = await rendered(host, settings, ORDER, later, PLAIN, mapping={"row": "event.properties"})
    check_golden("plugins/s3_several", found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "Shop"},
        {"region": "eu central"},
        {"endpoint": "https://storage.example/path"},
        {"endpoint": "ftp://storage.example"},
        {"prefix": "/a"},
        {"prefix": "{date}/"},
        {"partition": "{email}/"},
        {"partition": "a?b"},
        {"partition": "../"},
        {"secret_access_key": ""},
        {"unknown": 1},
    ],
)
async def test_settings_that_cannot_work(host: PluginHost, wrong: dict[str, Any]) -> None:
    with pytest.raises(PluginConfigError) as caught:
        await host.open("s3", {**SETTINGS, **wrong})
    assert "secret-for-tests" not in caught.value.reason
