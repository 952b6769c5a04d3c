"""Flips that are found and not written yet: in order per audience, few-at-a-time audiences first.

A new audience may bring a million flips at once. Those of the others must not wait behind them, and those of one
audience must not overtake each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from headrace_audience.engine.engine import Flip


class Pending:
    """The flips of one workspace."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        """Hold none; `partition_of` gives the partition of a profile."""
        self._partition_of = partition_of
        self._queues: dict[str, deque[Flip]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, flips: Iterable[Flip]) -> None:
        """Let flips wait, in order."""
        for flip in flips:
            self._queues.setdefault(flip.audience_id, deque()).append(flip)

    def take(self, limit: int) -> list[Flip]:
        """Take out up to `limit` flips, those of the shortest queues first."""
        taken: list[Flip] = []
        for audience_id, queue in sorted(self._queues.items(), key=lambda item: len(item[1])):
            while queue and len(taken) < limit:
                taken.append(queue.popleft())
            if not queue:
                del self._queues[audience_id]
        return taken

    def put_back(self, flips: Sequence[Flip]) -> None:
        """Return what was taken and not written."""
        for flip in reversed(flips):
            self._queues.setdefault(flip.audience_id, deque()).appendleft(flip)

    def waits_for(self, audience_id: str) -> bool:
        """Whether any flip of an audience waits."""
        return audience_id in self._queues

    def holds_partition(self, partition: int) -> bool:
        """Whether any flip of a partition waits."""
        return any(self._partition_of(f.profile_id) == partition for q in self._queues.values() for f in q)

    def names(self, profile_ids: Collection[str]) -> bool:
        """Whether any flip of these profiles waits."""
        return any(f.profile_id in profile_ids for q in self._queues.values() for f in q)

    def of_audiences(self, audience_ids: Iterable[str]) -> Iterator[Flip]:
        """What waits of some audiences, in order."""
        for audience_id in audience_ids:
            yield from self._queues.get(audience_id, ())

    def drop_audience(self, audience_id: str) -> None:
        """Forget the flips of an audience, which will be compared with the store anew."""
        self._queues.pop(audience_id, None)

    def drop_partitions(self, partitions: frozenset[int]) -> None:
        """Forget the flips of partitions that others compute now."""
        self._keep(lambda flip: self._partition_of(flip.profile_id) not in partitions)

    def drop_profiles(self, profile_ids: Collection[str]) -> None:
        """Forget the flips of profiles that are erased."""
        self._keep(lambda flip: flip.profile_id not in profile_ids)

    def _keep(self, wanted: Callable[[Flip], bool]) -> None:
        for audience_id, queue in list(self._queues.items()):
            kept = deque(filter(wanted, queue))
            if kept:
                self._queues[audience_id] = kept
            else:
                del self._queues[audience_id]
