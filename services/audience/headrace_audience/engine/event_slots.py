"""Slots of conditions that times of events answer, kept in arrays: counts, the latest event, the first one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace_audience.engine.columns import NarrowColumn, WideColumn, hash_of
from headrace_audience.engine.frames import Frame, View, always
from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Times
from headrace_audience.engine.states import EventRoute, FirstRoute, Group, IdentifierRoute
from headrace_audience.engine.waiting import TraitWrite
from headrace_audience.language.definition import EventCount, FirstTime, IdentifierExists, LastTime, Window
from headrace_audience.language.spans import Span


def track_of(view: View, group: Group) -> Iterator[tuple[int, str, ResolvedEvent]]:
    """Events of a group that wait for the clock: time, message id, event."""
    for item in view.waiting:
        resolved = item.content
        if not isinstance(resolved, TraitWrite) and group.matches(resolved.event):
            yield item.time_us, item.message_id, resolved


def passes(span: Span, times: Times) -> Times:
    """When times leave a span; FOREVER for NEVER and FOREVER."""
    real = (times != NEVER) & (times != FOREVER)
    found = np.full(times.shape, FOREVER, np.int64)
    found[real] = span.passes(times[real])
    return found


def last_passed(spans: Iterable[Span | None], times: Times, moments: Times) -> Times:
    """Of times, given in lines of one per moment, the last edge up to the moment; NEVER when there is none."""
    edges = np.full(len(moments), NEVER, np.int64)
    for span in spans:
        found = times if span is None else passes(span, times)
        passed = (times != NEVER) & (times != FOREVER) & (found <= moments)
        np.maximum(edges, np.where(passed, found, NEVER).max(axis=0), out=edges)
    return edges


class EventSlot:
    """A count of events in a window."""

    def __init__(self, leaf: EventCount, key: str, route: EventRoute, group: Group) -> None:
        self.keys = (key,)
        self._route = route
        self._group = group
        self._column = route.column
        self._within = leaf.window.within
        self.moving = self._within is not None
        self._delay = leaf.window.older_than
        self._accept = leaf.accept
        self._table = np.array(leaf.accept, np.bool_)
        # Falling from c events, the truth changes when so many are left; -1: it does not.
        self._falls_to = np.array([self._fall(c) for c in range(len(leaf.accept))], np.int64)

    def _fall(self, count: int) -> int:
        lower = [c for c in range(count) if self._accept[c] != self._accept[count]]
        return lower[-1] if lower else -1

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        within = self._within
        after = NEVER if within is None else within.start(frame.now_us)
        column = self._column
        if isinstance(column, WideColumn):
            counts = column.counts(frame.ordinals, after)
            if within is not None:
                frame.add_edges(passes(within, column.nth_newest(frame.ordinals, self._falls_to[counts])))
            return cast("Bools", self._table[counts])
        times = frame.gathered(column, column.gather)
        if column.keep == 1:
            newest = times[:, 0]
            inside = newest > after
            if within is not None:
                frame.add_edges(passes(within, np.where(inside, newest, NEVER)))
            return inside if self._accept[1] else ~inside
        counts = (times > after).sum(axis=1)
        if within is not None:
            falls_to = self._falls_to[counts]
            nth = times[np.arange(len(counts)), np.maximum(falls_to, 0)]
            frame.add_edges(passes(within, np.where(falls_to >= 0, nth, NEVER)))
        return cast("Bools", self._table[counts])

    def record(self, view: View) -> tuple[list[int], list[int]]:
        """See Slot: the kept times, and all that are known."""
        kept = self._column.kept(view.ordinal)
        return kept, kept + coming(view, self._route, self._group)

    def truth(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        """See Slot."""
        times = record[1]
        start = 0 if self._within is None else bisect_right(times, self._within.start(moment))
        count = bisect_right(times, self._until(moment)) - start
        return self._accept[min(max(count, 0), len(self._accept) - 1)]

    def _until(self, moment: int) -> int:
        return moment if self._delay is None else self._delay.start(moment)

    def known(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        """See Slot."""
        kept = record[0]
        if len(kept) < self._column.keep:
            return True
        # Older events were dropped: they are missed when some of the kept ones do not count yet and the rest do not
        # reach back over the whole window.
        after = NEVER if self._within is None else self._within.start(moment)
        return kept[-1] <= self._until(moment) or kept[0] <= after

    def edges(self, record: tuple[list[int], list[int]]) -> Iterable[int]:
        """See Slot."""
        for time in record[1]:
            yield time if self._delay is None else self._delay.passes(time)
            if self._within is not None:
                yield self._within.passes(time)


class NarrowEventSlot(EventSlot):
    """The same, when the events lie in arrays."""

    def _times(self, past: Past) -> Times:
        assert isinstance(self._column, NarrowColumn)
        return past.gathered(self._column, self._column.gather)

    def _bounds(self, past: Past) -> tuple[Times | int, Times]:
        after = NEVER if self._within is None else self._within.start(past.moments)
        return after, past.moments if self._delay is None else self._delay.start(past.moments)

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        times, (after, until) = self._times(past).T, self._bounds(past)
        return cast("Bools", self._table[((times > after) & (times <= until)).sum(axis=0)])

    def past_known(self, past: Past) -> Bools:
        """See PastSlot."""
        times, (after, until) = self._times(past), self._bounds(past)
        newest, oldest = times[:, 0], times[:, -1]
        return cast("Bools", (oldest == NEVER) | (newest <= until) | (oldest <= after))

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        spans = (self._delay,) if self._within is None else (self._delay, self._within)
        return last_passed(spans, self._times(past).T, past.moments)


def coming(view: View, route: EventRoute, group: Group) -> list[int]:
    """Times of the events that wait to come into a state, oldest first; none unless the view looks ahead."""
    if not view.ahead:
        return []
    ordinals, times, ids = route.waiting.entries()
    mine = ordinals == view.ordinal
    found = set(zip(times[mine].tolist(), ids[mine].tolist(), strict=True))
    for time, message_id, _ in track_of(view, group):
        if route.in_range(time):
            found.add((time, hash_of(message_id) if route.state.keep > 1 else 0))
    return sorted(time for time, _ in found)


class _OneTimeSlot:
    """Whether one time, the first or the last of an event, lies in a window."""

    def __init__(self, window: Window, key: str) -> None:
        self.keys = (key,)
        self.moving = True
        self._window = window

    def _inside(self, times: Times, moments: Any) -> Bools:
        window = self._window
        inside: Bools = (times != NEVER) & (times <= moments)
        if window.within is not None:
            inside &= times > window.within.start(moments)
        if window.older_than is not None:
            inside &= times <= window.older_than.start(moments)
        if window.from_us is not None:
            inside &= times >= window.from_us
        if window.to_us is not None:
            inside &= times <= window.to_us
        return inside

    def _spans(self) -> list[Span]:
        return [span for span in (self._window.within, self._window.older_than) if span is not None]

    def _seen(self, times: Times, frame: Frame) -> Bools:
        """The truths of a frame; adds the next edges to it."""
        now = frame.now_us
        frame.add_edges(np.where(times > now, times, FOREVER))
        for span in self._spans():
            edges = passes(span, times)
            frame.add_edges(np.where(edges > now, edges, FOREVER))
        return self._inside(times, now)

    def _time_edges(self, time: int) -> Iterator[int]:
        yield time
        for span in self._spans():
            yield span.passes(time)


class LastTimeSlot(_OneTimeSlot):
    """Whether the latest event lies in a window."""

    def __init__(self, leaf: LastTime, key: str, route: EventRoute, group: Group) -> None:
        super().__init__(leaf.window, key)
        self._route = route
        self._group = group
        assert isinstance(route.column, NarrowColumn)  # it keeps one
        self._column = route.column

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        return self._seen(frame.gathered(self._column, self._column.gather)[:, 0], frame)

    def record(self, view: View) -> tuple[list[int], list[int]]:
        """See Slot: the kept time, and all that are known."""
        kept = self._column.kept(view.ordinal)
        return kept, kept + coming(view, self._route, self._group)

    def truth(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        """See Slot."""
        place = bisect_right(record[1], moment) - 1
        return place >= 0 and bool(self._inside(np.array(record[1][place]), moment))

    def known(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        """See Slot."""
        return not record[0] or record[0][0] <= moment

    def edges(self, record: tuple[list[int], list[int]]) -> Iterable[int]:
        """See Slot."""
        for time in record[1]:
            yield from self._time_edges(time)

    def _newest(self, past: Past) -> Times:
        return past.gathered(self._column, self._column.gather)[:, 0]

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        return self._inside(self._newest(past), past.moments)

    def past_known(self, past: Past) -> Bools:
        """See PastSlot."""
        return self._newest(past) <= past.moments

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        return last_passed([None, *self._spans()], self._newest(past)[None], past.moments)


class FirstTimeSlot(_OneTimeSlot):
    """Whether the first event lies in a window."""

    def __init__(self, leaf: FirstTime, route: FirstRoute, group: Group) -> None:
        super().__init__(leaf.window, route.key)
        self._column = route.column
        self._group = group

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        return self._seen(frame.gathered(self._column, self._column.gather), frame)

    def record(self, view: View) -> int:
        """See Slot: the first time."""
        return min([self._column.first(view.ordinal), *(time for time, _, _ in track_of(view, self._group))])

    def truth(self, record: int, moment: int) -> bool:
        """See Slot."""
        return bool(self._inside(np.array(record), moment))

    def known(self, record: int, moment: int) -> bool:
        """See Slot."""
        return True

    def edges(self, record: int) -> Iterable[int]:
        """See Slot."""
        return () if record == FOREVER else self._time_edges(record)

    def _first(self, past: Past) -> Times:
        return past.gathered(self._column, self._column.gather)

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        return self._inside(self._first(past), past.moments)

    past_known = staticmethod(always)

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        return last_passed([None, *self._spans()], self._first(past)[None], past.moments)


class IdentifierSlot:
    """Whether an identifier of a namespace was seen."""

    moving = True

    def __init__(self, leaf: IdentifierExists, key: str, route: IdentifierRoute) -> None:
        self.keys = (key,)
        self._namespace = leaf.namespace
        self._exists = leaf.exists
        self._column = route.column

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        first = frame.gathered(self._column, self._column.gather)
        seen = first <= frame.now_us
        frame.add_edges(np.where(seen, FOREVER, first))
        return seen if self._exists else ~seen

    def record(self, view: View) -> int:
        """See Slot."""
        moments = [self._column.first(view.ordinal)]
        for item in view.waiting:
            if isinstance(item.content, ResolvedEvent) and any(
                identifier.namespace == self._namespace for identifier in item.content.decision.identifiers
            ):
                moments.append(item.time_us)
        return min(moments)

    def truth(self, record: int, moment: int) -> bool:
        """See Slot."""
        return (record <= moment) is self._exists

    def known(self, record: int, moment: int) -> bool:
        """See Slot."""
        return True

    def edges(self, record: int) -> Iterable[int]:
        """See Slot."""
        return () if record == FOREVER else (record,)

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        seen = past.gathered(self._column, self._column.gather) <= past.moments
        return seen if self._exists else ~seen

    past_known = staticmethod(always)

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        first = past.gathered(self._column, self._column.gather)
        return np.where(first <= past.moments, first, NEVER)
