"""How far the worker of this replica is, as gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.telemetry import metrics
from headrace_audience.evaluation import Evaluation


def register(
    partitions: Callable[[], int], age_s: Callable[[], float], evaluations: Callable[[], Iterable[Evaluation]]
) -> None:
    """Publish the gauges; each asks when it is read.

    Args:
        partitions: Number of partitions that are held.
        age_s: Age of the oldest stream entry that is not folded, in seconds.
        evaluations: The workspaces that are computed.
    """
    metrics.gauge_callback(
        "headrace_audience_partitions", "Partitions that this replica holds.", lambda: [(partitions(), {})]
    )
    metrics.gauge_callback(
        "headrace_audience_oldest_unprocessed_seconds",
        "Age in seconds of the oldest stream entry that is not folded.",
        lambda: [(age_s(), {})],
    )
    metrics.gauge_callback(
        "headrace_audience_pending_flips",
        "Changes of memberships that are found and not yet written.",
        lambda: [(sum(len(e.pending) for e in evaluations()), {})],
    )
    metrics.gauge_callback(
        "headrace_audience_missing_histories",
        "Pairs of partition and state whose history is still to be folded: 0 when nothing is filling.",
        lambda: [(sum(len(m.tickets) for e in evaluations() for m in e.missing.values()), {})],
    )
