"""Columns of event states: the newest matching events of each profile.

Rows are handed out to the profiles that have any event at all; row 0 is the empty row of everybody else, so that
gathering needs no mask. Equal events (time and message id) count once whatever their order, because the kept ones are
the greatest of a set under a total order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xxhash import xxh64_intdigest

from headrace_audience.engine.people import FOREVER, NEVER, Ordinals, Times, different

NARROW = 8
"""Up to so many kept events lie in arrays of that width; more are kept in lists."""

_EMPTY: Ordinals = np.zeros(0, np.int64)
_HALF = 1 << 63


def hash_of(message_id: str) -> int:
    """A number of 64 bits that stands for a message id, the same in every process."""
    return xxh64_intdigest(message_id.encode()) - _HALF


def hashes_of(message_ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """What hash_of() gives for many message ids, in UTF-8."""
    digests = np.fromiter(map(xxh64_intdigest, message_ids), np.uint64, len(message_ids))
    return (digests - np.uint64(_HALF)).view(np.int64)


class Rows:
    """Rows of compact arrays by ordinal."""

    def __init__(self, capacity: int) -> None:
        self.of = np.zeros(capacity, np.int32)
        self.capacity = 64
        self.used = 1
        self._free: list[int] = []

    def ensure(self, capacity: int) -> None:
        """Have room for ordinals below a capacity."""
        if capacity > len(self.of):
            self.of = np.concatenate([self.of, np.zeros(capacity - len(self.of), np.int32)])

    def give(self, ordinals: Ordinals) -> None:
        """Give a row to each of these ordinals (different ones, without a row)."""
        count = len(ordinals)
        reused = min(count, len(self._free))
        rows = np.empty(count, np.int32)
        if reused:
            rows[:reused] = self._free[-reused:]
            del self._free[-reused:]
        fresh = count - reused
        rows[reused:] = np.arange(self.used, self.used + fresh)
        self.used += fresh
        self.of[ordinals] = rows

    def take_back(self, ordinals: Ordinals) -> npt.NDArray[np.int32]:
        """Take the rows of ordinals back; returns them, to be emptied."""
        rows = self.of[ordinals]
        rows = rows[rows > 0]
        self.of[ordinals] = 0
        self._free.extend(rows.tolist())
        return rows

    def room(self) -> int:
        """Capacity that the arrays must have now."""
        while self.capacity < self.used:
            self.capacity += max(self.capacity // 2, 64)
        return self.capacity


def grown(array: Times, length: int, fill: int) -> Times:
    """The array, longer, with new entries filled."""
    more = np.full((length - len(array), *array.shape[1:]), fill, array.dtype)
    return np.concatenate([array, more])


class NarrowColumn:
    """The newest `keep` events of each profile, in arrays of fixed width, newest first."""

    def __init__(self, keep: int, capacity: int) -> None:
        self.keep = keep
        self.rows = Rows(capacity)
        self._times: Times = np.full((64, keep), NEVER, np.int64)
        self._ids: Times = np.zeros((64 if keep > 1 else 1, keep), np.int64)

    def ensure(self, capacity: int) -> None:
        """Have room for ordinals below a capacity."""
        self.rows.ensure(capacity)

    def insert(self, ordinals: Ordinals, times: Times, ids: Times) -> Ordinals:
        """Add events; returns the ordinals for which that changed anything (some perhaps more than once)."""
        if self.keep == 1:
            current = self._times[self.rows.of[ordinals], 0]
            newer = times > current
            if not newer.any():
                return _EMPTY
            ordinals, times = ordinals[newer], times[newer]
            if len(times) > 1:
                order = np.argsort(times, kind="stable")
                ordinals, times = ordinals[order], times[order]
            rows = self._rows_for(ordinals)  # before `_times` is looked at: it may be another array afterwards
            self._times[rows, 0] = times  # of equal rows the last, the newest, stays
            return ordinals
        order = np.lexsort((times, ordinals))[::-1]
        ordinals, times, ids = ordinals[order], times[order], ids[order]
        same = np.concatenate([[False], ordinals[1:] == ordinals[:-1]])
        if not same.any():
            return self._insert_once(ordinals, times, ids)
        if (same[1:] & (times[1:] == times[:-1])).any():  # only then ids matter
            order = np.lexsort((ids, times, ordinals))[::-1]
            ordinals, times, ids = ordinals[order], times[order], ids[order]
            equal = (ordinals[1:] == ordinals[:-1]) & (times[1:] == times[:-1]) & (ids[1:] == ids[:-1])
            once = np.concatenate([[True], ~equal])
            ordinals, times, ids = ordinals[once], times[once], ids[once]
            same = np.concatenate([[False], ordinals[1:] == ordinals[:-1]])
        # The rank of each event among those of its profile: one round per rank, and no more than are kept.
        starts = np.flatnonzero(~same)
        rank = np.arange(len(ordinals)) - np.repeat(starts, np.diff(np.append(starts, len(ordinals))))
        if not self.rows.of[ordinals[starts]].any():  # as in a new audience: the rank is the place
            kept = rank < self.keep
            rows = self._rows_for(ordinals[kept])
            self._times[rows, rank[kept]], self._ids[rows, rank[kept]] = times[kept], ids[kept]
            return ordinals[starts]
        changed = [
            self._insert_once(ordinals[rank == r], times[rank == r], ids[rank == r])
            for r in range(min(self.keep, int(rank.max()) + 1))
        ]
        return np.concatenate(changed)

    def _insert_once(self, ordinals: Ordinals, times: Times, ids: Times) -> Ordinals:
        oldest = self._times[self.rows.of[ordinals], self.keep - 1]
        able = times >= oldest
        ordinals, times, ids = ordinals[able], times[able], ids[able]
        if not len(ordinals):
            return _EMPTY
        rows = self._rows_for(ordinals)
        known_times, known_ids = self._times[rows], self._ids[rows]
        twice = ((known_times == times[:, None]) & (known_ids == ids[:, None])).any(axis=1)
        last = self.keep - 1
        greater = (times > known_times[:, last]) | ((times == known_times[:, last]) & (ids > known_ids[:, last]))
        enters = greater & ~twice
        if not enters.all():
            ordinals, times, ids, rows = ordinals[enters], times[enters], ids[enters], rows[enters]
            known_times, known_ids = known_times[enters], known_ids[enters]
            if not len(ordinals):
                return _EMPTY
        for place in range(self.keep):
            t, i = known_times[:, place].copy(), known_ids[:, place].copy()
            wins = (times > t) | ((times == t) & (ids > i))
            known_times[:, place] = np.where(wins, times, t)
            known_ids[:, place] = np.where(wins, ids, i)
            times, ids = np.where(wins, t, times), np.where(wins, i, ids)
        self._times[rows], self._ids[rows] = known_times, known_ids
        return ordinals

    def _rows_for(self, ordinals: Ordinals) -> npt.NDArray[np.int32]:
        of = self.rows.of
        rows = of[ordinals]
        without = rows == 0
        if without.any():
            self.rows.give(different(ordinals[without]))
            rows = of[ordinals]
            room = self.rows.room()
            if room > len(self._times):
                self._times = grown(self._times, room, NEVER)
                if self.keep > 1:
                    self._ids = grown(self._ids, room, 0)
        return rows

    def gather(self, ordinals: Ordinals) -> Times:
        """Times of the kept events, newest first, one line per ordinal; NEVER where there are fewer."""
        return self._times[self.rows.of[ordinals]]

    def kept(self, ordinal: int) -> list[int]:
        """Times of the kept events of one profile, oldest first."""
        return [t for t in reversed(self._times[self.rows.of[ordinal]].tolist()) if t != NEVER]

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        rows = self.rows.take_back(ordinals)
        self._times[rows] = NEVER
        if self.keep > 1:
            self._ids[rows] = 0

    def entries(self, ordinals: Ordinals) -> tuple[Ordinals, Times, Times]:
        """All kept events of these profiles: position in `ordinals`, time, id."""
        rows = self.rows.of[ordinals]
        have = np.flatnonzero(rows)
        times = self._times[rows[have]]
        ids = self._ids[rows[have]] if self.keep > 1 else np.zeros_like(times)
        real = times != NEVER
        return np.repeat(have, self.keep).reshape(times.shape)[real], times[real], ids[real]


class WideColumn:
    """The newest `keep` events of each profile, in sorted lists: for conditions that need many."""

    def __init__(self, keep: int, capacity: int) -> None:
        del capacity
        self.keep = keep
        self._events: dict[int, list[tuple[int, int]]] = {}

    def ensure(self, capacity: int) -> None:
        """Nothing to do: lists are made as they are needed."""

    def insert(self, ordinals: Ordinals, times: Times, ids: Times) -> Ordinals:
        """Add events; returns the ordinals for which that changed anything (some perhaps more than once)."""
        changed: list[int] = []
        for ordinal, time, id_ in zip(ordinals.tolist(), times.tolist(), ids.tolist(), strict=True):
            events = self._events.setdefault(ordinal, [])
            event = (time, id_)
            if len(events) == self.keep and event < events[0]:
                continue
            place = bisect_left(events, event)
            if place < len(events) and events[place] == event:
                continue
            insort(events, event)
            if len(events) > self.keep:
                del events[0]
            changed.append(ordinal)
        return np.array(changed, np.int64)

    def counts(self, ordinals: Ordinals, after: int) -> npt.NDArray[np.int64]:
        """Number of kept events after a moment, per ordinal."""
        counts = np.zeros(len(ordinals), np.int64)
        events = self._events
        if events:
            for i, ordinal in enumerate(ordinals.tolist()):
                kept = events.get(ordinal)
                if kept:
                    counts[i] = len(kept) - bisect_right(kept, (after, FOREVER * 4))
        return counts

    def nth_newest(self, ordinals: Ordinals, places: npt.NDArray[np.int64]) -> Times:
        """Time of the event at a place, 0 being the newest, per ordinal; places below 0 give NEVER."""
        times = np.full(len(ordinals), NEVER, np.int64)
        for i in np.flatnonzero(places >= 0).tolist():
            times[i] = self._events[int(ordinals[i])][-1 - int(places[i])][0]
        return times

    def kept(self, ordinal: int) -> list[int]:
        """Times of the kept events of one profile, oldest first."""
        return [time for time, _ in self._events.get(ordinal, ())]

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        for ordinal in ordinals.tolist():
            self._events.pop(ordinal, None)

    def entries(self, ordinals: Ordinals) -> tuple[Ordinals, Times, Times]:
        """All kept events of these profiles: position in `ordinals`, time, id."""
        found = [
            (i, time, id_) for i, ordinal in enumerate(ordinals.tolist()) for time, id_ in self._events.get(ordinal, ())
        ]
        flat = np.array(found, np.int64).reshape(-1, 3)
        return flat[:, 0].copy(), flat[:, 1].copy(), flat[:, 2].copy()


EventColumn = NarrowColumn | WideColumn


def new_column(keep: int, capacity: int) -> EventColumn:
    """The column that keeps so many events."""
    return NarrowColumn(keep, capacity) if keep <= NARROW else WideColumn(keep, capacity)
