"""Writing down what became of deliveries: ended, given back, tried again later, or put into the dead letter."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Document
from headrace.telemetry import metrics
from headrace_sync.deliveries.replays import NOT_REPEATED
from headrace_sync.deliveries.store import DeliveryStore, Ending, Postponed
from headrace_sync.outlets.backoff import delay_us, is_out_of_time
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.store import DELIVERED, FAILED, FILTERED, WARNING

deliveries = metrics.counter("headrace_deliveries", "Tries to deliver an item that ended, by connector and outcome.")
retries = metrics.counter("headrace_delivery_retries", "Items that will be tried again, by connector.")


@dataclass(slots=True)
class _Sorted:
    """Deliveries by what is to be written down."""

    accepted: dict[Ending, list[str]] = field(default_factory=dict)
    ended: dict[Ending, list[str]] = field(default_factory=dict)
    released: dict[int, list[str]] = field(default_factory=dict)
    postponed: list[Postponed] = field(default_factory=list)


class Results:
    """Writes down what became of deliveries to one destination."""

    def __init__(
        self, store: DeliveryStore, info: wire.ConnectorInfo, plugin_attempts: int, begins_us: int = 0
    ) -> None:
        """Write to a store.

        Args:
            store: Deliveries.
            info: What the destination's connector is.
            plugin_attempts: After how many failures of the plugin an item is parked.
            begins_us: No item's time begins before this.
        """
        self._store = store
        self._info = info
        self._plugin_attempts = plugin_attempts
        self._begins_us = begins_us

    async def write_down(self, tried: Sequence[tuple[Document, Verdict]], *, held: Document) -> bool:
        """Store verdicts on deliveries; repeating it after a failure is harmless.

        Args:
            tried: (delivery as it is stored, verdict).
            held: What is so only of deliveries that are still those of the caller.

        Returns:
            True when some of them may be due again soon.

        Raises:
            pymongo.errors.PyMongoError: Not everything is stored.
        """
        now, found = now_us(), _Sorted()
        for document, verdict in tried:
            self._sort(document, verdict, now, found)
        for ending, ids in found.accepted.items():
            await self._store.accept(ids, ending, now=now)
        for ending, ids in found.ended.items():
            await self._store.end(ids, ending, now=now, tries=int(ending.state == FAILED))
        for after_us, ids in found.released.items():
            await self._store.release(ids, held=held, at=now + after_us)
        await self._store.postpone(found.postponed, held=held, now=now)
        retries.add(len(found.postponed), {"connector": self._info.name})
        counts = Counter(verdict.kind for _, verdict in tried if verdict.kind is not Kind.PENDING)
        for kind, count in counts.items():
            deliveries.add(count, {"connector": self._info.name, "outcome": kind.value})
        return bool(found.postponed or found.released)

    def _sort(self, document: Document, verdict: Verdict, now: int, found: _Sorted) -> None:
        kind, id = verdict.kind, document["_id"]
        told = (verdict.code, verdict.reason, verdict.exchange)
        if kind is Kind.DELIVERED:
            found.accepted.setdefault(Ending(DELIVERED, *told), []).append(id)
        elif kind is Kind.WARNED:
            found.accepted.setdefault(Ending(WARNING, *told), []).append(id)
        elif kind is Kind.REJECTED:
            found.ended.setdefault(Ending(FAILED, *told), []).append(id)
        elif kind is Kind.SKIPPED:
            found.ended.setdefault(Ending(FILTERED, *told), []).append(id)
        elif kind is Kind.UNTRIED:
            after_us = int((1.0 if verdict.after_s is None else verdict.after_s) * SECOND_US)
            found.released.setdefault(after_us, []).append(id)
        elif kind not in (Kind.GONE, Kind.PENDING):
            self._try_again(document, verdict, now, found)

    def _try_again(self, document: Document, verdict: Verdict, now: int, found: _Sorted) -> None:
        """Postpone a delivery, or put it into the dead letter."""
        policy = self._info.retry
        plugin_failed = verdict.kind is Kind.PLUGIN
        begun = max(document["b"], self._begins_us) if document["b"] else now
        reason = verdict.reason
        is_dead = plugin_failed and document["pf"] + 1 >= self._plugin_attempts
        if verdict.kind is Kind.LOST and self._info.idempotency == "none":
            reason, is_dead = f"{reason}: {NOT_REPEATED}", True
        due = now + delay_us(
            document["at"] + 1,
            base_s=policy.base_s,
            cap_s=policy.cap_s,
            draw=random.random(),  # noqa: S311 - jitter
            asked_s=verdict.after_s,
        )
        if is_dead or is_out_of_time(due, begun, policy.max_age_s):
            ending = Ending(FAILED, verdict.code, reason, verdict.exchange)
            found.ended.setdefault(ending, []).append(document["_id"])
            return
        found.postponed.append(
            Postponed(document["_id"], due, begun, verdict.code, reason, int(plugin_failed), verdict.exchange)
        )
