"""Webhooks: the raw body is stored, the mapping makes events, what does not fit is kept."""

from __future__ import annotations

import json

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.api.ingest.v1 import source_service_pb2 as pb
from tests.support.ingest import Ingest

_CRM = {
    "kind": "identify",
    "identifiers": {"crm_id": "contact.id", "email": "contact.email"},
    "traits": {"plan": "contact.plan"},
}
_ORDERS = {
    "kind": "track",
    "event_from": "type",
    "identifiers": {"user_id": "customer"},
    "properties": "@",
    "timestamp": "at",
    "message_id": "id",
    "each": "orders",
    "when": "paid",
}


async def test_a_contact_of_a_crm(ingest: Ingest) -> None:
    crm = await ingest.source("crm", "webhook", mapping=json.dumps(_CRM))
    body = b'{"contact": {"id": "crm-7",  "email": "ADA@example.com", "plan": "gold"}}'
    path = f"/webhooks/{crm.webhook_token}"
    assert await ingest.post(path, body) == (200, {"success": True})
    (event,) = await ingest.logged()
    assert event.kind == EventKind.EVENT_KIND_IDENTIFY
    assert {(i.namespace, i.value) for i in event.identifiers} == {("crm_id", "crm-7"), ("email", "ADA@example.com")}
    assert json.loads(event.traits) == {"plan": "gold"}
    (message,) = (await ingest.sources.ListSourceMessages(pb.ListSourceMessagesRequest(parent=crm.name))).messages
    assert message.body == body and list(message.message_ids) == [event.message_id] == [message.id]


async def test_orders_with_names_times_and_ids_of_the_sender(ingest: Ingest) -> None:
    shop = await ingest.source("shop", "webhook", mapping=json.dumps(_ORDERS))
    orders = [
        {"id": "o1", "type": "order_completed", "customer": 7, "paid": True, "at": "2026-01-01T00:00:00Z"},
        {"id": "o2", "type": "x", "customer": 7, "paid": False},
        {"id": "o3", "type": None, "customer": 7, "paid": True},
    ]
    status, answer = await ingest.post(f"/webhooks/{shop.webhook_token}", {"orders": orders})
    assert status == 200
    assert [(r["index"], r["code"]) for r in answer["results"]] == [(2, "missing_name")]
    (event,) = await ingest.logged()
    assert (event.name, event.message_id, event.timestamp_us) == ("Purchased", "shop:o1", 1_767_225_600_000_000)
    assert json.loads(event.properties)["id"] == "o1"
    (record,) = await ingest.rejected()
    assert record["form"] == "record" and json.loads(record["b"])["id"] == "o3"


async def test_json_arrays_lines_and_forms(ingest: Ingest) -> None:
    mapping = {"kind": "track", "event": "Called", "identifiers": {"user_id": "user"}, "properties": {"n": "n"}}
    calls = await ingest.source("calls", "webhook", mapping=json.dumps(mapping))
    path = f"/webhooks/{calls.webhook_token}"
    bodies = [
        (b'[{"user":"a","n":1},{"user":"b","n":NaN}]', "application/json"),
        (b'{"user":"c","n":3}\n\n{"user":"d","n":4}\n', "application/x-ndjson"),
        (b"user=e&n=5&tag=x&tag=y", "application/x-www-form-urlencoded"),
        (b'{"user":"f"}', "text/plain"),
    ]
    for body, content_type in bodies:
        assert await ingest.post(path, body, headers={"Content-Type": content_type}) == (200, {"success": True})
    events = {e.identifiers[0].value: e for e in await ingest.logged()}
    assert sorted(events) == list("abcdef")
    assert json.loads(events["e"].properties) == {"n": "5"}
    assert events["b"].properties == b"", "NaN is nothing, and nothing is left out"
    raw = await ingest.raw()
    assert [bytes(d["b"]) for d in raw] == [body for body, _ in bodies]
    assert raw[0]["m"] == [f"{raw[0]['_id']}-0", f"{raw[0]['_id']}-1"]


async def test_a_source_without_mapping_only_stores(ingest: Ingest) -> None:
    plain = await ingest.source("plain", "webhook")
    assert await ingest.post(f"/webhooks/{plain.webhook_token}", {"a": 1}) == (200, {"success": True})
    assert await ingest.count() == 0 and len(await ingest.raw()) == 1


async def test_repeats_of_a_sender_have_one_message_id(ingest: Ingest) -> None:
    crm = await ingest.source("crm", "webhook", mapping=json.dumps(_CRM))
    for _ in range(2):
        await ingest.post(f"/webhooks/{crm.webhook_token}", {"contact": {"id": "1"}}, headers={"Webhook-Id": "d-1"})
    assert [e.message_id for e in await ingest.logged()] == ["crm:d-1", "crm:d-1"]


async def test_disabled_and_deleted(ingest: Ingest) -> None:
    crm = await ingest.source("crm", "webhook", mapping=json.dumps(_CRM))
    path = f"/webhooks/{crm.webhook_token}"
    await ingest.sources.UpdateSource(pb.UpdateSourceRequest(source=pb.Source(name=crm.name, disabled=True)))
    assert (await ingest.post(path, {"contact": {"id": "1"}}))[0] == 403
    await ingest.sources.DeleteSource(pb.DeleteSourceRequest(name=crm.name))
    assert (await ingest.post(path, {"contact": {"id": "1"}}))[0] == 401
    assert await ingest.raw() == []
