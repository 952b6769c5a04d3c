"""An event's trace goes on through its evaluation to the change that it causes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from headrace_audience.settings import Settings
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from headrace.telemetry import spans
from tests.support.audience import COUNT, QUICK, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

SAMPLED = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
UNSAMPLED = "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-00"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=spans.sampler(1.0))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.enable(provider.get_tracer("test"), 1.0)
    yield exporter
    spans.enable(None, 0)
    provider.shutdown()


async def test_change_carries_the_evaluating_span(
    db: Database, redis: Redis, make_settings: MakeSettings, exported: InMemorySpanExporter
) -> None:
    identity = FakeIdentity(db, redis, QUICK["partitions"])
    async with serving_audience(make_settings(Settings, **QUICK)) as client:
        await client.start("buyers", COUNT)
        await identity.resolve(
            event("p1", "Purchased", message_id="m1", traceparent=SAMPLED),
            event("p2", "Purchased", message_id="m2", traceparent=UNSAMPLED),
        )
        await client.has_members("buyers", ["p1", "p2"])
        (change,) = await client.changes(message_id="m1")
        (other,) = await client.changes(message_id="m2")
    own = [s for s in exported.get_finished_spans() if s.name == "evaluate"]
    batches = [s for s in exported.get_finished_spans() if s.name == "evaluate_batch"]
    assert len(own) == 1, "only sampled events get a span"
    assert own[0].context is not None and own[0].parent is not None
    assert f"{own[0].context.trace_id:032x}" == SAMPLED[3:35] and f"{own[0].parent.span_id:016x}" == SAMPLED[36:52]
    assert change.traceparent == f"{SAMPLED[:36]}{own[0].context.span_id:016x}-01"
    assert other.traceparent == UNSAMPLED
    linked = {f"{link.context.trace_id:032x}" for s in batches for link in s.links}
    assert linked == {SAMPLED[3:35]}
    texts = [str(s.attributes) for s in exported.get_finished_spans()]
    assert not any("p1" in text for text in texts)
