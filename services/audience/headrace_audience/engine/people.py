"""The profiles of an engine: an ordinal each, by which columns are indexed."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from headrace.domain.ids import partition_of

Ordinals = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]

FOREVER = 1 << 62
"""Later than every moment."""
NEVER = -FOREVER
"""Earlier than every event."""


def different(ordinals: Ordinals) -> Ordinals:
    """Each of some ordinals once, ascending: sorting them takes a fraction of what the table of np.unique() does."""
    ordered = np.sort(ordinals)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


class People:
    """Ids and ordinals of profiles, their partitions, and what the engine remembers of each alone.

    Attributes:
        index: Ordinal by profile id.
        ids: Profile id by ordinal; empty for an ordinal that is free.
        merged: Survivor by the id of each merged profile; empty for one whose events went to others.
        epochs: Epoch of the last word by the id of each profile that was ever reassigned, or merged in an epoch.
        partition: Partition by ordinal; -1 for an ordinal that is free.
        alive: By ordinal: False for a free ordinal and for a merged profile.
        reporting: By ordinal: False while the partition is held.
        next_moment: By ordinal: when time alone may change a condition, in microseconds.
    """

    def __init__(self, partitions_total: int, capacity: int) -> None:
        self._partitions_total = partitions_total
        self.index: dict[str, int] = {}
        self.ids: list[str] = []
        self.merged: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.held: set[int] = set()
        self.capacity = max(capacity, 16)
        self.partition = np.full(self.capacity, -1, np.int32)
        self.alive = np.zeros(self.capacity, np.bool_)
        self.reporting = np.zeros(self.capacity, np.bool_)
        self.next_moment = np.full(self.capacity, FOREVER, np.int64)
        self._free: list[int] = []

    def partition_of(self, profile_id: str) -> int:
        """The partition of a profile, known or not."""
        return partition_of(profile_id, self._partitions_total)

    def add(self, profile_id: str) -> int:
        """Give a new profile an ordinal; the caller has looked that it has none."""
        partition = self.partition_of(profile_id)
        if self._free:
            ordinal = self._free.pop()
            self.ids[ordinal] = profile_id
        else:
            ordinal = len(self.ids)
            if ordinal == self.capacity:
                self._grow()
            self.ids.append(profile_id)
        self.index[profile_id] = ordinal
        self.partition[ordinal] = partition
        self.alive[ordinal] = profile_id not in self.merged
        self.reporting[ordinal] = partition not in self.held
        self.next_moment[ordinal] = FOREVER
        return ordinal

    def ordinals_of(self, partition: int) -> Ordinals:
        """Ordinals of the known profiles of a partition, ascending."""
        return np.flatnonzero(self.partition[: len(self.ids)] == partition)

    def all_reporting(self) -> Ordinals:
        """Ordinals of all profiles of partitions that are not held."""
        return np.flatnonzero(self.reporting[: len(self.ids)])

    def free(self, ordinals: Ordinals) -> None:
        """Forget profiles; their ordinals will be used again."""
        for ordinal in cast("list[int]", ordinals.tolist()):
            del self.index[self.ids[ordinal]]
            self.ids[ordinal] = ""
            self._free.append(ordinal)
        self.partition[ordinals] = -1
        self.alive[ordinals] = False
        self.reporting[ordinals] = False
        self.next_moment[ordinals] = FOREVER

    def _grow(self) -> None:
        more = self.capacity
        self.capacity += more
        self.partition = np.concatenate([self.partition, np.full(more, -1, np.int32)])
        self.alive = np.concatenate([self.alive, np.zeros(more, np.bool_)])
        self.reporting = np.concatenate([self.reporting, np.zeros(more, np.bool_)])
        self.next_moment = np.concatenate([self.next_moment, np.full(more, FOREVER, np.int64)])
