"""Flips that are found and not written yet: in order per audience, few-at-a-time audiences first.

A new audience may bring a million flips at once. Those of the others must not wait behind them, and those of one
audience must not overtake each other.

A flip that was taken out and put back may have been written all the same: the answer was lost. It is never withdrawn.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from headrace_audience.engine.engine import Flip

OLDEST_SHARE = 4
"""One part in so many of what is taken at a time comes from the queue that has waited longest."""

_Numbered = tuple[int, Flip]
"""A flip and its place among all of them."""


class Pending:
    """The flips of one workspace."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        """Hold none; `partition_of` gives the partition of a profile."""
        self._partition_of = partition_of
        self._numbers = itertools.count()
        self._front = 0
        self._queues: dict[str, deque[_Numbered]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, flips: Iterable[Flip]) -> None:
        """Let flips wait, in order."""
        for flip in flips:
            self._queues.setdefault(flip.audience_id, deque()).append((next(self._numbers), flip))

    def take(self, limit: int, last: Collection[str] = (), of_last: int = 0) -> list[Flip]:
        """Take out up to `limit` flips, those of the shortest queues first; they are given in the order of add().

        So a burst in one audience delays no later flip of another. Of queues of the same length that goes first whose
        flips have waited longest. A part of the room is for the queue that has waited longest, however long it is: when
        more comes all the time than can be taken, it would never have its turn.

        Of the audiences in `last` up to `of_last` are taken, when there is room for more than all others.

        No profile is twice among those of an audience: when writing fails in the middle, or its answer is lost, all
        are written again, and an entry whose exit is written already would look like a new one.
        """
        taken: list[_Numbered] = []
        profiles: dict[str, set[str]] = {}

        def draw(audience_id: str, most: int) -> None:
            queue, own = self._queues[audience_id], profiles.setdefault(audience_id, set())
            while queue and len(taken) < most and queue[0][1].profile_id not in own:
                own.add(queue[0][1].profile_id)
                taken.append(queue.popleft())
            if not queue:
                del self._queues[audience_id]

        first = (audience_id for audience_id in self._queues if audience_id not in last)
        oldest = min(first, key=lambda audience_id: self._queues[audience_id][0][0], default=None)
        if oldest is not None:
            draw(oldest, limit // OLDEST_SHARE)
        room: int | None = None
        for audience_id in sorted(self._queues, key=lambda a: (a in last, len(self._queues[a]), self._queues[a][0][0])):
            if audience_id in last and room is None:
                limit = room = min(limit, len(taken) + of_last)
            draw(audience_id, limit)
        return [flip for _, flip in sorted(taken, key=lambda numbered: numbered[0])]

    def put_back(self, flips: Sequence[Flip]) -> None:
        """Return what was taken and not written."""
        for flip in reversed(flips):
            self._front -= 1
            self._queues.setdefault(flip.audience_id, deque()).appendleft((self._front, flip))

    @property
    def audience_ids(self) -> Collection[str]:
        """Audiences of which flips wait."""
        return self._queues.keys()

    def waits_for(self, audience_id: str) -> bool:
        """Whether any flip of an audience waits."""
        return audience_id in self._queues

    def holds_partition(self, partition: int) -> bool:
        """Whether any flip of a partition waits."""
        return any(self._partition_of(f.profile_id) == partition for q in self._queues.values() for _, f in q)

    def names(self, profile_ids: Collection[str]) -> bool:
        """Whether any flip of these profiles waits."""
        return any(f.profile_id in profile_ids for q in self._queues.values() for _, f in q)

    def of_audiences(self, audience_ids: Iterable[str]) -> Iterator[Flip]:
        """What waits of some audiences, in order."""
        for audience_id in audience_ids:
            yield from (flip for _, flip in self._queues.get(audience_id, ()))

    def withdraw(self, audience_id: str) -> list[Flip]:
        """Take out the flips of an audience that were never taken out before, in order: they are not to be written."""
        queue = self._queues.pop(audience_id, deque())
        if tried := deque(numbered for numbered in queue if numbered[0] < 0):
            self._queues[audience_id] = tried
        return [flip for number, flip in queue if number >= 0]

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
            kept = deque(numbered for numbered in queue if wanted(numbered[1]))
            if kept:
                self._queues[audience_id] = kept
            else:
                del self._queues[audience_id]
