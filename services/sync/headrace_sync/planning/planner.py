"""Forwarding: resolved events become stored deliveries, or entries of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.telemetry import metrics, spans
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.handover import Handover
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.work import Work, forwarding_document
from headrace_sync.planning.rules import Plan, plan, without_accounted
from headrace_sync.registry import Snapshot

_planned = metrics.counter("headrace_planned", "Events planned at forwarding syncs, by what becomes of them.")


class Planner:
    """Plans resolved events at all forwarding syncs of their workspace."""

    def __init__(self, store: DeliveryStore, handover: Handover) -> None:
        """Plan into a store."""
        self._store = store
        self._handover = handover

    async def plan(self, snapshot: Snapshot, events: Sequence[ResolvedEvent], *, again: bool = False) -> int:
        """Make the plans of events durable; planning an event again changes nothing.

        Args:
            snapshot: The configuration, read after the events were resolved.
            events: Events of any workspaces.
            again: True compares each with what was planned already, which is quicker when most of it was.

        Returns:
            Number of deliveries that are new.
        """
        by_workspace: dict[str, list[ResolvedEvent]] = {}
        for event in events:
            workspace_id = event.event.workspace_id
            if not snapshot.is_erased(workspace_id, event.profile_id):
                by_workspace.setdefault(workspace_id, []).append(event)
        new = 0
        for workspace_id, own in by_workspace.items():
            syncs = snapshot.forwarding.get(workspace_id)
            if syncs:
                with spans.batch_span("plan deliveries", [e.traceparent for e in own]):
                    new += await self._plan_workspace(workspace_id, syncs, own, again=again)
        return new

    async def _plan_workspace(
        self, workspace_id: str, syncs: Sequence[SyncConfig], events: Sequence[ResolvedEvent], *, again: bool
    ) -> int:
        filtered: dict[tuple[str, str, str], Iterable[int]] = {}
        works: list[Work] = []
        now = now_us()
        for sync in syncs:
            made = plan(sync.forwarding, events)
            if made.unsettled or again:
                made = without_accounted(made, *await self._accounted(sync.key, made))
            for (segment_id, reason), places in made.filtered.items():
                filtered[sync.key, segment_id, reason] = places.keys()
            works += [Work(forwarding_document(sync, event, now), event.event) for event in made.deliver]
        await self._store.add_filtered(workspace_id, filtered)
        _planned.add(sum(len(list(places)) for places in filtered.values()), {"outcome": "filtered"})
        new = await self._handover.store(works)
        _planned.add(new, {"outcome": "deliver"})
        return new

    async def _accounted(self, sync_key: str, made: Plan) -> tuple[set[str], dict[str, set[int]]]:
        """(message ids with a delivery, places filtered by segment) among the events of a plan."""
        message_ids = [event.event.message_id for event in made.deliver]
        segments = {event.segment_id for event in made.deliver}
        for (segment_id, _), places in made.filtered.items():
            segments.add(segment_id)
            message_ids += places.values()
        return (
            await self._store.existing(sync_key, message_ids),
            await self._store.filtered_places(sync_key, segments),
        )
