"""Set-up of telemetry: one call at the start of a service."""

from __future__ import annotations

import os
import threading
from wsgiref.simple_server import WSGIServer

import prometheus_client
from opentelemetry import metrics as otel_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from headrace.settings import ServiceSettings
from headrace.telemetry import logs, metrics, spans

EXPORTER_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_metrics_lock = threading.Lock()
_metrics_ready = False


class Telemetry:
    """What set-up started; close it last."""

    def __init__(self, provider: TracerProvider | None, endpoint: tuple[WSGIServer, threading.Thread] | None) -> None:
        """Hold what must be closed."""
        self._provider = provider
        self._endpoint = endpoint

    @property
    def metrics_port(self) -> int:
        """Port of the Prometheus endpoint; 0 when there is none."""
        return self._endpoint[0].server_port if self._endpoint else 0

    def flush(self) -> None:
        """Send spans that wait; returns within five seconds."""
        if self._provider is not None:
            self._provider.force_flush(5_000)

    def close(self) -> None:
        """Send what waits, close the endpoint, turn tracing off."""
        if self._endpoint is not None:
            server, thread = self._endpoint
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)
            self._endpoint = None
        if self._provider is not None:
            spans.enable(None, 0)
            self.flush()
            self._provider.shutdown()
            self._provider = None


def setup(
    service_name: str,
    settings: ServiceSettings,
    metrics_port: int | None = None,
    *,
    span_processor: SpanProcessor | None = None,
) -> Telemetry:
    """Start logs, metrics and, when an exporter is set, traces.

    Args:
        service_name: Name of the service on logs and spans, such as "ingest".
        settings: Log level, sampling ratio, address and port.
        metrics_port: Port of the Prometheus endpoint instead of settings.metrics_port; 0 takes a free one.
        span_processor: Where spans go instead of the OTLP exporter; tests collect them with it.

    Returns:
        A handle to close at the end.

    Raises:
        OSError: The metrics port is taken.
    """
    logs.configure(service_name, settings.log_level)
    resource = Resource.create({"service.name": service_name, "service.namespace": "headrace"})
    _start_metrics(resource)
    provider: TracerProvider | None = None
    processor = span_processor or _exporting_processor()
    if processor is not None:
        provider = TracerProvider(resource=resource, sampler=spans.sampler(settings.trace_ratio))
        provider.add_span_processor(processor)
        spans.enable(provider.get_tracer("headrace"), settings.trace_ratio)
    port = settings.metrics_port if metrics_port is None else metrics_port
    return Telemetry(provider, prometheus_client.start_http_server(port, addr=settings.host))


def _exporting_processor() -> SpanProcessor | None:
    if not os.environ.get(EXPORTER_ENDPOINT):
        return None
    # Imported only here: it loads a second copy of the OTLP protos, which costs start-up time.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _start_metrics(resource: Resource) -> None:
    """Connect the instruments to the Prometheus registry, once per process: OpenTelemetry allows no second time."""
    global _metrics_ready  # noqa: PLW0603 - mirrors OpenTelemetry's own process-wide provider
    with _metrics_lock:
        if not _metrics_ready:
            otel_metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], resource=resource))
            _metrics_ready = True
    metrics.show_zeros()
