"""Exact statements of the SQL connector, as golden files."""

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
POSTGRES = {"url": "postgresql://headrace@db.example:5432/shop", "password": "secret-for-tests", "audience": "Loyal"}
ORDER = {
    "type": "track", "event": "Order Completed", "messageId": "order", "timestamp": "2026-11-29T08:00:00.5Z",
    "anonymousId": "a-1", "context": {"page": {"url": "https://shop.example/thanks"}},
    "profile": {
        "id": "p-1", "identifiers": {"email": ["ada@example.com"], "user_id": ["u-1"]},
        "traits": {"first_name": "Ada", "plan": "pro"},
    },
    "properties": {"order_id": "T-1001", "revenue": 29.8, "currency": "EUR"},
}  # fmt: skip
PLAIN = {"type": "track", "event": "Thing Done", "messageId": "m", "anonymousId": "a-1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["sql"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


async def rendered(host: PluginHost, settings: dict[str, Any], **lines: Any) -> dict[str, Any]:
    given: dict[str, Any] = {kind: [json.dumps(line) for line in found] for kind, found in lines.items()}
    document = (await render(host, connector="sql", settings=settings, now_us=NOW_US, **given)).document()
    assert "secret-for-tests" not in json.dumps(document)
    for request in document["requests"]:
        request["body"] = json.loads(request["body"])
    return document


async def test_an_event_with_what_is_required_alone(host: PluginHost) -> None:
    check_golden("plugins/sql_required", await rendered(host, POSTGRES, events=[PLAIN]))


async def test_several_events_of_one_person(host: PluginHost) -> None:
    later = {**ORDER, "messageId": "later", "event": "Order Refunded"}
    check_golden("plugins/sql_several", await rendered(host, POSTGRES, events=[ORDER, PLAIN, later]))


@pytest.mark.parametrize(
    ("name", "url"), [("mysql", "mysql://headrace@db.example/shop"), ("sqlite", "sqlite:////var/lib/shop.db")]
)
async def test_other_dialects(host: PluginHost, name: str, url: str) -> None:
    settings = {"url": url, "db_schema": "cdp" if name == "mysql" else "", "create_tables": name == "mysql"}
    check_golden(f"plugins/sql_{name}", await rendered(host, settings, events=[ORDER]))


async def test_members(host: PluginHost) -> None:
    profile = {"identifiers": {"email": ["ada@example.com"], "user_id": ["u-1"]}, "traits": {"first_name": "Ada"}}
    members = [
        {"profile": {"id": "p-1", **profile}},
        {"profile": {"id": "p-2", **profile}, "action": "remove"},
    ]
    check_golden("plugins/sql_members", await rendered(host, POSTGRES, members=members))


async def test_deletion(host: PluginHost) -> None:
    opened = await host.open("sql", POSTGRES)
    people = (Subject(profile_id="p-1", merged_ids=["p-0"]), Subject(profile_id=""))
    built = await opened.delete(DeleteBatch(subjects=people, now_us=NOW_US))
    await opened.close()
    (request,) = built.requests
    assert request.items == (0,) and [skip.item for skip in built.skipped] == [1]
    check_golden("plugins/sql_deletion", json.loads(request.body))


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "postgresql://headrace:secret-for-tests@db.example/shop"},
        {"url": "postgresql+psycopg2://db.example/shop"},
        {"url": "postgresql://db.example/shop?host=/run/postgresql"},
        {"url": "nothing://db.example/shop"},
        {"url": "not a url"},
        {"events_table": "events; DROP TABLE x"},
        {"events_table": "headrace_members"},
        {"unknown": 1},
    ],
)
async def test_settings_that_cannot_work(host: PluginHost, wrong: dict[str, Any]) -> None:
    with pytest.raises(PluginConfigError) as caught:
        await host.open("sql", {**POSTGRES, **wrong})
    assert "secret-for-tests" not in caught.value.reason
