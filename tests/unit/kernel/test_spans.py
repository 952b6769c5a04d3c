from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.telemetry import spans

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
UNSAMPLED = PARENT[:-1] + "0"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=spans.sampler(1.0))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.enable(provider.get_tracer("test"), 1.0)
    yield exporter
    spans.enable(None, 0)
    provider.shutdown()


def test_without_tracing_the_context_is_handed_through() -> None:
    with spans.child_of(PARENT, "x") as context:
        assert context == PARENT
    assert spans.event_spans("x", [PARENT, ""]) == [PARENT, ""]
    assert spans.is_valid(spans.new_traceparent())
    assert not spans.is_sampled(spans.new_traceparent())


def test_a_child_belongs_to_its_parents_trace(exported: InMemorySpanExporter) -> None:
    with spans.child_of(PARENT, "outer") as outer, spans.child_of(outer, "inner") as inner:
        assert spans.current_traceparent() == inner
    inner_span, outer_span = exported.get_finished_spans()
    assert inner_span.name == "inner"
    assert outer_span.parent is not None and f"{outer_span.parent.span_id:016x}" == "b" * 16
    assert inner_span.parent is not None and inner_span.parent.span_id == outer_span.context.span_id
    assert f"{inner_span.context.trace_id:032x}" == "a" * 32


def test_a_batch_links_to_its_sampled_events_and_each_gets_a_span(exported: InMemorySpanExporter) -> None:
    with spans.batch_span("batch", [PARENT, UNSAMPLED]):
        contexts = spans.event_spans("event", [PARENT, UNSAMPLED])
    event, batch = exported.get_finished_spans()
    assert [f"{link.context.span_id:016x}" for link in batch.links] == ["b" * 16]
    assert event.parent is not None and f"{event.parent.span_id:016x}" == "b" * 16
    assert event.links[0].context.span_id == batch.context.span_id
    assert contexts[0] != PARENT
    assert contexts[1] == UNSAMPLED


def test_a_batch_without_a_sampled_event_is_not_recorded(exported: InMemorySpanExporter) -> None:
    with spans.batch_span("batch", [UNSAMPLED]):
        assert spans.current_traceparent() == ""
    assert exported.get_finished_spans() == ()


@given(text=st.text(alphabet="0123456789abcdef-xyz", max_size=60))
def test_what_is_valid_can_be_carried_on(text: str) -> None:
    if spans.is_valid(text):
        assert text.startswith("00-")
        assert len(text) == 55
