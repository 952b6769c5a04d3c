"""An event's trace reaches the vendor call; nothing personal or secret is in spans, metrics and reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from headrace.settings import ServiceSettings
from headrace.telemetry.setup import setup
from tests.support import sync as support
from tests.support.sync import Hooks, Line, Others

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID, SPAN_ID = int(TRACE[3:35], 16), int(TRACE[36:52], 16)


@pytest.fixture
def spans(make_settings: Callable[..., Any]) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry = setup("sync", make_settings(ServiceSettings), span_processor=SimpleSpanProcessor(exporter))
    yield exporter
    telemetry.close()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def context(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


async def test_a_lone_event_is_followed_to_the_vendor_call(
    serve: Any, hooks: Hooks, line: Line, others: Others, spans: InMemorySpanExporter
) -> None:
    others.people.put("p1", email="ada@example.com")
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        (id,) = await line.send_new(1, traceparent=TRACE)
        await support.settled(api, sync)
    (deliver,) = [span for span in named(spans, "deliver") if context(span)[0] == TRACE_ID]
    assert deliver.parent is not None
    assert deliver.parent.span_id == SPAN_ID
    (call,) = [span for span in named(spans, "POST webhook") if context(span)[0] == TRACE_ID]
    assert call.kind is SpanKind.CLIENT
    assert call.parent is not None
    assert (call.parent.trace_id, call.parent.span_id) == context(deliver)
    assert hooks.headers[id]["traceparent"] == f"00-{context(call)[0]:032x}-{context(call)[1]:016x}-01"
    everything = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "ada@example.com" not in everything
    shown = prometheus_client.generate_latest().decode()
    assert re.search(r'headrace_deliveries_total\{connector="webhook",.*outcome="delivered"\} [1-9]', shown)
    assert "ada@example.com" not in shown


async def test_events_of_a_batch_are_linked_to_its_call(
    serve: Any, hooks: Hooks, line: Line, spans: InMemorySpanExporter
) -> None:
    async with serve() as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url, batch_size=100))
        await line.send_new(3, traceparent=TRACE)
        await support.settled(api, sync)
    delivered = [span for span in named(spans, "deliver") if context(span)[0] == TRACE_ID]
    assert len(delivered) == 3
    batches = {context(span): span for span in named(spans, "deliver webhook")}
    for span in delivered:
        (link,) = span.links
        batch = batches[link.context.trace_id, link.context.span_id]
        assert {(found.context.trace_id, found.context.span_id) for found in batch.links} == {(TRACE_ID, SPAN_ID)}
    calls = named(spans, "POST webhook")
    assert {(c.parent.trace_id, c.parent.span_id) for c in calls if c.parent} <= set(batches)
