"""What identity tells operators: spans that belong to the events' traces, and nothing personal anywhere."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator

import prometheus_client
import pytest
from headrace_identity.bootstrap import lanes
from headrace_identity.settings import Settings
from headrace_identity.watch import Watch
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.service import background
from headrace.settings import ServiceSettings
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs
from headrace.telemetry.setup import setup
from headrace.telemetry.spans import new_traceparent
from tests.support.identity import event, put_in_log, segments, sent_on, unfinished
from tests.support.settings import MakeSettings

PERSONAL = ["ann@shop.example", "+4930123456", "user-4711"]


@pytest.fixture
def exported(make_settings: MakeSettings) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry = setup("identity", make_settings(ServiceSettings), 0, span_processor=SimpleSpanProcessor(exporter))
    yield exporter
    telemetry.close()


async def test_spans_metrics_and_logs(
    db: Database, redis: Redis, make_settings: MakeSettings, exported: InMemorySpanExporter
) -> None:
    written = io.StringIO()
    logs.configure("identity", "DEBUG", written)
    settings = make_settings(Settings, event_partitions=2, partitions=4)
    events = [
        event("m1", ("user_id", "user-4711"), ("email", "ann@shop.example"), traits={"phone": "+4930123456"}),
        event("m2", ("user_id", "user-4711"), ("anonymous_id", "dev1")),
        event("bad", ("email", "ann@shop.example")),
    ]
    events[2].traits = b'["ann@shop.example"]'
    for one in events:
        one.traceparent = new_traceparent()
    await put_in_log(db, redis, segments(events, 3), 2)
    watch = Watch(db, redis, 2)
    async with background() as loops:
        loops.start("watch", watch.run)
        for number, lane in enumerate(lanes(settings, db, redis)):
            loops.start(f"lane-{number}", lane.run)
        while await unfinished(db):
            await asyncio.sleep(0.01)

    spans = {span.name: span for span in exported.get_finished_spans()}
    batch = spans["identity micro-batch"]
    own = [s for s in exported.get_finished_spans() if s.name == "identity resolve"]
    assert {s.attributes["headrace.message_id"] for s in own if s.attributes} == {"m1", "m2"}
    assert len(batch.links) == 3
    resolved = {e.event.message_id: e for b in await sent_on(redis, 4) for e in b.events}
    for span in own:
        assert span.attributes is not None
        sent = resolved[str(span.attributes["headrace.message_id"])]
        _, trace_id, span_id, _ = sent.traceparent.split("-")
        assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == (trace_id, span_id)
        assert span.parent is not None
        assert sent.event.traceparent.startswith(f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}")
        assert [link.context.span_id for link in span.links] == [batch.context.span_id]

    metrics = prometheus_client.generate_latest().decode()
    for line in (
        'headrace_identity_events_total{action="created"',
        'headrace_identity_events_total{action="attached"',
        "headrace_identity_parked_total",
        "headrace_identity_batch_seconds_count",
        "headrace_identity_batch_events_count",
        "headrace_identity_event_age_seconds_count",
        "headrace_identity_oldest_seconds{",
        "headrace_identity_waiting_entries{",
    ):
        assert line in metrics, line
    log_lines = written.getvalue()
    assert any(json.loads(line)["msg"] == "an event was parked" for line in log_lines.splitlines())
    told = log_lines + metrics + "".join(span.to_json() for span in exported.get_finished_spans())
    assert [value for value in PERSONAL if value in told] == []
