"""IngestService: batches and streams of events, each with its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from headrace_ingest.ingest_servicer import MAX_IN_FLIGHT

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.ingest.v1 import ingest_service_pb2 as pb
from headrace.api.ingest.v1 import source_service_pb2 as sources_pb
from headrace.api.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from headrace.domain.times import MINUTE_US, now_us
from headrace.rpc import errors
from headrace.rpc.channel import with_token
from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving
from tests.support.settings import MakeSettings


def _event(message_id: str = "", user: str = "u1", **fields: object) -> Event:
    identifiers = [Identifier(namespace="user_id", value=user)]
    given = {"kind": EventKind.EVENT_KIND_TRACK, "name": "A", "identifiers": identifiers, **fields}
    return Event(message_id=message_id, **given)  # type: ignore[arg-type]  # fields of the tests


async def test_each_event_has_its_result(ingest: Ingest) -> None:
    source = await ingest.source()
    now = now_us()
    events = [
        _event("m1", traits=b'{"email": "a@example.com"}', original_timestamp_us=now - MINUTE_US, sent_at_us=now),
        _event("m2", kind=EventKind.EVENT_KIND_UNSPECIFIED),
        _event("", name="order_completed", workspace_id="other", source_id="x", received_at_us=1, future=True),
        _event("m4", properties=b"[1]"),
        _event("m5", properties=b'{"a": NaN}'),
        _event("m6", identifiers=[]),
        _event("m7", original_timestamp_us=-1),
        _event("m8", traceparent="00-x"),
        _event("m9", name="added_to_segment"),
        _event("m10", properties=b'{"a": "' + b"x" * 40_000 + b'"}'),
        _event("m11", context=b'{"a": \xff}'),
        _event("m12", kind=EventKind.EVENT_KIND_ALIAS),
        _event("m13", kind=EventKind.EVENT_KIND_GROUP),
        _event("m14", user="a\x00b"),
    ]
    answer = await ingest.events.IngestEvents(pb.IngestEventsRequest(source=source.name, events=events))
    codes = [r.status.code for r in answer.results]
    assert codes == [0, 3, 0, 3, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    logged = {e.message_id: e for e in await ingest.logged()}
    made = answer.results[2].message_id
    assert set(logged) == {"m1", made, "m5"} and len(made) == 32
    assert [(i.namespace, i.value) for i in logged["m1"].identifiers] == [
        ("user_id", "u1"),
        ("email", "a@example.com"),
    ]
    first, second = logged["m1"], logged[made]
    assert first.timestamp_us == first.received_at_us - MINUTE_US
    assert (second.workspace_id, second.source_id, second.name, second.future) == ("shop", "web", "Purchased", False)
    assert second.received_at_us >= now
    assert json.loads(logged["m5"].properties) == {"a": None} and logged["m5"].corrections
    kept = {d["m"]: d for d in await ingest.rejected()}
    assert len(kept) == 11 and kept["m2"]["code"] == "unknown_kind" and kept["m2"]["form"] == "event"


async def test_a_write_key_is_enough_and_only_for_its_own_source(ingest: Ingest) -> None:
    source, other = await ingest.source(), await ingest.source("other")
    async with with_token(ingest.running.grpc_address, source.write_key) as channel:
        stub = IngestServiceStub(channel)
        assert (await stub.IngestEvents(pb.IngestEventsRequest(events=[_event()]))).results[0].status.code == 0
        cases = [
            (pb.IngestEventsRequest(source=other.name, events=[_event()]), "SCOPE_MISSING"),
            (pb.IngestEventsRequest(source="workspaces/x/sources/web", events=[_event()]), "WORKSPACE_MISMATCH"),
            (pb.IngestEventsRequest(), "INVALID_ARGUMENT"),
            (pb.IngestEventsRequest(events=[_event()] * 2_501), "INVALID_ARGUMENT"),
        ]
        for request, reason in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.IngestEvents(request)
            assert errors.reason_of(caught.value) == reason
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.events.IngestEvents(pb.IngestEventsRequest(events=[_event()]))
    assert errors.field_violations(caught.value)[0][0] == "source"
    await ingest.sources.UpdateSource(
        sources_pb.UpdateSourceRequest(source=sources_pb.Source(name=source.name, disabled=True))
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.events.IngestEvents(pb.IngestEventsRequest(source=source.name, events=[_event()]))
    assert errors.reason_of(caught.value) == "WRONG_STATE"
    assert await ingest.count() == 1


async def test_a_stream_acknowledges_in_order(ingest: Ingest) -> None:
    source = await ingest.source()

    async def batches() -> AsyncIterator[pb.StreamEventsRequest]:
        for number in range(50):
            events = [_event(f"{number}-{n}", user=f"u{n}") for n in range(20)]
            if number == 7:
                events[3].kind = EventKind.EVENT_KIND_UNSPECIFIED
            name = source.name if number == 0 else ""
            yield pb.StreamEventsRequest(source=name, batch_id=f"b{number}", events=events)

    acknowledged = [answer async for answer in ingest.events.StreamEvents(batches())]
    assert [a.batch_id for a in acknowledged] == [f"b{n}" for n in range(50)]
    assert acknowledged[7].results[3].status.code == 3
    assert sum(r.status.code == 0 for a in acknowledged for r in a.results) == 999 == await ingest.count()


async def test_a_stream_holds_only_a_few_batches(make_settings: MakeSettings, db: Database) -> None:
    """A client that sends without reading is slowed down by the transport; what it sends is not taken ahead of time."""
    async with ingest_serving(make_settings, db, commit_linger_seconds=1.0) as ingest:
        source = await ingest.source()
        taken = 0

        async def batches() -> AsyncIterator[pb.StreamEventsRequest]:
            nonlocal taken
            for number in range(400):
                taken = number
                text = b'{"a": "' + b"x" * 30_000 + b'"}'
                yield pb.StreamEventsRequest(
                    source=source.name, batch_id=str(number), events=[_event(f"{number}", properties=text)] * 10
                )

        call = ingest.events.StreamEvents(batches())
        first = await call.read()
        assert first.batch_id == "0"
        assert taken < 400 - MAX_IN_FLIGHT
        call.cancel()
        await asyncio.sleep(0)
    # Draining ends in time although a stream was open.


async def test_a_wrong_batch_ends_the_stream_with_its_reason(ingest: Ingest) -> None:
    source = await ingest.source()

    async def batches() -> AsyncIterator[pb.StreamEventsRequest]:
        yield pb.StreamEventsRequest(source=source.name, batch_id="good", events=[_event("m1")])
        yield pb.StreamEventsRequest(batch_id="empty")
        yield pb.StreamEventsRequest(batch_id="after", events=[_event("m2")])

    acknowledged = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for answer in ingest.events.StreamEvents(batches()):
            acknowledged.append(answer.batch_id)
    assert acknowledged == ["good"]
    assert errors.field_violations(caught.value)[0][0] == "events"
    nameless = pb.StreamEventsRequest(source=source.name, events=[_event()])
    for request in (pb.StreamEventsRequest(batch_id="x"), nameless):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in ingest.events.StreamEvents(iter([request])):
                pass
        assert errors.reason_of(caught.value) == "INVALID_ARGUMENT"
