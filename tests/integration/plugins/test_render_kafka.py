"""Exact records of the Kafka connector, as golden files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from headrace.plugins import PluginConfigError, PluginHost
from headrace.plugins.render import render
from headrace_sdk import DeleteBatch, Subject
from tests.support.golden import check_golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_US = 1_796_000_000_000_000  # 29 November 2026
SETTINGS = {
    "bootstrap_servers": ["b1.example:9092", "b2.example:9092"], "topic": "events", "username": "headrace",
    "password": "secret-for-tests",
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
    running = PluginHost(["kafka"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, settings: dict[str, Any], *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    lines = [json.dumps(event) for event in events]
    found = await render(host, connector="kafka", settings=settings, now_us=NOW_US, events=lines, **more)
    document = found.document()
    assert "secret-for-tests" not in json.dumps(document)
    for request in document["requests"]:
        request["body"] = [json.loads(line) for line in request["body"].split("\n")]
    return document


async def test_with_what_is_required_alone(host: PluginHost) -> None:
    check_golden("plugins/kafka_required", await rendered(host, SETTINGS, PLAIN))


async def test_with_all_there_is(host: PluginHost) -> None:
    settings = {**SETTINGS, "topics": {"Order Completed": "orders"}, "key": "message_id"}
    check_golden("plugins/kafka_all", await rendered(host, settings, ORDER))


async def test_several_events_with_a_mapping(host: PluginHost) -> None:
    settings = {**SETTINGS, "topics": {"Noise": ""}}
    events = (ORDER, {**PLAIN, "event": "Noise", "messageId": "n"}, PLAIN)
    mapping = {"key": "event.properties.order_id", "value": "event.properties"}
    check_golden("plugins/kafka_several", await rendered(host, settings, *events, mapping=mapping))


async def test_deletion(host: PluginHost) -> None:
    opened = await host.open("kafka", {**SETTINGS, "topics": {"Order Completed": "orders", "Noise": ""}})
    people = (Subject(profile_id="p-1", merged_ids=["p-0"]), Subject(profile_id=""))
    built = await opened.delete(DeleteBatch(subjects=people, now_us=NOW_US))
    await opened.close()
    assert [request.items for request in built.requests] == [(0,), (0,)]
    assert [skip.item for skip in built.skipped] == [1]
    check_golden("plugins/kafka_deletion", [[one.url, one.body.decode().split("\n")] for one in built.requests])


@pytest.mark.parametrize(
    "wrong",
    [
        {"bootstrap_servers": []},
        {"bootstrap_servers": ["b1.example"]},
        {"bootstrap_servers": ["b1.example:99999"]},
        {"topic": "a b"},
        {"topics": {"A": ".."}},
        {"password": None},
        {"mechanism": "PLAIN", "tls": False},
        {"unknown": 1},
    ],
)
async def test_settings_that_cannot_work(host: PluginHost, wrong: dict[str, Any]) -> None:
    with pytest.raises(PluginConfigError) as caught:
        await host.open("kafka", {**SETTINGS, **wrong})
    assert "secret-for-tests" not in caught.value.reason
