"""Spans of evaluation: one per micro-batch, linked to its events, and one per sampled event in its own trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from headrace.telemetry import spans
from headrace_audience.engine.engine import Flip


class EvaluationSpans:
    """The spans of the events of one micro-batch."""

    def __init__(self, traceparents: Sequence[str]) -> None:
        """Trace contexts of the events, as they came."""
        self._given = [tp for tp in dict.fromkeys(traceparents) if tp]
        self._own: dict[str, str] | None = None

    def end(self) -> None:
        """Make a span for each sampled event, from the start of the batch until now; once."""
        if self._own is None:
            own = spans.event_spans("evaluate", self._given) if self._given else []
            self._own = dict(zip(self._given, own, strict=True))

    def replaced(self, flips: Iterable[Flip]) -> list[Flip]:
        """Flips that carry the span of their event on, in place of the context with which the event came."""
        if not spans.tracing():
            return list(flips)
        self.end()
        own = self._own or {}
        return [f._replace(traceparent=own[f.traceparent]) if f.traceparent in own else f for f in flips]


@contextmanager
def evaluated(traceparents: Sequence[str]) -> Iterator[EvaluationSpans]:
    """Run a block in the span of a micro-batch; its events have their own spans at the end."""
    with spans.batch_span("evaluate_batch", traceparents):
        own = EvaluationSpans(traceparents)
        yield own
        if spans.tracing():
            own.end()
