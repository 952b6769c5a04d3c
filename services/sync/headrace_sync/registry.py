"""All destinations and syncs in memory, kept up to date by a counter in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace_sync.config import DestinationConfig, SyncConfig, erased_digest
from headrace_sync.store import ConfigStore

_RELOAD_EVERY_S = 30.0


@dataclass(frozen=True)
class Snapshot:
    """The configuration at one moment.

    Attributes:
        destinations: By key.
        syncs: By key.
        forwarding: Forwarding syncs by workspace.
        by_audience: List and event syncs by (workspace, audience), but for those that are being deleted.
        lists: List syncs by workspace, but for those.
        erased: Digests of the profiles of people who are being deleted or were lately, see `erased_digest`.
    """

    destinations: Mapping[str, DestinationConfig] = field(default_factory=dict)
    syncs: Mapping[str, SyncConfig] = field(default_factory=dict)
    forwarding: Mapping[str, list[SyncConfig]] = field(default_factory=dict)
    by_audience: Mapping[tuple[str, str], list[SyncConfig]] = field(default_factory=dict)
    lists: Mapping[str, list[SyncConfig]] = field(default_factory=dict)

    erased: frozenset[str] = frozenset()

    def is_erased(self, workspace_id: str, profile_id: str) -> bool:
        """True for a profile of a person who is being deleted or was lately: nothing is to be sent about them."""
        return bool(self.erased) and erased_digest(workspace_id, profile_id) in self.erased

    def required_consents(self, sync: SyncConfig) -> tuple[str, ...]:
        """Purposes that the destination of a sync requires."""
        destination = self.destinations.get(sync.destination_key)
        return destination.required_consents if destination is not None else ()


def snapshot_of(
    destinations: list[DestinationConfig], syncs: list[SyncConfig], erased: frozenset[str] = frozenset()
) -> Snapshot:
    """Arrange destinations and syncs for looking up."""
    forwarding: dict[str, list[SyncConfig]] = {}
    by_audience: dict[tuple[str, str], list[SyncConfig]] = {}
    lists: dict[str, list[SyncConfig]] = {}
    for sync in syncs:
        if sync.is_forwarding:
            forwarding.setdefault(sync.workspace_id, []).append(sync)
        elif not sync.deleting:
            by_audience.setdefault((sync.workspace_id, sync.audience_id), []).append(sync)
            if sync.is_list:
                lists.setdefault(sync.workspace_id, []).append(sync)
    by_key = {d.key: d for d in destinations}
    return Snapshot(by_key, {s.key: s for s in syncs}, forwarding, by_audience, lists, erased)


class Registry:
    """Holds the current snapshot and tells listeners when it changed."""

    def __init__(self, store: ConfigStore) -> None:
        self._store = store
        self._generation = -1
        self._loaded_at = 0.0
        self._checked_at = 0.0
        self._lock = asyncio.Lock()
        self._listeners: list[Callable[[Snapshot, Snapshot], None]] = []
        self.current = Snapshot()

    def is_erased(self, workspace_id: str, profile_id: str) -> bool:
        """True for a profile of a person who is being deleted or was lately, as far as it is known here."""
        return self.current.is_erased(workspace_id, profile_id)

    def destination(self, key: str) -> DestinationConfig | None:
        """A destination by its database id; None when there is none."""
        return self.current.destinations.get(key)

    def subscribe(self, listener: Callable[[Snapshot, Snapshot], None]) -> None:
        """Call listener(before, after) after each change."""
        self._listeners.append(listener)

    async def refresh(self, *, max_age_s: float = 0.0) -> Snapshot:
        """Bring the snapshot up to date unless it was checked within max_age_s seconds.

        Raises:
            pymongo.errors.PyMongoError: The store does not answer; the snapshot stays as it was.
        """
        if time.monotonic() - self._checked_at < max_age_s:
            return self.current
        async with self._lock:
            started = time.monotonic()
            if started - self._checked_at < max_age_s:
                return self.current
            generation = await self._store.generation()
            if generation != self._generation or started - self._loaded_at > _RELOAD_EVERY_S:
                after = snapshot_of(
                    await self._store.all_destinations(), await self._store.all_syncs(), await self._store.all_erased()
                )
                before, self.current = self.current, after
                self._generation, self._loaded_at = generation, started
                if (before.destinations, before.syncs) != (after.destinations, after.syncs):
                    for listener in self._listeners:
                        listener(before, after)
            self._checked_at = started
            return self.current
