"""What has been folded and does not count yet: events of the future, and events younger than a window's near end."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_audience.engine.people import FOREVER, Bools, Ordinals, Times

_TAIL = 4096


class Waiting:
    """Events of one state that wait for their time to count, in arrays sorted by event time."""

    def __init__(self) -> None:
        self._ordinals: Ordinals = np.zeros(0, np.int64)
        self._times: Times = np.zeros(0, np.int64)
        self._ids: Times = np.zeros(0, np.int64)
        self._tail: list[tuple[Ordinals, Times, Times]] = []
        self._tail_length = 0
        self._first = FOREVER

    def add(self, ordinals: Ordinals, times: Times, ids: Times) -> None:
        """Let events wait; the same one twice is harmless."""
        if not len(times):
            return
        self._tail.append((ordinals, times, ids))
        self._tail_length += len(times)
        self._first = min(self._first, int(times.min()))
        if self._tail_length > max(_TAIL, len(self._times) // 4):
            self._settle()

    def first(self) -> int:
        """Time of the oldest waiting event; FOREVER when there is none."""
        return self._first

    def take(self, until: int) -> tuple[Ordinals, Times, Times] | None:
        """Take out the events up to a time."""
        if self._first > until:
            return None
        self._settle()
        end = int(np.searchsorted(self._times, until, side="right"))
        due = self._ordinals[:end], self._times[:end], self._ids[:end]
        self._keep(slice(end, None))
        return due

    def times_of(self, ordinal: int) -> list[int]:
        """Times of one profile's waiting events, oldest first."""
        self._settle()
        return list(self._times[self._ordinals == ordinal].tolist())

    def drop(self, gone: Bools) -> None:
        """Forget the events of the ordinals at which `gone` is True."""
        self._settle()
        self._keep(~gone[self._ordinals])

    def entries(self) -> tuple[Ordinals, Times, Times]:
        """All waiting events: ordinal, time, id."""
        self._settle()
        return self._ordinals, self._times, self._ids

    def _keep(self, what: slice | Bools) -> None:
        self._ordinals, self._times, self._ids = self._ordinals[what], self._times[what], self._ids[what]
        self._first = int(self._times[0]) if len(self._times) else FOREVER

    def _settle(self) -> None:
        if not self._tail:
            return
        ordinals = np.concatenate([self._ordinals, *(o for o, _, _ in self._tail)])
        times = np.concatenate([self._times, *(t for _, t, _ in self._tail)])
        ids = np.concatenate([self._ids, *(i for _, _, i in self._tail)])
        self._tail, self._tail_length = [], 0
        order = np.lexsort((ids, ordinals, times))
        ordinals, times, ids = ordinals[order], times[order], ids[order]
        equal = (times[1:] == times[:-1]) & (ordinals[1:] == ordinals[:-1]) & (ids[1:] == ids[:-1])
        different = np.concatenate([[True], ~equal])
        self._ordinals, self._times, self._ids = ordinals, times, ids
        self._keep(different)


@dataclass(frozen=True, slots=True)
class TraitWrite:
    """A value of a trait or the like that a history brought and whose time has not come."""

    kind: str
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class FutureItem:
    """One thing that waits for the clock."""

    time_us: int
    message_id: str
    profile_id: str
    content: ResolvedEvent | TraitWrite
    cause: str


def _name_of(item: FutureItem) -> tuple[str, ...]:
    content = item.content
    written = (content.kind, content.name) if isinstance(content, TraitWrite) else ()
    return (item.message_id, *written)


class Future:
    """Whole events, and single traits, that lie after the clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._items: dict[int, FutureItem] = {}
        self._of_profile: dict[str, dict[tuple[str, ...], int]] = {}
        self._count = 0

    def add(self, item: FutureItem) -> None:
        """Let something wait; the same thing twice waits once."""
        name = _name_of(item)
        known = self._of_profile.setdefault(item.profile_id, {})
        if name in known:
            return
        self._count += 1
        known[name] = self._count
        self._items[self._count] = item
        heapq.heappush(self._heap, (item.time_us, self._count))

    def first(self) -> int:
        """Time of the first; FOREVER when there is none."""
        while self._heap and self._heap[0][1] not in self._items:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else FOREVER

    def take(self, until: int) -> list[FutureItem]:
        """Take out what lies up to a time, in order of time."""
        due: list[FutureItem] = []
        while self._heap and self._heap[0][0] <= until:
            _, number = heapq.heappop(self._heap)
            item = self._items.pop(number, None)
            if item is not None:
                due.append(item)
                known = self._of_profile[item.profile_id]
                del known[_name_of(item)]
                if not known:
                    del self._of_profile[item.profile_id]
        return due

    def of_profile(self, profile_id: str) -> Iterator[FutureItem]:
        """What waits of one profile."""
        for number in self._of_profile.get(profile_id, {}).values():
            yield self._items[number]

    def drop(self, profile_id: str) -> None:
        """Forget what waits of a profile."""
        for number in self._of_profile.pop(profile_id, {}).values():
            del self._items[number]

    def profiles(self) -> list[str]:
        """Profiles of which anything waits."""
        return list(self._of_profile)
