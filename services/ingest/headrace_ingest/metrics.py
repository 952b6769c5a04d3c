"""What ingest measures. Counts are added up and reported once per group commit: an instrument costs microseconds."""

from __future__ import annotations

from collections import Counter

from headrace.telemetry import metrics

_messages = metrics.counter("headrace_ingest_messages", "Messages by outcome (accepted, rejected) and code.")
_requests = metrics.counter("headrace_ingest_requests", "HTTP requests that were answered, by status and code.")
_dispatched = metrics.counter("headrace_ingest_segments_dispatched", "Segments sent to their stream, by who sent them.")
_located = metrics.counter(
    "headrace_ingest_country_lookups",
    "IP addresses whose country was looked for, by outcome (found, unknown, no_public_address, untrusted_proxy, "
    "broken).",
)
commit_seconds = metrics.histogram("headrace_ingest_commit_seconds", "Time of a group commit in seconds, by outcome.")
commit_events = metrics.histogram(
    "headrace_ingest_commit_events", "Events of one group commit.", buckets=metrics.SIZE_BUCKETS
)

FOUND, UNKNOWN, NO_ADDRESS = "found", "unknown", "no_public_address"
UNTRUSTED_PROXY, BROKEN = "untrusted_proxy", "broken"
"""What came of looking for a country: it; the table does not place the address; there is no public address; the
request came through a proxy that is not trusted; the table is broken where the address should be."""


class Tally:
    """Counts of this process, until they are reported."""

    def __init__(self) -> None:
        """Count from nothing."""
        self._accepted = 0
        self._rejected: Counter[str] = Counter()
        self._answered: Counter[tuple[int, str]] = Counter()
        self._located: Counter[str] = Counter()

    def accepted(self, count: int) -> None:
        """Messages that are durable."""
        self._accepted += count

    def rejected(self, code: str) -> None:
        """A message that was refused and kept."""
        self._rejected[code] += 1

    def located(self, outcome: str) -> None:
        """An IP address whose country was looked for."""
        self._located[outcome] += 1

    def answered(self, status: int, code: str) -> None:
        """A request that was answered."""
        self._answered[status, code] += 1

    def report(self) -> None:
        """Add everything to the instruments."""
        if self._accepted:
            _messages.add(self._accepted, {"outcome": "accepted", "code": "ok"})
            self._accepted = 0
        for code, count in self._rejected.items():
            _messages.add(count, {"outcome": "rejected", "code": code})
        self._rejected.clear()
        for (status, code), count in self._answered.items():
            _requests.add(count, {"status": status, "code": code})
        self._answered.clear()
        for outcome, count in self._located.items():
            _located.add(count, {"outcome": outcome})
        self._located.clear()


tally = Tally()
"""Counts of this process."""


def dispatched(count: int, by: str) -> None:
    """Count segments that were sent to their stream by "dispatcher" or "sweeper"."""
    if count:
        _dispatched.add(count, {"by": by})
