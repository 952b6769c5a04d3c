"""Columns of traits and the like, and of what was first seen when.

A trait has one column: who wrote last (event time, message id) per profile, and per test what it makes of that value.
Of a first touch it is who wrote first.
The value itself is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.domain.definitions import MOVING_OPS
from headrace.domain.predicates import ValueTest, compile_test, moment_of, value_at
from headrace_audience.engine.columns import Rows, grown
from headrace_audience.engine.conditions import AttributeState
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Ordinals, Times

REMEMBERED_VALUES = 10_000
"""Of so many values of a trait it is remembered what the readings make of them."""


class TraitReading:
    """What one test makes of the newest value: 1 or 0, or the moment that it says for tests that need the clock.

    Attributes:
        moving: Whether `codes` holds moments (NEVER when the value is none).
        codes: By row of the column.
    """

    def __init__(self, state: AttributeState) -> None:
        self._inside = state.path[1:]
        self.moving = state.test.op in MOVING_OPS
        self._test: ValueTest | None = None if self.moving else compile_test(state.test)
        self.empty = self.code(None)
        self.codes: Times = np.full(64, self.empty, np.int64 if self.moving else np.int8)

    def code(self, value: Any) -> int:
        """What is stored for a value of the trait."""
        if self._inside:
            value = value_at(value, self._inside)
        if self._test is not None:
            return int(self._test(value))
        moment = moment_of(value)
        return NEVER if moment is None else moment


class TraitColumn:
    """Last writer of a trait per profile, or the first one, and the readings of its value."""

    def __init__(self, capacity: int, *, first: bool = False) -> None:
        """Let the last write win, or with `first` the first one."""
        self.first = first
        self.rows = Rows(capacity)
        self._times: Times = np.full(64, NEVER, np.int64)
        self._writers: list[str] = [""]
        self._codes: list[tuple[int, ...] | None] = [None]
        self._known: dict[tuple[type, Any], tuple[int, ...]] = {}
        self.readings: dict[str, TraitReading] = {}

    def ensure(self, capacity: int) -> None:
        """Have room for ordinals below a capacity."""
        self.rows.ensure(capacity)

    def add_reading(self, key: str, state: AttributeState) -> None:
        """Read the value for one more state; what is known already must be folded again for it."""
        reading = TraitReading(state)
        self.readings[key] = reading
        self._fit(reading)
        self._forget_codes()

    def remove_reading(self, key: str) -> None:
        """Read the value for a state no more."""
        del self.readings[key]
        self._forget_codes()

    def _forget_codes(self) -> None:
        self._known.clear()
        self._codes = [None] * len(self._codes)

    def write(self, ordinal: int, time_us: int, message_id: str, value: Any) -> bool:
        """Take a write in; returns whether any reading changed."""
        row = int(self.rows.of[ordinal])
        if row:
            known = int(self._times[row])
            if time_us == known:
                wins = (message_id <= self._writers[row]) if self.first else (message_id >= self._writers[row])
            else:
                wins = (time_us < known) is self.first
            if not wins:
                return False
        else:
            row = self._new_row(ordinal)
        self._times[row] = time_us
        self._writers[row] = message_id
        codes = self._codes_of(value)
        if codes is self._codes[row]:
            return False
        self._codes[row] = codes
        changed = False
        for reading, code in zip(self.readings.values(), codes, strict=True):
            if reading.codes[row] != code:
                reading.codes[row] = code
                changed = True
        return changed

    def write_first(self, ordinals: Ordinals, times: Times, message_ids: Sequence[str], values: Sequence[Any]) -> None:
        """Take in writes of different profiles that have none yet: quicker than one by one."""
        self.rows.give(ordinals)
        self._make_room()
        rows = self.rows.of[ordinals]
        self._times[rows] = times
        found = [self._codes_of(value) for value in values]
        for row, message_id, codes in zip(rows.tolist(), message_ids, found, strict=True):
            self._writers[row] = message_id
            self._codes[row] = codes
        for place, reading in enumerate(self.readings.values()):
            reading.codes[rows] = [codes[place] for codes in found]

    def knows(self, ordinals: Ordinals) -> Bools:
        """Of which profiles there is a write."""
        return self.rows.of[ordinals] > 0

    def _codes_of(self, value: Any) -> tuple[int, ...]:
        """What all readings make of a value; the same tuple for the same value, as long as it is remembered."""
        if not isinstance(value, str | int | float | None):
            return tuple(reading.code(value) for reading in self.readings.values())
        known = self._known.get((type(value), value))
        if known is None:
            if len(self._known) >= REMEMBERED_VALUES:
                self._known.clear()
            known = tuple(reading.code(value) for reading in self.readings.values())
            self._known[type(value), value] = known
        return known

    def _new_row(self, ordinal: int) -> int:
        self.rows.give(np.array([ordinal], np.int64))
        self._make_room()
        return int(self.rows.of[ordinal])

    def _make_room(self) -> None:
        room = self.rows.room()
        self._writers.extend([""] * (self.rows.used - len(self._writers)))
        self._codes.extend([None] * (self.rows.used - len(self._codes)))
        if room > len(self._times):
            self._times = grown(self._times, room, NEVER)
            for reading in self.readings.values():
                self._fit(reading)

    def _fit(self, reading: TraitReading) -> None:
        if len(self._times) > len(reading.codes):
            reading.codes = grown(reading.codes, len(self._times), reading.empty)

    def written(self, ordinal: int) -> tuple[int, str] | None:
        """Time and message id of the last writer of a profile's trait."""
        row = int(self.rows.of[ordinal])
        return (int(self._times[row]), self._writers[row]) if row else None

    def times_at(self, rows: npt.NDArray[Any]) -> Times:
        """Times of the last writers by row; NEVER in row 0."""
        times: Times = self._times[rows]
        return times

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        rows = self.rows.take_back(ordinals)
        self._times[rows] = NEVER
        for reading in self.readings.values():
            reading.codes[rows] = reading.empty
        for row in rows.tolist():
            self._writers[row] = ""
            self._codes[row] = None

    def entries(self, ordinals: Ordinals) -> tuple[Ordinals, Times, list[str], dict[str, Times]]:
        """Of these profiles: position in `ordinals`, time, message id, and the codes by state key."""
        rows = self.rows.of[ordinals]
        have = np.flatnonzero(rows)
        rows = rows[have]
        writers = [self._writers[row] for row in rows.tolist()]
        return have, self._times[rows], writers, {key: r.codes[rows] for key, r in self.readings.items()}

    def load(self, ordinals: Ordinals, times: Times, writers: Iterable[str], codes: dict[str, Times]) -> None:
        """Take entries() in (profile by profile, different ones); readings without codes stay as they are."""
        fresh = self.rows.of[ordinals] == 0
        self.rows.give(ordinals[fresh])
        self._make_room()
        rows = self.rows.of[ordinals]
        newer: list[int] = []
        entries = zip(rows.tolist(), fresh.tolist(), times.tolist(), writers, strict=True)
        for i, (row, is_fresh, time, writer) in enumerate(entries):
            known = (self._times[row], self._writers[row])
            if is_fresh or ((time, writer) <= known if self.first else (time, writer) >= known):
                self._times[row] = time
                self._writers[row] = writer
                self._codes[row] = None
                newer.append(i)
        for key, values in codes.items():
            if key in self.readings:
                self.readings[key].codes[rows[newer]] = values[newer]


class FirstColumn:
    """When something was first seen, such as an identifier of a namespace, per profile."""

    def __init__(self, capacity: int) -> None:
        self.rows = Rows(capacity)
        self._times: Times = np.full(64, FOREVER, np.int64)

    def ensure(self, capacity: int) -> None:
        """Have room for ordinals below a capacity."""
        self.rows.ensure(capacity)

    def insert(self, ordinals: Ordinals, times: Times) -> Ordinals:
        """Add sightings; returns the ordinals whose first sighting is another one now."""
        without = self.rows.of[ordinals] == 0
        if without.any():
            self.rows.give(np.unique(ordinals[without]))
            room = self.rows.room()
            if room > len(self._times):
                self._times = grown(self._times, room, FOREVER)
        rows = self.rows.of[ordinals]
        earlier = times < self._times[rows]
        np.minimum.at(self._times, rows[earlier], times[earlier])
        return ordinals[earlier]

    def gather(self, ordinals: Ordinals) -> Times:
        """When the first was seen, per ordinal; FOREVER when none was."""
        return self._times[self.rows.of[ordinals]]

    def first(self, ordinal: int) -> int:
        """When the first was seen; FOREVER when none was."""
        return int(self._times[self.rows.of[ordinal]])

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        self._times[self.rows.take_back(ordinals)] = FOREVER

    def entries(self, ordinals: Ordinals) -> tuple[Ordinals, Times]:
        """Of these profiles: position in `ordinals`, time."""
        rows = self.rows.of[ordinals]
        have = np.flatnonzero(rows)
        return have, self._times[rows[have]]
