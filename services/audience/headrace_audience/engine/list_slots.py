"""The slot of conditions over lists of events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from headrace.domain.predicates import decode_object
from headrace_audience.engine.conditions import ListState, state_of
from headrace_audience.engine.event_slots import track_of
from headrace_audience.engine.frames import Frame, View
from headrace_audience.engine.list_columns import NO_EVENTS, Event, ListRoute
from headrace_audience.engine.list_rules import (
    AggregateRule,
    ComputedRule,
    DatedRule,
    InOrderRule,
    LastRule,
    Lists,
    RegularlyRule,
    RestartedRule,
    Rule,
)
from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Ordinals, Times
from headrace_audience.engine.states import Group
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    DatedCount,
    InOrder,
    LastTime,
    Leaf,
    Regularly,
    Restarted,
)


def rule_of(leaf: Leaf) -> Rule:
    """The rule of a condition over lists."""
    if isinstance(leaf, Aggregate):
        return AggregateRule(leaf)
    if isinstance(leaf, ComputedValue):
        return ComputedRule(leaf)
    if isinstance(leaf, DatedCount):
        return DatedRule(leaf)
    if isinstance(leaf, LastTime):
        return LastRule(leaf)
    if isinstance(leaf, Restarted):
        return RestartedRule(leaf)
    if isinstance(leaf, Regularly):
        return RegularlyRule(leaf)
    assert isinstance(leaf, InOrder)
    states = [state for state in state_of(leaf) if isinstance(state, ListState)]
    places = [{kept.path: place for place, kept in enumerate(state.values, start=2)} for state in states]
    return InOrderRule(leaf, places)


class _Known(NamedTuple):
    """What is known of a profile."""

    ordinal: int
    lists: Lists


class ListSlot:
    """A condition over lists of events."""

    moving = True

    def __init__(self, rule: Rule, sources: Sequence[tuple[ListRoute, Group]]) -> None:
        """Look at lists, in the order of the rule."""
        self.keys = tuple(dict.fromkeys(route.key for route, _ in sources))
        self._rule = rule
        self._sources = sources
        self._columns = [route.column for route, _ in sources]
        self._of_nobody = rule.holds([NO_EVENTS] * len(sources), 0)

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        truths: Bools = np.full(len(frame.ordinals), self._of_nobody, np.bool_)
        edges = np.full(len(frame.ordinals), FOREVER, np.int64)
        holds, next_edge, now = self._rule.holds, self._rule.next_edge, frame.now_us
        before = self._rule.looks_back_to(now)
        for place, lists in enumerate(self._lists(frame.ordinals)):
            leading = lists[0]
            if leading and leading[-1][0] > before:
                truths[place] = holds(lists, now)
                edges[place] = next_edge(lists, now)
        frame.add_edges(edges)
        return truths

    def _lists(self, ordinals: Ordinals) -> Iterator[Lists]:
        """The lists of each profile."""
        return zip(*(column.of_each(ordinals.tolist()) for column in self._columns), strict=True)

    def record(self, view: View) -> _Known:
        """See Slot."""
        if not view.waiting:
            return _Known(view.ordinal, [column.of(view.ordinal) for column in self._columns])
        return _Known(view.ordinal, [self._with_waiting(view, *source) for source in self._sources])

    def _with_waiting(self, view: View, route: ListRoute, group: Group) -> Sequence[Event]:
        events = {event[:2]: event for event in route.column.of(view.ordinal)}
        for time, message_id, resolved in track_of(view, group):
            if route.in_range(time):
                event = route.event(time, message_id, decode_object(resolved.event.properties))
                events.setdefault(event[:2], event)
        return sorted(events.values(), key=itemgetter(0, 1))

    def truth(self, record: _Known, moment: int) -> bool:
        """See Slot."""
        return self._rule.holds(record.lists, moment)

    def known(self, record: _Known, moment: int) -> bool:
        """See Slot."""
        return all(column.is_complete(record.ordinal, moment) for column in self._columns)

    def edges(self, record: _Known) -> Iterable[int]:
        """See Slot."""
        return self._rule.edges(record.lists)

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        truths: Bools = np.full(len(past.ordinals), self._of_nobody, np.bool_)
        moments = past.moments.tolist()
        for place, lists in enumerate(self._lists(past.ordinals)):
            if lists[0]:
                truths[place] = self._rule.holds(lists, moments[place])
        return truths

    def past_known(self, past: Past) -> Bools:
        """See PastSlot."""
        known: Bools = np.ones(len(past.ordinals), np.bool_)
        for column in self._columns:
            for place in np.flatnonzero(column.are_cut(past.ordinals)).tolist():
                known[place] &= column.is_complete(int(past.ordinals[place]), int(past.moments[place]))
        return known

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        edges = np.full(len(past.ordinals), NEVER, np.int64)
        moments = past.moments.tolist()
        for place, lists in enumerate(self._lists(past.ordinals)):
            if lists[0]:
                edges[place] = self._rule.last_edge(lists, moments[place])
        return edges
