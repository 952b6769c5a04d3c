"""Columns of list states: all matching events of each profile within a span, with the values that are looked at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby, pairwise, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from headrace.domain.amounts import amount_of
from headrace.domain.computed_traits.scalars import order_of, scalar_of
from headrace.domain.computed_traits.values import is_number
from headrace.domain.predicates import comparable, compile_predicates, moment_of, value_at
from headrace_audience.engine.columns import hash_of
from headrace_audience.engine.conditions import (
    AMOUNT,
    FIRST,
    GREATEST,
    IDENTITY,
    LAST,
    LEAST,
    MOMENT,
    NUMBER,
    SCALAR,
    Kept,
    ListState,
)
from headrace_audience.engine.people import NEVER, Bools, Ordinals, Times
from headrace_audience.language.spans import Span

Event = tuple[Any, ...]
"""(time, message id, value, ...), with a value for each that the state keeps; they order by their first two."""

NO_EVENTS: Sequence[Event] = ()
_KEY = itemgetter(0, 1)


def until(events: Sequence[Event], time_us: int) -> int:
    """How many of some events, in order, have a time up to another."""
    if not events or events[-1][0] <= time_us:  # what is asked for most
        return len(events)
    if events[0][0] > time_us:
        return 0
    return bisect_left(events, (time_us + 1,))


class ListColumn:
    """Events of each profile, in order; also those of the future that a history brought."""

    def __init__(self, span: Span | None) -> None:
        """Keep all events within a span, None meaning all, and the newest before it."""
        self._span = span
        self._events: dict[int, list[Event]] = {}
        self._cut: set[int] = set()

    def insert(self, ordinal: int, event: Event, clock_us: int) -> bool:
        """Add an event; returns whether that changed anything."""
        events = self._events.get(ordinal)
        if events is None:
            self._events[ordinal] = [event]
            return True
        place = bisect_left(events, event[:2])
        if place < len(events) and events[place][:2] == event[:2]:
            return False
        events.insert(place, event)
        return place >= self._cut_off(ordinal, events, clock_us)

    def extend(self, ordinals: Ordinals, times: Times, events: Sequence[Event], clock_us: int) -> Ordinals:
        """Add many events, in any order, with their times beside them; returns whose lists that changed."""
        order = np.lexsort((times, ordinals))
        ordinals, times = ordinals[order], times[order]
        ordered = [events[place] for place in order.tolist()]
        same = ordinals[1:] == ordinals[:-1]
        # Only message ids tell the order of events of the same time, and whether they are the same.
        tied = set(ordinals[1:][same & (times[1:] == times[:-1])].tolist())
        bounds = np.flatnonzero(np.concatenate([[True], ~same, [True]])).tolist() if ordered else [0]
        since = NEVER if self._span is None else self._span.start(clock_us)
        changed: list[int] = []
        for ordinal, (start, end) in zip(ordinals[bounds[:-1]].tolist(), pairwise(bounds), strict=True):
            coming = ordered[start:end]
            if ordinal in self._events:
                changes = [self.insert(ordinal, event, clock_us) for event in coming]
                if any(changes):
                    changed.append(ordinal)
                continue
            if ordinal in tied:
                coming.sort(key=_KEY)
                coming = [next(equal) for _, equal in groupby(coming, key=_KEY)]
            self._events[ordinal] = coming
            if len(coming) > 1 and coming[1][0] <= since:
                self._cut_off(ordinal, coming, clock_us)
            changed.append(ordinal)
        return np.array(changed, np.int64)

    def _cut_off(self, ordinal: int, events: list[Event], clock_us: int) -> int:
        """Forget what lies before the span, but for the newest; returns how many that were."""
        gone = 0 if self._span is None else until(events, self._span.start(clock_us)) - 1
        if gone <= 0:
            return 0
        del events[:gone]
        self._cut.add(ordinal)
        return gone

    def of(self, ordinal: int) -> Sequence[Event]:
        """The events of a profile, in order."""
        return self._events.get(ordinal, NO_EVENTS)

    def of_each(self, ordinals: Iterable[int]) -> Iterator[Sequence[Event]]:
        """The events of each of some profiles."""
        return map(self._events.get, ordinals, repeat(NO_EVENTS))

    def are_cut(self, ordinals: Ordinals) -> Bools:
        """Of which profiles older events are not here any more."""
        cut = self._cut
        if not cut:
            return np.zeros(len(ordinals), np.bool_)
        return np.fromiter((ordinal in cut for ordinal in ordinals.tolist()), np.bool_, len(ordinals))

    def is_complete(self, ordinal: int, moment: int) -> bool:
        """Whether everything is kept that counts at a moment of the past."""
        if ordinal not in self._cut:
            return True
        assert self._span is not None  # else nothing is ever cut
        return bool(self._events[ordinal][0][0] <= self._span.start(moment))

    def clear(self, ordinals: Ordinals) -> None:
        """Forget profiles."""
        for ordinal in ordinals.tolist():
            self._events.pop(ordinal, None)
            self._cut.discard(ordinal)

    def entries(self, ordinals: Ordinals) -> tuple[list[int], list[Event], list[int]]:
        """All events of these profiles: position in `ordinals`, event; and the positions of those that were cut."""
        found = [(i, event) for i, o in enumerate(ordinals.tolist()) for event in self._events.get(o, NO_EVENTS)]
        cut = [i for i, o in enumerate(ordinals.tolist()) if o in self._cut]
        return [i for i, _ in found], [event for _, event in found], cut

    def mark_cut(self, ordinals: Iterable[int]) -> None:
        """Say that older events of profiles are not here."""
        self._cut.update(ordinal for ordinal in ordinals if ordinal in self._events)


class ChosenColumn(ListColumn):
    """Of the events of each profile up to the clock only the one that a function chooses; and those of the future.

    It is the first under a total order, so whatever the order in which events come, and how often, it ends as the same.
    """

    def __init__(self, function: str, rank: Callable[[Event], Any]) -> None:
        """Keep what is least by `rank`, with the function LAST what is greatest."""
        super().__init__(None)
        self._function = function
        self._rank = rank

    def insert(self, ordinal: int, event: Event, clock_us: int) -> bool:
        """See ListColumn."""
        if not super().insert(ordinal, event, clock_us):
            return False
        events = self._events[ordinal]
        past = until(events, clock_us)
        if past < 2:
            return True
        best = (max if self._function == LAST else min)(events[:past], key=self._rank)
        events[:past] = [best]
        if self._function != FIRST:  # before the first there was nothing
            self._cut.add(ordinal)
        return best is event or event[0] > clock_us

    def extend(self, ordinals: Ordinals, times: Times, events: Sequence[Event], clock_us: int) -> Ordinals:
        """See ListColumn."""
        coming = zip(ordinals.tolist(), events, strict=True)
        return np.array([ordinal for ordinal, event in coming if self.insert(ordinal, event, clock_us)], np.int64)

    def is_complete(self, ordinal: int, moment: int) -> bool:
        """Whether everything is kept that counts at a moment of the past: later ones have changed nothing since."""
        return ordinal not in self._cut or bool(self._events[ordinal][0][0] <= moment)


def _by_time(event: Event) -> Any:
    return event[0], order_of(event[2]), event[1]


def _by_value(event: Event) -> Any:
    # Of equal values that of the first event: it is known from then on.
    return Decimal(event[2]), event[0], event[1]


def _by_value_falling(event: Event) -> Any:
    return Decimal(event[2]).copy_negate(), event[0], event[1]


_RANKS = {FIRST: _by_time, LAST: _by_time, LEAST: _by_value, GREATEST: _by_value_falling}


class ListRoute:
    """One list state, its column, and the events that are on their way into it."""

    def __init__(self, key: str, state: ListState) -> None:
        self.key = key
        self.state = state
        self.column = ChosenColumn(state.chosen, _RANKS[state.chosen]) if state.chosen else ListColumn(state.span)
        self._readers = [_reader_of(kept) for kept in state.values]
        self._coming: list[tuple[int, Event]] = []

    def event(self, time_us: int, message_id: str, properties: Mapping[str, Any]) -> Event:
        """What is kept of an event."""
        return (time_us, message_id, *self.values(properties)) if self._readers else (time_us, message_id)

    def values(self, properties: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is kept of an event beside time and id."""
        return tuple([read(properties) for read in self._readers])

    @property
    def reads_properties(self) -> bool:
        """Whether anything beside time and id is kept."""
        return bool(self._readers)

    def counts(self, event: Event) -> bool:
        """Whether an event can ever count."""
        return self.in_range(event[0]) and (not self.state.chosen or event[2] is not None)

    def in_range(self, time_us: int) -> bool:
        """Whether an event at this time can ever count."""
        state = self.state
        return (state.from_us is None or time_us >= state.from_us) and (state.to_us is None or time_us <= state.to_us)

    def insert(self, ordinal: int, event: Event, clock_us: int) -> bool:
        """Put a matching event into the column; returns whether that changed anything."""
        return self.counts(event) and self.column.insert(ordinal, event, clock_us)

    def fill(self, ordinals: Ordinals, times: Times, events: Sequence[Event], clock_us: int) -> Ordinals:
        """Put a history into the column, but for what is of no ordinal (-1); returns the ordinals that changed."""
        counts, some = self.counts, np.flatnonzero(ordinals >= 0).tolist()
        counting = [place for place in some if counts(events[place])]
        return self.column.extend(ordinals[counting], times[counting], [events[p] for p in counting], clock_us)

    def take(self, ordinal: int, event: Event) -> None:
        """Let a matching event come in at the next flush()."""
        if self.counts(event):
            self._coming.append((ordinal, event))

    def flush(self, clock_us: int) -> Ordinals:
        """Put the events into the column; returns the ordinals for which that changed anything."""
        coming, self._coming = self._coming, []
        insert = self.column.insert
        return np.array([ordinal for ordinal, event in coming if insert(ordinal, event, clock_us)], np.int64)


def _reader_of(kept: Kept) -> Callable[[Mapping[str, Any]], int | bool | str | None]:
    """A function that reads one value of an event's properties."""
    if kept.where:
        return compile_predicates(kept.where)
    path, take = kept.path, _TAKES[kept.kind]
    return lambda properties: take(value_at(properties, path))


def _number(value: Any) -> str | None:
    text = scalar_of(value)
    return text if text is not None and is_number(text) else None


def _identity(value: Any) -> int | None:
    same = comparable(value, ignore_case=False)
    return None if same is None else hash_of(f"{same[0]}{same[1]!r}")


_TAKES: Mapping[str, Callable[[Any], int | str | None]] = {
    AMOUNT: amount_of,
    MOMENT: moment_of,
    SCALAR: scalar_of,
    NUMBER: _number,
    IDENTITY: _identity,
}
"""What is kept of a value, by kind."""
