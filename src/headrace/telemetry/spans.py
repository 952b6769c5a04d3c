"""Spans: each event has one trace through all services; batches link to the events in them.

The trace context of an event is a W3C `traceparent` string that travels in the event itself.
Everything here costs next to nothing while no exporter is set (see `headrace.telemetry.setup`).
"""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

AttributeValue = str | bool | int | float

_HEX = frozenset(string.hexdigits.lower())
_ZERO_TRACE = "0" * 32
_ZERO_SPAN = "0" * 16
MAX_LINKS = 128
"""Links on one batch span; the events beyond still get spans of their own, linked to the batch."""


class _State:
    """What set-up decided; one per process."""

    tracer: trace.Tracer | None = None
    bound: int = 0


_state = _State()
# Ids need to be unique, not secret: a generator seeded by the system is ten times cheaper than asking it each time.
_random = random.Random(os.urandom(16))  # noqa: S311 - not for secrets
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(16)))


class LinkedBatchSampler(Sampler):
    """Samples a root span that has links when any linked event is sampled, others by ratio."""

    def __init__(self, ratio: float) -> None:
        """Sample roots without links at this ratio."""
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: otel_context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a root span."""
        if links:
            sampled = any(link.context.trace_flags.sampled for link in links)
            return SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, attributes)
        return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name of the sampler."""
        return f"LinkedBatchSampler{{{self._ratio.rate}}}"


def sampler(ratio: float) -> Sampler:
    """The sampler of all services: follow the parent; for new traces the ratio; for batches their events."""
    return ParentBased(LinkedBatchSampler(ratio))


def enable(tracer: trace.Tracer | None, ratio: float) -> None:
    """Turn tracing on, or off with None; called by `headrace.telemetry.setup`."""
    _state.tracer = tracer
    _state.bound = TraceIdRatioBased.get_bound_for_rate(ratio) if tracer is not None else 0


def tracing() -> bool:
    """True when spans are exported."""
    return _state.tracer is not None


def new_traceparent() -> str:
    """The context of a new trace: random ids; flagged as sampled only when tracing is on and the ratio takes it."""
    # 32 digits for the trace, 16 for the span; zeros alone, which are forbidden, come once in 2^64.
    ids = f"{_random.getrandbits(192):048x}"
    sampled = _state.bound and int(ids[16:32], 16) < _state.bound
    return f"00-{ids[:32]}-{ids[32:]}-{'01' if sampled else '00'}"


def is_valid(traceparent: str) -> bool:
    """True when a text from outside is a W3C trace context that can be carried on."""
    parts = traceparent.split("-")
    return (
        len(traceparent) == 55
        and [len(part) for part in parts] == [2, 32, 16, 2]
        and all(_HEX.issuperset(part) for part in parts)
        and parts[0] == "00"
        and parts[1] != _ZERO_TRACE
        and parts[2] != _ZERO_SPAN
    )


def is_sampled(traceparent: str) -> bool:
    """True when the context says that its trace is recorded."""
    return len(traceparent) == 55 and traceparent[54] in "13579bdf"


def current_traceparent() -> str:
    """The context of the span in hand; empty when there is none."""
    context = trace.get_current_span().get_span_context()
    return _format(context) if context.is_valid else ""


@contextmanager
def child_of(
    traceparent: str,
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Iterator[str]:
    """Run a block in a span under a given parent.

    Args:
        traceparent: The parent; an empty or wrong one starts a new trace.
        name: Name of the span.
        attributes: Attributes without personal data.
        kind: SERVER, CLIENT, PRODUCER, CONSUMER or INTERNAL.

    Yields:
        The context to hand on: the new span's, or the given one when tracing is off.
    """
    tracer = _state.tracer
    if tracer is None:
        yield traceparent
        return
    parent = _context(traceparent)
    with tracer.start_as_current_span(
        name, context=parent, kind=kind, attributes=attributes, record_exception=False
    ) as span:
        yield _format(span.get_span_context())


@contextmanager
def batch_span(
    name: str, links: Sequence[str] = (), attributes: Mapping[str, AttributeValue] | None = None
) -> Iterator[None]:
    """Run a block in the span of a batch that links to the events in it.

    The span is recorded when any of the events is. It is the root of a trace of its own: a batch
    belongs to as many traces as it has events.

    Args:
        name: Name of the span.
        links: Trace contexts of the events.
        attributes: Attributes without personal data.
    """
    tracer = _state.tracer
    if tracer is None:
        yield
        return
    sampled = [tp for tp in links if is_sampled(tp)][:MAX_LINKS]
    if not sampled:
        # Without a recorded event there is nothing to show; hide an outer span from what the block starts.
        token = otel_context.attach(trace.set_span_in_context(trace.INVALID_SPAN, otel_context.Context()))
        try:
            yield
        finally:
            otel_context.detach(token)
        return
    with tracer.start_as_current_span(
        name,
        context=otel_context.Context(),
        kind=SpanKind.CONSUMER,
        links=[Link(context) for context in map(_parse, sampled) if context is not None],
        attributes={"headrace.batch_size": len(links), **(attributes or {})},
        record_exception=False,
    ):
        yield


def event_spans(
    name: str,
    traceparents: Sequence[str],
    attributes: Mapping[str, AttributeValue] | Sequence[Mapping[str, AttributeValue]] | None = None,
) -> list[str]:
    """Make one child span per sampled event, from the start of the current batch span until now, linked to it.

    Args:
        name: Name of each span.
        traceparents: Contexts of the events.
        attributes: Attributes of all spans, or one mapping per event; without personal data.

    Returns:
        The contexts to hand on, in order: a new span's where one was made, else the given one.
    """
    tracer = _state.tracer
    if tracer is None:
        return list(traceparents)
    batch = trace.get_current_span()
    batch_context = batch.get_span_context()
    links = [Link(batch_context)] if batch_context.is_valid else []
    now = time.time_ns()
    start = (batch.start_time if isinstance(batch, SdkSpan) else None) or now
    result = []
    for index, traceparent in enumerate(traceparents):
        parent = _context(traceparent) if is_sampled(traceparent) else None
        if parent is None:
            result.append(traceparent)
            continue
        own = attributes if attributes is None or isinstance(attributes, Mapping) else attributes[index]
        span = tracer.start_span(name, context=parent, links=links, attributes=own, start_time=start)
        span.end(now)
        result.append(_format(span.get_span_context()))
    return result


def _parse(traceparent: str) -> SpanContext | None:
    if not is_valid(traceparent):
        return None
    return SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:], 16)),
    )


def _context(traceparent: str) -> otel_context.Context | None:
    """A context with the given parent; an empty context (a new trace) when there is none."""
    parsed = _parse(traceparent)
    if parsed is None:
        return otel_context.Context()
    return trace.set_span_in_context(NonRecordingSpan(parsed), otel_context.Context())


def _format(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
