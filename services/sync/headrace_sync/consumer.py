"""Streams in: `resolved` to the planner and the lists, `changes` to lists and event syncs.

An entry is acknowledged when what follows from it is durable; a crash before that repeats it, which changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError

from headrace.api.audience.v1.audience_pb2 import MembershipChange, MembershipChangeBatch
from headrace.api.identity.v1.profile_pb2 import Merge, ResolvedBatch, ResolvedEvent
from headrace.domain.times import now_us
from headrace.storage.streams import names
from headrace.storage.streams.client import Entry, GroupReader, Redis
from headrace.telemetry import logs, metrics
from headrace_sync.batching import chunks
from headrace_sync.deliveries.handover import Handover
from headrace_sync.deliveries.reassigned import Reassigned, profiles_of
from headrace_sync.deliveries.work import Work, event_sync_document, membership_event
from headrace_sync.lists.store import ListStore
from headrace_sync.lists.touched import Touched
from headrace_sync.people import consents
from headrace_sync.planning.planner import Planner
from headrace_sync.registry import Registry, Snapshot

log = logs.get_logger(__name__)
B = TypeVar("B", ResolvedBatch, MembershipChangeBatch)

_consumed = metrics.counter("headrace_sync_consumed", "Events and membership changes taken from the streams.")

_ENTRIES_PER_STREAM = 16
_BLOCK_MS = 1_000
_CLAIM_EVERY_S = 2.0
_CLAIM_IDLE_MS = 5_000
_EVENTS_AT_ONCE = 2_000


class ResolvedConsumer:
    """Reads `resolved`: plans forwarding, and marks list members whose profile changed."""

    def __init__(
        self,
        redis: Redis,
        *,
        partitions: int,
        owner: str,
        registry: Registry,
        planner: Planner,
        lists: ListStore,
        reassigned: Reassigned,
        wake_list: Callable[[str], None],
    ) -> None:
        """Read all partitions as a consumer of the group of this service."""
        streams = [names.resolved(p) for p in range(partitions)]
        self._reader = GroupReader(redis, streams, group=names.SYNC_GROUP, consumer=owner, claim_idle_ms=_CLAIM_IDLE_MS)
        self._registry = registry
        self._planner = planner
        self._lists = lists
        self._reassigned = reassigned
        self._wake_list = wake_list
        self._touched = Touched()
        self._claimed_at = 0.0

    async def run(self) -> None:
        """Consume until cancelled."""
        while True:
            entries = await self._reader.read(count=_ENTRIES_PER_STREAM, block_ms=_BLOCK_MS)
            if time.monotonic() - self._claimed_at > _CLAIM_EVERY_S:
                self._claimed_at = time.monotonic()
                claimed = await self._reader.claim(count=_ENTRIES_PER_STREAM)
                if claimed:
                    self._claimed_at = 0.0  # there may be more
                entries += claimed
            if entries:
                await self._handle(entries)

    async def _handle(self, entries: Sequence[Entry]) -> None:
        batches = _batches(ResolvedBatch, entries)
        # Read after the events: a sync that was made before an event was accepted is in it.
        snapshot = await self._registry.refresh()
        events = [event for batch in batches for event in batch.events]
        for part in chunks(events, _EVENTS_AT_ONCE):
            await self._planner.plan(snapshot, part)
        for batch in batches:
            await self.mark_lists(snapshot, batch.workspace_id, batch.events, batch.merges)
            for erased in (False, True):
                profile_ids = profiles_of(r for r in batch.reassignments if r.erased == erased)
                if profile_ids:
                    await self._reassigned.take(snapshot, batch.workspace_id, profile_ids, erased=erased)
        await self._reader.acknowledge(entries, delete=False)  # audience reads the same streams
        _consumed.add(len(events), {"stream": "resolved"})

    async def mark_lists(
        self, snapshot: Snapshot, workspace_id: str, events: Sequence[ResolvedEvent], merges: Sequence[Merge]
    ) -> None:
        """Ask list syncs to look again at members whose profile may have changed."""
        syncs = snapshot.lists.get(workspace_id)
        if not syncs:
            return
        found = self._touched.find(events, merges)
        profiles = found.profiles
        required = {sync.key: snapshot.required_consents(sync) for sync in syncs}
        speaking = any(required.values()) or any(sync.maps_consents for sync in syncs)
        said = consents.statements(events) if speaking else []
        for sync in syncs:
            touched = profiles | {profile_id for profile_id, _ in said} if sync.maps_consents else profiles
            marked = await self._lists.mark_dirty(sync.key, touched, now=now_us()) if touched else 0
            if said and required[sync.key]:
                spoken = consents.spoken(said, required[sync.key])
                marked += await self._lists.mark_spoken(sync.key, spoken, now=now_us())
            if marked:
                self._wake_list(sync.key)
        self._touched.remember(found)


class ChangesConsumer:
    """Reads `changes`: what should be on lists, and what event syncs tell."""

    def __init__(self, redis: Redis, *, owner: str, registry: Registry, taker: ChangeTaker) -> None:
        """Read as a consumer of the group of this service."""
        self._reader = GroupReader(
            redis, [names.CHANGES], group=names.SYNC_GROUP, consumer=owner, claim_idle_ms=_CLAIM_IDLE_MS
        )
        self._registry = registry
        self._taker = taker
        self._claimed_at = 0.0

    async def run(self) -> None:
        """Consume until cancelled."""
        while True:
            entries = await self._reader.read(count=_ENTRIES_PER_STREAM, block_ms=_BLOCK_MS)
            if time.monotonic() - self._claimed_at > _CLAIM_EVERY_S:
                self._claimed_at = time.monotonic()
                claimed = await self._reader.claim(count=_ENTRIES_PER_STREAM)
                if claimed:
                    self._claimed_at = 0.0  # there may be more
                entries += claimed
            if not entries:
                continue
            snapshot = await self._registry.refresh()
            for batch in _batches(MembershipChangeBatch, entries):
                await self._taker.take(snapshot, batch.workspace_id, batch.changes)
                _consumed.add(len(batch.changes), {"stream": "changes"})
            await self._reader.acknowledge(entries, delete=True)


def _batches(kind: type[B], entries: Sequence[Entry]) -> list[B]:
    """What the entries hold. One that cannot be read holds up nobody: what it held is found missing in the accounts."""
    batches: list[B] = []
    for entry in entries:
        try:
            batches.append(kind.FromString(entry.payload))
        except DecodeError:
            log.exception("an entry of a stream cannot be read and is passed over", stream=entry.stream, entry=entry.id)
    return batches


class ChangeTaker:
    """Makes membership changes durable at list and event syncs; taking one in again changes nothing."""

    def __init__(self, lists: ListStore, handover: Handover, wake_list: Callable[[str], None]) -> None:
        """Store them here."""
        self._lists = lists
        self._handover = handover
        self._wake_list = wake_list

    async def take(self, snapshot: Snapshot, workspace_id: str, changes: Sequence[MembershipChange]) -> None:
        """Take in changes at every sync of their audience, in the order given."""
        listed: list[tuple[str, MembershipChange]] = []
        works: list[Work] = []
        for change in changes:
            if snapshot.is_erased(workspace_id, change.profile_id):
                continue
            for sync in snapshot.by_audience.get((workspace_id, change.audience_id), ()):
                if sync.is_list:
                    listed.append((sync.key, change))
                elif change.changed_at_us >= sync.begins_us:  # who was a member before is told by the first comparison
                    document = event_sync_document(sync, workspace_id, change, now_us())
                    works.append(
                        Work(document, membership_event(sync, workspace_id, document["m"], change, document["c"]))
                    )
        await self._lists.change_members(workspace_id, listed, now=now_us())
        await self._handover.store(works)
        for key in {key for key, _ in listed}:
            self._wake_list(key)
