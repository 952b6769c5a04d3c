"""A collector of OTLP spans in this process: what an operator's collector would receive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class SeenSpan:
    """A span as it came over the wire."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """(trace id, span id) pairs."""


@dataclass
class Collector(TraceServiceServicer):
    """Keeps every span."""

    endpoint: str = ""
    _spans: list[SeenSpan] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(self, request: otlp.ExportTraceServiceRequest, context: Any) -> otlp.ExportTraceServiceResponse:
        """Take a batch."""
        found = [
            _seen(resource, span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found
        return otlp.ExportTraceServiceResponse()

    def spans(self, trace_id: str | None = None) -> list[SeenSpan]:
        """All spans so far, or those of one trace."""
        with self._lock:
            return [s for s in self._spans if trace_id in (None, s.trace_id)]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that serves inside the block; its `endpoint` goes into OTEL_EXPORTER_OTLP_ENDPOINT."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(1).wait()


def _seen(resource: Any, span: Any) -> SeenSpan:
    names = {a.key: a.value.string_value for a in resource.resource.attributes}
    return SeenSpan(
        service=names.get("service.name", ""),
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={a.key: _value(a.value) for a in span.attributes},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
