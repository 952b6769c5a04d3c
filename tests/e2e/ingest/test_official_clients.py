"""The official clients of Segment, unmodified but for their host, send to ingest; each event is found in the log."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from segment.analytics.client import Client

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving
from tests.support.settings import MakeSettings

_HERE = Path(__file__).parent


async def _by_id(ingest: Ingest) -> dict[str, Any]:
    return {event.message_id: event for event in await ingest.logged()}


@pytest.mark.parametrize("packed", [False, True])
async def test_segment_analytics_python(make_settings: MakeSettings, db: Database, packed: bool) -> None:
    async with ingest_serving(make_settings, db) as ingest:
        key = (await ingest.source()).write_key
        failures = await asyncio.to_thread(_send_with_python, ingest.url, key, packed)
        assert failures == []
        events = await _by_id(ingest)
        assert set(events) == {*(f"py-{n}" for n in range(250)), "py-identify", "py-page", "py-group", "py-alias"}
        event = events["py-3"]
        assert event.name == "Product viewed" and event.kind == EventKind.EVENT_KIND_TRACK
        assert json.loads(event.properties)["number"] == 3 and json.loads(event.properties)["ratio"] is None
        assert event.timestamp_us == pytest.approx(1_767_225_600_000_000, abs=60_000_000)
        assert json.loads(event.context)["library"]["name"] == "analytics-python"
        assert json.loads(events["py-identify"].traits)["plan"] == "pro"
        (record,) = await ingest.rejected()
        assert (record["m"], record["code"]) == ("py-reserved", "reserved_name")


def _send_with_python(host: str, key: str, packed: bool) -> list[str]:
    failures: list[str] = []
    client = Client(
        key,
        host=host,
        gzip=packed,
        timeout=10,
        max_retries=2,
        upload_size=50,
        on_error=lambda error, _: failures.append(str(error)),
    )
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(250):
        client.track(
            f"user-{number}",
            "Product Viewed",
            {"number": number, "ratio": float("nan"), "when": moment},
            timestamp=moment,
            message_id=f"py-{number}",
        )
    client.identify("user-0", {"email": "a@example.com", "plan": "pro"}, message_id="py-identify")
    client.page("user-0", "Shop", "Home", message_id="py-page")
    client.group("user-0", "group-0", {"size": 3}, message_id="py-group")
    client.alias("anon-0", "user-0", message_id="py-alias")
    client.track("user-0", "removed_from_segment", message_id="py-reserved")
    client.flush()
    client.join()
    return failures


async def test_a_client_with_a_wrong_key_is_told_so_and_does_not_retry(
    make_settings: MakeSettings, db: Database
) -> None:
    async with ingest_serving(make_settings, db) as ingest:

        def send() -> str:
            from segment.analytics.request import APIError, post

            with pytest.raises(APIError) as caught:
                post("wk_wrong", host=ingest.url, batch=[{"type": "track", "userId": "u", "event": "A"}])
            return str(caught.value)

        assert "invalid_write_key" in await asyncio.to_thread(send)


async def test_segment_analytics_node(make_settings: MakeSettings, db: Database) -> None:
    installed = (_HERE.parent / "node/node_modules/@segment").exists() and shutil.which("node") is not None
    assert installed, "needs Node 20 and `make setup`, which `make test` runs"
    async with ingest_serving(make_settings, db) as ingest:
        key = (await ingest.source()).write_key
        process = await asyncio.create_subprocess_exec(
            "node", str(_HERE / "send.mjs"), ingest.url, key, "200", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0 and json.loads(output) == {"failures": []}
        events = await _by_id(ingest)
        assert set(events) == {
            *(f"node-{n}" for n in range(200)),
            "node-identify",
            "node-page",
            "node-group",
            "node-alias",
        }
        event = events["node-7"]
        assert event.name == "Product viewed"
        assert json.loads(event.properties) == {"number": 7, "price": 19.9, "tags": ["a", "ü"], "nothing": None}
        assert {(i.namespace, i.value) for i in event.identifiers} == {("user_id", "user-7"), ("gclid", "G1")}
        assert abs(event.timestamp_us - event.received_at_us) < 60_000_000
        assert events["node-alias"].previous_id == "anon-0"
        (record,) = await ingest.rejected()
        assert (record["m"], record["code"]) == ("node-reserved", "reserved_name")
