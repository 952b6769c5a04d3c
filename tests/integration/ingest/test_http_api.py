"""The Segment HTTP API as its many clients speak it, over real HTTP on real stores."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any

import pytest

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.domain.times import MINUTE_US, parse_time_us
from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving
from tests.support.settings import MakeSettings

_TRACK = {"userId": "u1", "event": "Signed Up"}


def _basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


async def test_every_way_of_giving_the_key(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    ways: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("/v1/track", _basic(key), {}),
        ("/v1/track", {"Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode().rstrip('=')}"}, {}),
        ("/v1/track", {"Authorization": f"Bearer {key}"}, {}),
        ("/v1/track", {"X-Write-Key": key}, {}),
        (f"/v1/track?writeKey={key}", {}, {}),
        ("/v1/track", {}, {"writeKey": key}),
        ("/v1/track/", {"X-Write-Key": key}, {}),
    ]
    for number, (path, headers, extra) in enumerate(ways):
        message = {**_TRACK, "messageId": f"m{number}", **extra}
        assert await ingest.post(path, message, headers=headers) == (200, {"success": True}), path
    assert sorted(e.message_id for e in await ingest.logged()) == [f"m{n}" for n in range(len(ways))]


async def test_every_kind_by_its_long_and_short_path(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    messages: dict[str, dict[str, Any]] = {
        "identify": {"userId": "u1", "traits": {"plan": "pro", "email": "a@example.com"}},
        "track": {"userId": "u1", "event": "Order Completed", "properties": {"value": 3}},
        "page": {"anonymousId": "a1", "name": "Home", "category": "Shop", "properties": {"path": "/"}},
        "screen": {"anonymousId": "a1", "name": "Main"},
        "group": {"userId": "u1", "groupId": "g1", "traits": {"email": "office@example.com"}},
        "alias": {"userId": "u2", "previousId": "u1"},
    }
    for kind, message in messages.items():
        for path in (kind, kind[0]):
            sent = {**message, "messageId": f"{path}!"}
            assert await ingest.post(f"/v1/{path}", sent, key) == (200, {"success": True})
    batch = [{**message, "type": kind, "messageId": f"in {kind}"} for kind, message in messages.items()]
    for path in ("/v1/batch", "/v1/b", "/v1/import"):
        assert await ingest.post(path, {"batch": batch}, key) == (200, {"success": True})
    events = {e.message_id: e for e in await ingest.logged()}
    assert len(events) == 18
    for kind in messages:
        for message_id in (f"{kind}!", f"{kind[0]}!", f"in {kind}"):
            assert events[message_id].kind == EventKind.Value(f"EVENT_KIND_{kind.upper()}")
    assert events["t!"].name == "Purchased", "the canonical spelling is stored"
    assert events["p!"].name == "Home"
    assert json.loads(events["p!"].properties) == {"category": "Shop", "path": "/"}
    assert [(i.namespace, i.value) for i in events["i!"].identifiers] == [
        ("user_id", "u1"),
        ("email", "a@example.com"),
    ]
    assert events["g!"].group_id == "g1"
    assert [(i.namespace, i.value) for i in events["g!"].identifiers] == [("user_id", "u1")]
    assert events["a!"].previous_id == "u1"
    assert {(e.workspace_id, e.source_id) for e in events.values()} == {("shop", "web")}


async def test_any_content_type_and_packing(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    body = json.dumps({"batch": [{"type": "track", **_TRACK}]}).encode()
    half = len(body) // 2
    members = gzip.compress(body[:half]) + gzip.compress(body[half:])
    requests = [
        ("/v1/batch", body, {"Content-Type": "text/plain"}),
        ("/v1/batch", body, {"Content-Type": "application/x-www-form-urlencoded"}),
        ("/v1/batch", b"\xef\xbb\xbf" + body, {"Content-Type": "application/octet-stream"}),
        ("/v1/batch", gzip.compress(body), {"Content-Encoding": "gzip"}),
        ("/v1/batch", members, {"Content-Encoding": "x-gzip"}),
        ("/v1/batch", body, {"Content-Encoding": "identity"}),
        (f"/beacon/v1/batch?writeKey={key}", body, {"Content-Type": "text/plain;charset=UTF-8"}),
    ]
    for path, sent, headers in requests:
        keyed = "" if "writeKey" in path else key
        assert await ingest.post(path, sent, keyed, headers) == (200, {"success": True}), headers
    with_key = gzip.compress(json.dumps({"batch": [{"type": "track", **_TRACK}], "writeKey": key}).encode())
    assert (await ingest.post("/v1/batch", with_key, headers={"Content-Encoding": "gzip"}))[0] == 200
    assert await ingest.count() == 8


async def test_what_strict_json_is_not(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    body = (
        b'{"sentAt": null, "context": {"ip": "1.2.3.4"}, "batch": [\n'
        b'{"type":"track","messageId":"nan","userId":"u","event":"A","anonymousId":null,"properties":{"a":NaN,"b":[-Infinity,1]}},\n'
        b'{"type":"track","messageId":"cut","userId":7,"event":"A","properties":{"a":"x\\ud83d","b\\u0000":"y\\u0000"}},\n'
        b'{"type":"track","messageId":"big","userId":7.0,"event":"A","properties":{"a":1e999,"b":123456789012345678901234567890,"c":9223372036854775807}},\n'
        b'{"type":"track","messageId":"emoji","userId":"u","event":"A","properties":{"a":"\\ud83d\\ude00"}}]}'
    )
    assert await ingest.post("/v1/batch", body, key) == (200, {"success": True})
    events = {e.message_id: e for e in await ingest.logged()}
    assert json.loads(events["nan"].properties) == {"a": None, "b": [None, 1]}
    assert list(events["nan"].corrections) == ["number: NaN or Infinity became null"]
    assert json.loads(events["nan"].context) == {"ip": "1.2.3.4"}
    assert json.loads(events["cut"].properties) == {"a": "x\ufffd", "b": "y"}
    assert json.loads(events["big"].properties) == {"a": None, "b": 123456789012345678901234567890.0, "c": 2**63 - 1}
    assert [i.value for i in events["cut"].identifiers] == ["7"] == [i.value for i in events["big"].identifiers]
    assert json.loads(events["emoji"].properties) == {"a": "😀"}
    assert not events["emoji"].corrections


async def test_times(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    status, _ = await ingest.post(
        "/v1/batch",
        {
            "sentAt": "2026-01-01T01:00:00.000Z",
            "batch": [
                {"type": "track", **_TRACK, "messageId": "corrected", "timestamp": "2026-01-01T00:00:00Z"},
                {"type": "track", **_TRACK, "messageId": "own", "timestamp": 1767225600000, "sentAt": 1767225600},
                {"type": "track", **_TRACK, "messageId": "none", "timestamp": None},
                {"type": "track", **_TRACK, "messageId": "odd", "timestamp": "2026-01-01 00:00:00", "sentAt": "x"},
                {"type": "track", **_TRACK, "messageId": "zone", "originalTimestamp": "2026-01-01T05:30:00+05:30"},
            ],
        },
        key,
    )
    assert status == 200
    await ingest.post("/v1/track", {**_TRACK, "messageId": "3000", "timestamp": "3000-01-01T00:00:00Z"}, key)
    await ingest.post("/v1/track", {**_TRACK, "messageId": "1970", "timestamp": "1970-01-01T00:00:01Z"}, key)
    events = {e.message_id: e for e in await ingest.logged()}
    new_year = parse_time_us("2026-01-01T00:00:00Z")
    assert events["corrected"].original_timestamp_us == new_year
    assert events["corrected"].timestamp_us == events["corrected"].received_at_us - 60 * MINUTE_US
    assert events["own"].timestamp_us == events["own"].received_at_us
    assert events["none"].timestamp_us == events["none"].received_at_us and not events["none"].original_timestamp_us
    assert events["odd"].timestamp_us == new_year and "sentAt" in events["odd"].corrections[0]
    assert events["zone"].original_timestamp_us == new_year
    assert events["3000"].future and events["3000"].timestamp_us == parse_time_us("3000-01-01T00:00:00Z")
    assert events["1970"].timestamp_us == 1_000_000 and not events["1970"].future


async def test_identifiers_of_context_and_traits(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    context = {
        "externalIds": [
            {"type": "ios.id", "id": "i1", "collection": "users", "encoding": "none"},
            {"type": "account", "id": "c1", "collection": "accounts"},
            {"type": "crm_id", "id": 12},
        ],
        "traits": {"email": " A@Example.com ", "phone": 4915112345678},
        "page": {"url": "https://shop.example/?utm_source=x&gclid=G1&fbclid=F1#top"},
        "fbp": "fb.1.2.3",
        "clickIds": {"ttclid": "T1", "other": "x"},
    }
    await ingest.post("/v1/track", {"anonymousId": "a1", "event": "A", "context": context}, key)
    (event,) = await ingest.logged()
    assert {(i.namespace, i.value) for i in event.identifiers} == {
        ("anonymous_id", "a1"),
        ("ios.id", "i1"),
        ("crm_id", "12"),
        ("email", "A@Example.com"),
        ("phone", "4915112345678"),
        ("gclid", "G1"),
        ("fbclid", "F1"),
        ("fbp", "fb.1.2.3"),
        ("ttclid", "T1"),
    }


async def test_events_of_websites_are_online(ingest: Ingest) -> None:
    """Whatever their sources send: destinations for offline events refuse them."""
    site, server = await ingest.source("site", "website"), await ingest.source("server", "http")
    hook = await ingest.source("hook", "webhook")
    track = {"type": "track", "event": "Purchased", "userId": "u"}
    for source, message in (
        (site, {**track, "messageId": "site"}),
        (server, {**track, "messageId": "server"}),
        (server, {**track, "messageId": "browser", "channel": "web"}),
    ):
        assert await ingest.post("/v1/track", message, source.write_key) == (200, {"success": True})
    body = {"batch": [{"type": "page", "messageId": "page", "userId": "u"}]}
    assert (await ingest.post("/v1/batch", body, server.write_key))[0] == 200
    async with ingest.http.post(f"{ingest.url}/webhooks/{hook.webhook_token}", json={**track, "id": "o-1"}) as answer:
        assert answer.status == 200
    found = {e.source_id + ":" + e.message_id: e.online for e in await ingest.logged()}
    online = {name for name, is_online in found.items() if is_online}
    assert online == {"site:site", "server:browser", "server:page"}
    assert set(found) - online == {"server:server", *(name for name in found if name.startswith("hook:"))}


async def test_browsers(ingest: Ingest) -> None:
    source = await ingest.source("site", "website", allowed_origins=["https://*.shop.example"])
    origin = {"Origin": "https://www.shop.example"}
    asked = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-retry-count,rsa-retry-attempt",
    }
    async with ingest.http.options(f"{ingest.url}/v1/t", headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert answer.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    beacon = f"{ingest.url}/beacon/v1/batch?writeKey={source.write_key}"
    async with ingest.http.options(beacon, headers={**asked, "Origin": "https://evil.example"}) as answer:
        assert answer.status == 403
    body = {"batch": [{"type": "page", "anonymousId": "a1"}, {"type": "page"}]}
    async with ingest.http.post(beacon, json=body, headers=origin) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert (await answer.json())["results"][0]["code"] == "missing_identifier"
    # What a proxy says is believed of those only that are trusted: there are none.
    said = {**origin, "X-Forwarded-Proto": "https"}
    async with ingest.http.get(f"{ingest.url}/v1/projects/{source.write_key}/settings", headers=said) as answer:
        assert answer.status == 200
        segment = (await answer.json())["integrations"]["Segment.io"]
        assert segment["apiKey"] == source.write_key
        assert f"{segment['protocol']}://{segment['apiHost']}" == f"{ingest.url}/v1"
    for path in ("/sourceConfig", "/sourceConfig/?p=web&v=3"):
        async with ingest.http.get(f"{ingest.url}{path}", headers={**origin, **_basic(source.write_key)}) as answer:
            config = (await answer.json())["source"]
            assert config["enabled"] and config["destinations"] == [] and config["id"] == "site"
    async with ingest.http.get(f"{ingest.url}/v1/projects/wk_nobody/settings") as answer:
        assert answer.status == 401


async def test_health_and_metrics(ingest: Ingest) -> None:
    for path in ("/healthz", "/readyz"):
        async with ingest.http.get(f"{ingest.url}{path}") as answer:
            assert answer.status == 200
    async with ingest.http.get(f"{ingest.url}/metrics") as answer:
        assert answer.status == 200 and answer.content_type == "text/plain"


async def test_trace_context_of_the_caller_is_carried_on(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await ingest.post("/v1/track", {**_TRACK, "messageId": "given"}, key, {"traceparent": traceparent})
    await ingest.post("/v1/track", {**_TRACK, "messageId": "wrong"}, key, {"traceparent": "00-x"})
    pages = [{"type": "page", "userId": "u", "messageId": str(n)} for n in range(3)]
    await ingest.post("/v1/batch", {"batch": pages}, key)
    events = {e.message_id: e.traceparent for e in await ingest.logged()}
    assert events["given"].split("-")[1] == traceparent.split("-")[1]
    assert len(set(events.values())) == 5 and all(len(t) == 55 for t in events.values())


async def test_the_same_message_twice_is_one_message_id(ingest: Ingest) -> None:
    """Ingest takes both; the message id lets identity refuse the second."""
    key = (await ingest.source()).write_key
    for _ in range(2):
        assert (await ingest.post("/v1/track", {**_TRACK, "messageId": "m1"}, key))[0] == 200
    assert [e.message_id for e in await ingest.logged()] == ["m1", "m1"]


@pytest.mark.parametrize("chunks", [1, 7])
async def test_bodies_in_chunks(ingest: Ingest, chunks: int) -> None:
    key = (await ingest.source()).write_key
    body = json.dumps({**_TRACK, "properties": {"a": "x" * 20_000}}).encode()
    size = len(body) // chunks + 1

    async def parts() -> Any:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async with ingest.http.post(f"{ingest.url}/v1/track", data=parts(), headers={"X-Write-Key": key}) as answer:
        assert answer.status == 200
    assert await ingest.count() == 1


async def test_a_slow_body_is_refused_and_never_with_408(make_settings: MakeSettings, db: Database) -> None:
    async with ingest_serving(make_settings, db, body_seconds=0.2) as ingest:
        key = (await ingest.source()).write_key
        import asyncio

        head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nX-Write-Key: {key}\r\nContent-Length: 100\r\n\r\n"
        for beginning in (b'{"userId":', b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(ingest.url.rpartition(":")[2]))
            writer.write(head.encode() + beginning)
            async with asyncio.timeout(10):
                answer = await reader.read(4_000)
            assert answer.startswith(b"HTTP/1.1 400") and b"body_incomplete" in answer
            writer.close()
        # A client that goes away is no error, and leaves nothing behind.
        reader, writer = await asyncio.open_connection("127.0.0.1", int(ingest.url.rpartition(":")[2]))
        writer.write(head.encode() + b"{")
        await writer.drain()
        writer.close()
        assert (await ingest.post("/v1/track", _TRACK, key))[0] == 200


async def test_deflate_is_refused_clearly(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    status, answer = await ingest.post(
        "/v1/track", zlib.compress(json.dumps(_TRACK).encode()), key, {"Content-Encoding": "deflate"}
    )
    assert (status, answer["code"]) == (400, "unsupported_encoding")
