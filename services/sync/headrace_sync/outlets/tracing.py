"""Spans around requests to vendors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from opentelemetry.trace import SpanKind

from headrace.telemetry import spans
from headrace_sdk import Request
from headrace_sync.outlets.batch import Batch
from headrace_sync.outlets.verdicts import Verdict

_TRACED = frozenset({"webhook"})
"""Connectors whose receivers are the customer's own and take the trace context; vendors are not told."""


@contextmanager
def traced(connector: str, request: Request, places: Sequence[int], batch: Batch) -> Iterator[Mapping[str, str]]:
    """Spans around a vendor call: in the event's own trace when it carries one event, else linked to the events.

    Args:
        connector: Name of the connector.
        request: The request.
        places: Of the items in the batch that it carries.
        batch: The batch.

    Yields:
        Headers to add.
    """
    attributes = {"http.request.method": request.method, "headrace.connector": connector}
    name = f"{request.method} {connector}"
    with ExitStack() as stack:
        parent = spans.current_traceparent()
        if len(places) == 1 and batch.traceparents:
            parent = batch.traceparents[places[0]]
            if spans.is_sampled(parent):
                batch.traced.add(places[0])
                parent = stack.enter_context(spans.child_of(parent, "deliver"))
        context = stack.enter_context(spans.child_of(parent, name, attributes, kind=SpanKind.CLIENT))
        yield {"traceparent": context} if context and connector in _TRACED else {}


def outcome_attributes(verdict: Verdict) -> dict[str, str | int]:
    """What the span of an item says of what became of it."""
    return {"headrace.outcome": verdict.kind.value, "http.response.status_code": verdict.code}
