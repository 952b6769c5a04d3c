"""BigQuery through mapping, plugin process, outlet and credentials, to a vendor that keeps the documented rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from headrace_destination_bigquery.destination import COLUMNS
from headrace_sync.outlets.verdicts import Kind, Verdict

from headrace_sdk import EventItem, Profile
from tests.support.connector_outlets import Station, Way
from tests.support.vendors.bigquery import FakeBigQuery, error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "bigquery"


@pytest_asyncio.fixture(loop_scope="module")
async def vendor() -> AsyncIterator[FakeBigQuery]:
    fake = FakeBigQuery(schema=dict(COLUMNS) | {"revenue": "INTEGER"})
    await fake.start()
    yield fake
    await fake.stop()


def settings(vendor: FakeBigQuery, **more: Any) -> dict[str, Any]:
    known = {"project": vendor.project, "dataset": vendor.dataset, "table": vendor.table, "base_url": vendor.url}
    return {**known, "service_account": vendor.key_file, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def bigquery(vendor: FakeBigQuery, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(vendor)) as found:
        yield found


def event(message_id: str, **properties: Any) -> EventItem:
    profile = Profile(id="p1", identifiers={"email": ["ada@example.com"], "user_id": ["u1"]})
    return EventItem(
        message_id=message_id, kind="track", name="A", timestamp_us=1_796_000_000_250_000, properties=properties,
        profile=profile,
    )  # fmt: skip


async def test_rows_arrive_and_a_repetition_is_dropped(vendor: FakeBigQuery, bigquery: Way) -> None:
    for _ in range(2):
        found = await bigquery.deliver([event("a", total=3), event("b")])
        assert [verdict.kind for verdict in found] == [Kind.DELIVERED] * 2
    assert list(vendor.rows) == ["a", "b"] and vendor.requests == 2
    row = vendor.rows["a"]
    assert json.loads(row.pop("properties")) == {"total": 3}
    assert row == {
        "message_id": "a", "type": "track", "name": "A", "time": "2026-11-30T00:53:20.250Z",
        "received_at": "1970-01-01T00:00:00.000Z", "profile_id": "p1", "user_id": "u1", "email": "ada@example.com",
        "traits": "{}", "context": "{}",
    }  # fmt: skip


async def test_rows_that_are_refused_inside_a_200_are_found(vendor: FakeBigQuery, bigquery: Way) -> None:
    items = [event("a", revenue=3), event("b", revenue="much"), event("c", revenue=None)]
    found = await bigquery.deliver(items, {"columns": "{revenue: event.properties.revenue}"})
    refused = Verdict(Kind.REJECTED, "revenue: BigQuery refuses the row (invalid)", 200)
    assert found == [Verdict(Kind.DELIVERED, code=200), refused, Verdict(Kind.DELIVERED, code=200)]
    assert list(vendor.rows) == ["a", "c"] and vendor.rows["a"]["revenue"] == 3


@pytest.mark.parametrize(
    "answer",
    [
        lambda: error(503, "backendError"),
        lambda: error(403, "rateLimitExceeded"),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({}),
        lambda: web.json_response({"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": [{"index": 9}]}),
        lambda: web.json_response(
            {"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": [{"errors": [{"reason": "timeout"}]}]}
        ),
    ],
)
async def test_what_passes_is_tried_again(vendor: FakeBigQuery, bigquery: Way, answer: Any) -> None:
    vendor.failures.append(answer())
    (verdict,) = await bigquery.deliver([event("a")])
    assert verdict.kind is Kind.RETRY and bigquery.halted == []


async def test_what_cannot_work_stops_the_destination(vendor: FakeBigQuery, shared: Station) -> None:
    async with shared.way(settings(vendor, table="nowhere")) as found:
        assert [one.kind for one in await found.deliver([event("a")])] == [Kind.UNTRIED]
        assert "there is no such project, dataset or table" in found.halted[0]
    vendor.may_write = False
    async with shared.way(settings(vendor)) as found:
        assert [one.kind for one in await found.deliver([event("a")])] == [Kind.UNTRIED]
        assert "roles/bigquery.dataEditor" in found.halted[0]


async def test_the_check_looks_at_the_columns(vendor: FakeBigQuery, bigquery: Way, shared: Station) -> None:
    opened = await shared.host.open(CONNECTOR, settings(vendor))
    (check,) = await opened.check()

    async def problem() -> str:
        response = await bigquery.outlet._signer.send(bigquery.outlet._client, check.request, timeout_s=5)
        return await opened.read_check(check, response)

    assert await problem() == ""
    vendor.schema["time"] = "STRING"
    assert await problem() == "columns have other types than they need: time"
    del vendor.schema["email"]
    assert await problem() == "the table lacks columns: email"
    vendor.table = "another"
    assert "no such project" in await problem()
    await opened.close()
