"""Metrics: OpenTelemetry instruments behind a Prometheus endpoint.

Instruments may be made at import time; they count from `headrace.telemetry.setup` on. Labels hold
methods, codes, states, never ids of people, values or secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation

Reading = tuple[float, Mapping[str, str | int | bool]]

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZE_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

_meter = metrics.get_meter("headrace")
_without_labels: list[Counter] = []
_readers: dict[str, Callable[[], Iterable[Reading]]] = {}


def counter(name: str, description: str, *, without_labels: bool = False) -> Counter:
    """An instrument that only goes up: `counter.add(1, {"outcome": "accepted"})`.

    Args:
        name: Snake case, starting with "headrace_"; Prometheus shows it with the ending _total.
        description: What is counted, in a sentence.
        without_labels: It is never given any, and is shown as 0 from the start: who alerts on an increase sees the
            first one too, and 0 is told apart from a service that does not count.
    """
    made = _meter.create_counter(name, description=description)
    if without_labels:
        _without_labels.append(made)
    return made


def show_zeros() -> None:
    """Show the counters that have no labels though nothing was counted."""
    for one in _without_labels:
        one.add(0)


def histogram(name: str, description: str, buckets: Sequence[float] = SECONDS_BUCKETS) -> Histogram:
    """An instrument for distributions: `histogram.record(0.012, {"method": "..."})`.

    Args:
        name: Snake case with the unit at its end, such as headrace_rpc_server_seconds.
        description: What is measured, with its unit.
        buckets: Upper bounds of the buckets, in that unit.
    """
    return _meter.create_histogram(name, description=description, explicit_bucket_boundaries_advisory=buckets)


def gauge_callback(name: str, description: str, read: Callable[[], Iterable[Reading]]) -> None:
    """An instrument that is read when somebody looks.

    Args:
        name: Snake case. Registering a name again replaces its reader.
        description: What is measured, with its unit.
        read: Returns (value, labels) pairs; runs in the thread of the endpoint, so it only looks at numbers
            that are there and never does I/O.
    """
    known = name in _readers
    _readers[name] = read
    if not known:

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            read_now = _readers.get(name, tuple)
            return [Observation(value, labels) for value, labels in read_now()]

        _meter.create_observable_gauge(name, callbacks=[observe], description=description)


def forget_readers() -> None:
    """Let go of what the readers hold, at the end of the process: stores are closed before the interpreter ends."""
    _readers.clear()
