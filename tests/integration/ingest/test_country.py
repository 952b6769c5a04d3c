"""The country of an IP address: set once, when an event is accepted, over every way in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from headrace_ingest.bootstrap import open_service
from headrace_ingest.countries import UnreadableTable
from headrace_ingest.settings import Settings
from headrace_ingest.store import REJECTED_MESSAGES
from pydantic import ValidationError

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.ingest.v1 import ingest_service_pb2 as events_pb
from headrace.api.ingest.v1 import source_service_pb2 as pb
from headrace.storage.mongo.client import Database
from tests.support.countries import NETWORKS, write_table
from tests.support.ingest import PARENT, Ingest, ingest_serving
from tests.support.settings import MakeSettings

_TRACK = {"type": "track", "userId": "u1", "event": "Signed Up"}
_DE, _FR = "203.0.113.7", "2001:db8:1::7"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "countries.mmdb")


@pytest.fixture
async def ingest(make_settings: MakeSettings, db: Database, table: Path) -> AsyncIterator[Ingest]:
    """Behind a proxy on this machine, as far as it believes."""
    overrides = {"country_table": str(table), "country_table_seconds": 0.05, "trusted_proxies": "127.0.0.1"}
    async with ingest_serving(make_settings, db, **overrides) as serving:
        yield serving


async def _contexts(ingest: Ingest) -> dict[str, Any]:
    return {e.message_id: json.loads(e.context) if e.context else None for e in await ingest.logged()}


async def test_the_address_of_a_message_gives_its_country(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    batch = [
        {**_TRACK, "messageId": "v4", "context": {"ip": _DE, "locale": "de"}},
        {**_TRACK, "messageId": "v6", "context": {"ip": _FR}},
        {**_TRACK, "messageId": "said", "context": {"ip": _DE, "location": {"country": "AT"}}},
        {**_TRACK, "messageId": "city", "context": {"ip": _DE, "location": {"city": "Ulm"}}},
        {**_TRACK, "messageId": "private", "context": {"ip": "10.1.2.3"}},
        {**_TRACK, "messageId": "nowhere", "context": {"ip": "192.0.2.1"}},
        {**_TRACK, "messageId": "garbage", "context": {"ip": {"a": [1]}}},
        {**_TRACK, "messageId": "none"},
    ]
    assert await ingest.post("/v1/batch", {"batch": batch}, key) == (200, {"success": True})
    whole = {"batch": [{**_TRACK, "messageId": "batch"}], "context": {"ip": _DE}}
    assert await ingest.post("/v1/batch", whole, key) == (200, {"success": True})
    lenient = (
        b'{"type":"track","messageId":"lenient","userId":"u","event":"A","context":{"ip":"203.0.113.200","n":NaN}}'
    )
    assert await ingest.post("/v1/track", lenient, key) == (200, {"success": True})
    event = Event(
        message_id="grpc",
        kind=EventKind.EVENT_KIND_TRACK,
        name="A",
        identifiers=[Identifier(namespace="user_id", value="u1")],
        context=json.dumps({"ip": _FR}).encode(),
    )
    request = events_pb.IngestEventsRequest(source=f"{PARENT}/sources/web", events=[event])
    assert [r.status.code for r in (await ingest.events.IngestEvents(request)).results] == [0]
    assert await _contexts(ingest) == {
        "v4": {"location": {"country": "DE"}, "ip": _DE, "locale": "de"},
        "v6": {"location": {"country": "FR"}, "ip": _FR},
        "said": {"ip": _DE, "location": {"country": "AT"}},
        "city": {"ip": _DE, "location": {"city": "Ulm", "country": "DE"}},
        "private": {"ip": "10.1.2.3"},
        "nowhere": {"ip": "192.0.2.1"},
        "garbage": {"ip": {"a": [1]}},
        "none": None,
        "batch": {"location": {"country": "DE"}, "ip": _DE},
        "lenient": {"location": {"country": "FR"}, "ip": "203.0.113.200", "n": None},
        "grpc": {"location": {"country": "FR"}, "ip": _FR},
    }


async def test_a_browser_is_where_its_request_comes_from(ingest: Ingest) -> None:
    """Whom the trusted proxies name; whatever else a client writes in front of them is not believed."""
    web = (await ingest.source("site", "website")).write_key
    server = (await ingest.source("server", "http")).write_key

    async def send(message_id: str, key: str, forwarded: str, **more: Any) -> None:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        answer = await ingest.post("/v1/track", {**_TRACK, "messageId": message_id, **more}, key, headers)
        assert answer == (200, {"success": True})

    await send("plain", web, _DE)
    await send("v6 with port", web, f"[{_FR}]:4711")
    await send("made up", web, f"198.51.100.1, {_DE}")
    await send("own address", web, _DE, context={"ip": _FR})
    await send("asked not to", web, _DE, context={"ip": "0.0.0.0"})
    await send("private", web, "10.1.2.3")
    await send("garbage", web, "%%,[,")
    await send("no proxy", web, "")
    await send("of a server", server, _DE)
    batch = {"batch": [{**_TRACK, "messageId": f"beacon {n}"} for n in range(2)]}
    answer = await ingest.post(f"/beacon/v1/batch?writeKey={web}", batch, headers={"X-Forwarded-For": _DE})
    assert answer == (200, {"success": True})
    assert await _contexts(ingest) == {
        "plain": {"location": {"country": "DE"}},
        "v6 with port": {"location": {"country": "FR"}},
        "made up": {"location": {"country": "DE"}},
        "own address": {"location": {"country": "FR"}, "ip": _FR},
        "asked not to": {"ip": "0.0.0.0"},
        "private": None,
        "garbage": None,
        "no proxy": None,
        "of a server": None,
        "beacon 0": {"location": {"country": "DE"}},
        "beacon 1": {"location": {"country": "DE"}},
    }


async def test_the_scheme_that_a_trusted_proxy_says_is_that_of_the_settings(ingest: Ingest) -> None:
    key = (await ingest.source("site", "website")).write_key
    for said, scheme in (("https", "https"), ("http", "http"), ("gopher", "http")):
        headers = {"X-Forwarded-Proto": said}
        async with ingest.http.get(f"{ingest.url}/v1/projects/{key}/settings", headers=headers) as answer:
            assert (await answer.json())["integrations"]["Segment.io"]["protocol"] == scheme


async def test_without_trusted_proxies_a_forwarded_request_has_no_country(
    make_settings: MakeSettings, db: Database, table: Path
) -> None:
    async with ingest_serving(make_settings, db, country_table=str(table)) as ingest:
        key = (await ingest.source("site", "website")).write_key
        message = {**_TRACK, "messageId": "m"}
        assert (await ingest.post("/v1/track", message, key, {"X-Forwarded-For": _DE}))[0] == 200
        assert await _contexts(ingest) == {"m": None}


async def test_a_repaired_message_has_the_country_of_its_first_arrival(ingest: Ingest) -> None:
    """Without its address having been kept."""
    key = (await ingest.source("site", "website")).write_key
    messages = [{"type": "track", "userId": "u1", "messageId": f"m{n}"} for n in range(2)]
    headers = {"X-Forwarded-For": _DE}
    assert (await ingest.post("/v1/batch", {"batch": messages[:1]}, key, headers))[0] == 200
    assert (await ingest.post("/v1/track", messages[1], key, headers))[0] == 400
    records = [d async for d in ingest.db[REJECTED_MESSAGES].find()]
    assert len(records) == 2 and all(_DE not in repr(record) for record in records)
    repairs = [
        pb.Repair(id=d["_id"], body=json.dumps({**_TRACK, "messageId": d["m"], "context": {"locale": "de"}}).encode())
        for d in records
    ]
    answer = await ingest.sources.RepairMessages(pb.RepairMessagesRequest(parent=PARENT, repairs=repairs))
    assert [status.code for status in answer.results] == [0, 0]
    expected = {"location": {"country": "DE"}, "locale": "de"}
    assert await _contexts(ingest) == {"m0": expected, "m1": expected}


async def test_a_replaced_table_is_taken_without_a_restart(ingest: Ingest, table: Path) -> None:
    key = (await ingest.source()).write_key
    write_table(table, {**NETWORKS, "203.0.113.0/25": "AT"})
    deadline = asyncio.get_running_loop().time() + 60
    number = 0
    while True:
        message = {**_TRACK, "messageId": f"m{number}", "context": {"ip": _DE}}
        assert (await ingest.post("/v1/track", message, key))[0] == 200
        countries = {context["location"]["country"] for context in (await _contexts(ingest)).values()}
        if "AT" in countries:
            break
        assert asyncio.get_running_loop().time() < deadline, "the new table was not taken"
        number += 1
        await asyncio.sleep(0.05)


async def test_a_file_that_cannot_be_used_fails_the_start(make_settings: MakeSettings, table: Path) -> None:
    settings = make_settings(Settings, country_table=str(table))
    table.write_text("203.0.113.0/24,DE\n")
    with pytest.raises(ValidationError, match=r"country_table\n.*is no file in MaxMind's DB format"):
        make_settings(Settings, country_table=str(table))
    with pytest.raises(UnreadableTable):  # when it is written over in between
        async with open_service(settings):
            raise AssertionError("it serves")


def test_proxies_are_checked_at_the_start(make_settings: MakeSettings) -> None:
    for wrong in ("10.0.0.1/8", "*", "proxy.example"):
        with pytest.raises(ValidationError, match="trusted_proxies"):
            make_settings(Settings, trusted_proxies=wrong)
