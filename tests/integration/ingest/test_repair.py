"""Refused messages: listed with their reasons, repaired, accepted once."""

from __future__ import annotations

import json

from headrace_ingest.store import REJECTED_MESSAGES

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.ingest.v1 import ingest_service_pb2 as events_pb
from headrace.api.ingest.v1 import source_service_pb2 as pb
from tests.support.ingest import PARENT, Ingest


async def _list(ingest: Ingest) -> list[pb.RejectedMessage]:
    request = pb.ListRejectedMessagesRequest(parent=PARENT)
    return list((await ingest.sources.ListRejectedMessages(request)).messages)


async def _repair(ingest: Ingest, *repairs: pb.Repair) -> list[int]:
    answer = await ingest.sources.RepairMessages(pb.RepairMessagesRequest(parent=PARENT, repairs=repairs))
    return [status.code for status in answer.results]


async def test_a_message_is_repaired_once(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    sent = {"batch": [{"type": "track", "userId": "u", "timestamp": "2026-01-01T00:00:00Z"}]}
    await ingest.post("/v1/batch", {**sent, "sentAt": "2026-01-01T00:00:10Z"}, key)
    (message,) = await _list(ingest)
    assert (message.code, message.field, message.source) == ("missing_name", "event", f"{PARENT}/sources/web")
    assert json.loads(message.body) == sent["batch"][0]
    record = await ingest.db[REJECTED_MESSAGES].find_one({})

    assert await _repair(ingest, pb.Repair(id=message.id)) == [3], "as it came it is still refused"
    repaired = json.dumps({**sent["batch"][0], "event": "A"}).encode()
    assert await _repair(ingest, pb.Repair(id=message.id, body=repaired), pb.Repair(id="nobody")) == [0, 5]
    (event,) = await ingest.logged()
    assert event.received_at_us == message.receive_time.ToMicroseconds(), "it came when it first came"
    assert event.timestamp_us == event.received_at_us - 10_000_000, "corrected by the batch that brought it"
    assert await _list(ingest) == []

    # A crash between the commit and the removal leaves the record: repairing it again is the same message.
    assert record is not None
    await ingest.db[REJECTED_MESSAGES].insert_one(record)
    assert await _repair(ingest, pb.Repair(id=message.id, body=repaired)) == [0]
    assert len({e.message_id for e in await ingest.logged()}) == 1


async def test_every_form_can_be_repaired(ingest: Ingest) -> None:
    web = await ingest.source()
    crm = await ingest.source("crm", "webhook", mapping='{"kind": "identify", "identifiers": {"crm_id": "no"}}')
    await ingest.post("/v1/identify", {"traits": {}}, web.write_key)
    await ingest.post("/v1/batch", b'{"batch": [', web.write_key)
    await ingest.post(f"/webhooks/{crm.webhook_token}", {"id": "c1"})
    await ingest.post(f"/webhooks/{crm.webhook_token}", b"hello")
    wrong = Event(message_id="g1", kind=EventKind.EVENT_KIND_TRACK, name="A", properties=b'{"a": ')
    request = events_pb.IngestEventsRequest(source=web.name, events=[wrong])
    (result,) = (await ingest.events.IngestEvents(request)).results
    assert result.message_id == "g1" and result.status.code == 3
    messages = {m.body.decode(): m for m in await _list(ingest)}
    assert len(messages) == 5
    forms = {d["form"]: d["_id"] for d in await ingest.rejected()}
    assert set(forms) == {"identify", "batch", "record", "webhook", "event"}

    mapping = '{"kind": "identify", "identifiers": {"crm_id": "id"}}'
    await ingest.sources.UpdateSource(pb.UpdateSourceRequest(source=pb.Source(name=crm.name, mapping=mapping)))
    pages = [{"type": "page", "userId": user} for user in ("b1", "b2")]
    right = Event(kind=EventKind.EVENT_KIND_TRACK, name="A", identifiers=[Identifier(namespace="user_id", value="g")])
    from google.protobuf import json_format

    codes = await _repair(
        ingest,
        pb.Repair(id=forms["identify"], body=b'{"userId": "i"}'),
        pb.Repair(id=forms["batch"], body=json.dumps({"batch": pages}).encode()),
        pb.Repair(id=forms["record"]),
        pb.Repair(id=forms["webhook"], body=b'[{"id": "w1"}, {"id": "w2"}]'),
        pb.Repair(id=forms["event"], body=json_format.MessageToJson(right).encode()),
    )
    assert codes == [0, 0, 0, 0, 0]
    events = await ingest.logged()
    assert sorted(e.identifiers[0].value for e in events) == ["b1", "b2", "c1", "g", "i", "w1", "w2"]
    assert len({e.message_id for e in events}) == 7
    assert next(e for e in events if e.identifiers[0].value == "g").message_id == "g1"
    assert await _list(ingest) == []


async def test_what_was_kept_in_part_needs_a_body(ingest: Ingest) -> None:
    web = await ingest.source()
    await ingest.post("/v1/track", b'{"userId":"u","event":"' + b"a" * 600_000 + b'"}', web.write_key)
    (message,) = await _list(ingest)
    assert len(message.body) == 512 * 1024 and message.code == "batch_too_large"
    assert await _repair(ingest, pb.Repair(id=message.id)) == [3]
    assert await _repair(ingest, pb.Repair(id=message.id, body=b'{"userId":"u","event":"A"}')) == [0]


async def test_of_a_deleted_source_nothing_is_repaired(ingest: Ingest) -> None:
    web = await ingest.source()
    await ingest.post("/v1/track", {"userId": "u"}, web.write_key)
    await ingest.sources.DeleteSource(pb.DeleteSourceRequest(name=web.name))
    (message,) = await _list(ingest)
    assert await _repair(ingest, pb.Repair(id=message.id, body=b'{"userId":"u","event":"A"}')) == [9]
    assert len(await _list(ingest)) == 1


async def test_lists_by_source_in_pages_newest_first(ingest: Ingest) -> None:
    one, two = await ingest.source("one"), await ingest.source("two")
    for number in range(5):
        await ingest.post("/v1/track", {"userId": f"{number}"}, one.write_key)
    await ingest.post("/v1/track", {"userId": "x"}, two.write_key)
    assert len(await _list(ingest)) == 6
    request = pb.ListRejectedMessagesRequest(parent=PARENT, source=one.name, page_size=3)
    first = await ingest.sources.ListRejectedMessages(request)
    request.page_token = first.next_page_token
    second = await ingest.sources.ListRejectedMessages(request)
    users = [json.loads(m.body)["userId"] for m in (*first.messages, *second.messages)]
    assert users == ["4", "3", "2", "1", "0"] and not second.next_page_token
    other = pb.ListRejectedMessagesRequest(parent="workspaces/other")
    assert not (await ingest.sources.ListRejectedMessages(other)).messages


async def test_lists_by_message_id(ingest: Ingest) -> None:
    key = (await ingest.source()).write_key
    for message_id in ("m1", "m2", "m1"):
        await ingest.post("/v1/track", {"userId": "u", "messageId": message_id}, key)
    request = pb.ListRejectedMessagesRequest(parent=PARENT, message_id="m1")
    answer = await ingest.sources.ListRejectedMessages(request)
    assert [m.message_id for m in answer.messages] == ["m1", "m1"]
    request = pb.ListRejectedMessagesRequest(parent="workspaces/other", message_id="m1")
    assert list((await ingest.sources.ListRejectedMessages(request)).messages) == []
