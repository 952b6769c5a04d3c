"""What lists of events say at a moment: the rules of the conditions that no number of newest events can answer.

A rule is given the lists of one profile, in order of (time, message id), which may go on into the future, and a moment;
only events up to the moment count. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from headrace.domain.amounts import compile_total
from headrace.domain.computed_traits.definition import COUNT
from headrace.domain.computed_traits.values import value_of
from headrace.domain.predicates import compile_test
from headrace_audience.engine.list_columns import Event, until
from headrace_audience.engine.people import FOREVER, NEVER
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    DatedCount,
    InOrder,
    LastTime,
    Regularly,
    Restarted,
    Step,
    Window,
)
from headrace_audience.language.spans import Fixed, Span, near_spans

Lists = Sequence[Sequence[Event]]


class Rule(Protocol):
    """A condition over lists of events."""

    def holds(self, lists: Lists, moment: int) -> bool:
        """Whether the condition holds at a moment."""
        ...

    def looks_back_to(self, moment: int) -> int:
        """Who has no event after this time is at a moment, and later, as if there were none; NEVER: nobody."""
        ...

    def edges(self, lists: Lists) -> Iterator[int]:
        """All moments at which the truth may change."""
        ...

    def next_edge(self, lists: Lists, moment: int) -> int:
        """The first of them after a moment; FOREVER when there is none."""
        ...

    def last_edge(self, lists: Lists, moment: int) -> int:
        """The last of them up to a moment; NEVER when there is none."""
        ...


def _inside(window: Window, events: Sequence[Event], moment: int) -> tuple[int, int]:
    """The places of the events that lie in a window: from, and up to without."""
    end = until(events, moment if window.older_than is None else window.older_than.start(moment))
    start = 0 if window.within is None else until(events, window.within.start(moment))
    if window.from_us is not None:
        start = max(start, until(events, window.from_us - 1))
    if window.to_us is not None:
        end = min(end, until(events, window.to_us))
    return start, max(start, end)


def _looks_back_to(window: Window, moment: int) -> int:
    return NEVER if window.within is None else window.within.start(moment)


def _spans_of(window: Window) -> tuple[Span, ...]:
    return tuple(span for span in (window.within, window.older_than) if span is not None)


def _first_after(edges: Iterator[int], moment: int) -> int:
    return min((edge for edge in edges if edge > moment), default=FOREVER)


def _last_until(edges: Iterator[int], moment: int) -> int:
    return max((edge for edge in edges if edge <= moment), default=NEVER)


class _SpansRule:
    """A rule whose truth changes only when an event comes, and when one passes out of one of some spans.

    Spans pass over events in order, so of each list the first and the last of each kind of edge are enough.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans

    def edges(self, lists: Lists) -> Iterator[int]:
        """See Rule."""
        for events in lists:
            for event in events:
                yield event[0]
                for span in self._spans:
                    yield span.passes(event[0])

    def next_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        found = FOREVER
        for events in lists:
            if not events:
                continue
            coming = until(events, moment)
            if coming < len(events):
                found = min(found, events[coming][0])
            for span in self._spans:
                inside = until(events, span.start(moment))
                if inside < len(events):
                    found = min(found, span.passes(events[inside][0]))
        return found

    def last_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        found = NEVER
        for events in lists:
            come = until(events, moment)
            if come:
                found = max(found, events[come - 1][0])
            for span in self._spans:
                passed = until(events, span.start(moment))
                if passed:
                    found = max(found, span.passes(events[passed - 1][0]))
        return found


class _WindowRule(_SpansRule):
    """A rule over the events that lie in a window; only they and the clock change it."""

    def __init__(self, window: Window) -> None:
        super().__init__(_spans_of(window))
        self._window = window

    def looks_back_to(self, moment: int) -> int:
        """See Rule."""
        return _looks_back_to(self._window, moment)


class AggregateRule(_WindowRule):
    """A sum, an average, the least, the greatest, or the number of different values."""

    def __init__(self, leaf: Aggregate) -> None:
        super().__init__(leaf.window)
        self._function = leaf.function
        self._counts = compile_test(leaf.test)
        # Numbers of different values are no amounts.
        self._passes = None if leaf.function == "distinct" else compile_total(leaf.test)

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        start, end = _inside(self._window, events, moment)
        values = [event[2] for event in events[start:end] if event[2] is not None]
        if self._passes is None:
            return self._counts(len(set(values)))
        if self._function == "sum":
            return self._passes(sum(values))
        if not values:
            return self._counts(None)
        if self._function == "avg":
            return self._passes(sum(values), len(values))
        return self._passes(min(values) if self._function == "min" else max(values))


class ComputedRule(_WindowRule):
    """A test of the value of a computed trait."""

    def __init__(self, leaf: ComputedValue) -> None:
        super().__init__(leaf.window)
        self._function = leaf.function
        self._passes = compile_test(leaf.test)

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        start, end = _inside(self._window, events, moment)
        if self._function == COUNT:
            return self._passes(end - start or None)
        counted = [(event[0], event[2]) for event in events[start:end] if event[2] is not None]
        return self._passes(value_of(self._function, counted))


class DatedRule(_WindowRule):
    """A number of events whose properties say times that are near."""

    def __init__(self, leaf: DatedCount) -> None:
        super().__init__(leaf.window)
        self._accept = leaf.accept
        # An event counts from `said + first` until before `said + last`, for each of its times.
        self._near = [near_spans(predicate.test) for predicate in leaf.dated]

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        start, end = _inside(self._window, events, moment)
        count = sum(1 for event in events[start:end] if self._counts(event, moment))
        return self._accept[min(count, len(self._accept) - 1)]

    def _counts(self, event: Event, moment: int) -> bool:
        return all(
            said is not None and said + first <= moment < said + last
            for said, (first, last) in zip(event[2:], self._near, strict=True)
        )

    def edges(self, lists: Lists) -> Iterator[int]:
        """See Rule."""
        yield from super().edges(lists)
        for event in lists[0]:
            for said, (first, last) in zip(event[2:], self._near, strict=True):
                if said is not None:
                    yield said + first
                    yield said + last

    def next_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        return _first_after(self.edges(lists), moment)

    def last_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        return _last_until(self.edges(lists), moment)


class LastRule(_WindowRule):
    """The latest event, which must pass predicates and lie in the window."""

    def __init__(self, leaf: LastTime) -> None:
        super().__init__(leaf.window)

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        place = until(events, moment) - 1
        if place < 0 or not events[place][2]:
            return False
        start, end = _inside(self._window, events, moment)
        return start <= place < end


class RestartedRule(_SpansRule):
    """Events that came again after a time without any."""

    def __init__(self, leaf: Restarted) -> None:
        super().__init__((leaf.active_within, leaf.gone_since))
        self._active = leaf.active_within
        self._gone = leaf.gone_since

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        older = until(events, self._gone.start(moment))
        before_active = until(events, self._active.start(moment))
        return 0 < older == before_active < until(events, moment)

    def looks_back_to(self, moment: int) -> int:
        """See Rule."""
        return NEVER


class RegularlyRule:
    """Enough periods with the right number of events."""

    def __init__(self, leaf: Regularly) -> None:
        self._period = leaf.period_us
        self._periods = leaf.periods
        self._at_least = leaf.at_least
        self._accept = leaf.accept

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        (events,) = lists
        most = len(self._accept) - 1
        right = 0
        end = until(events, moment)
        for i in range(1, self._periods + 1):
            start = until(events, moment - i * self._period)
            right += self._accept[min(end - start, most)]
            end = start
        return right >= self._at_least

    def looks_back_to(self, moment: int) -> int:
        """See Rule."""
        return moment - self._periods * self._period

    def edges(self, lists: Lists) -> Iterator[int]:
        """See Rule."""
        for event in lists[0]:
            for i in range(self._periods + 1):
                yield event[0] + i * self._period

    def next_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        found = FOREVER
        for event in lists[0]:
            periods = (moment - event[0]) // self._period + 1 if event[0] <= moment else 0
            if periods <= self._periods:
                found = min(found, event[0] + periods * self._period)
        return found

    def last_edge(self, lists: Lists, moment: int) -> int:
        """See Rule."""
        return max(
            (
                event[0] + min((moment - event[0]) // self._period, self._periods) * self._period
                for event in lists[0]
                if event[0] <= moment
            ),
            default=NEVER,
        )


class InOrderRule(_SpansRule):
    """Events one after the other, one for each step, some of which must not come."""

    def __init__(self, leaf: InOrder, places: Sequence[dict[tuple[str, ...], int]]) -> None:
        """Of each step it is known at which place of its events the value of a property lies."""
        steps = (Fixed(step.within_us) for step in leaf.steps if step.within_us is not None)
        super().__init__(tuple(dict.fromkeys((*_spans_of(leaf.window), *steps))))
        self._steps = leaf.steps
        self._window = leaf.window
        self._places = places

    def holds(self, lists: Lists, moment: int) -> bool:
        """See Rule."""
        first = lists[0]
        start, end = _inside(self._window, first, moment)
        # From a step at an event it goes on, or not, whatever led there.
        failed: set[tuple[int, int, str]] = set()
        return any(self._goes_on(lists, 0, first[place], moment, failed) for place in range(start, end))

    def _goes_on(self, lists: Lists, number: int, event: Event, moment: int, failed: set[tuple[int, int, str]]) -> bool:
        """Whether the steps after one that came hold."""
        if number == len(self._steps) - 1:
            return True
        key = (number, event[0], event[1])
        if key in failed:
            return False
        step = self._steps[number + 1]
        found = (
            self._stays_away(lists, number, event, moment, failed)
            if step.negated
            else self._comes(lists, number, number + 1, event, None, moment, failed)
        )
        if not found:
            failed.add(key)
        return found

    def _comes(
        self,
        lists: Lists,
        before: int,
        number: int,
        event: Event,
        limit: Event | None,
        moment: int,
        failed: set[tuple[int, int, str]],
    ) -> bool:
        """Whether a step comes after an event, not after another that must not come, and the steps after it hold."""
        events = lists[number]
        start, end = _inside(self._window, events, moment)
        for place in range(start, end):
            found = events[place]
            if found[:2] <= event[:2]:
                continue
            if limit is not None and found[:2] > limit[:2]:
                return False
            if self._follows(before, number, event, found) and self._goes_on(lists, number, found, moment, failed):
                return True
        return False

    def _stays_away(
        self, lists: Lists, before: int, event: Event, moment: int, failed: set[tuple[int, int, str]]
    ) -> bool:
        """Whether a negated step does not come after an event, and the steps after it hold."""
        number = before + 1
        step = self._steps[number]
        events = lists[number]
        unwanted = next(
            (
                found
                for found in events[: until(events, moment)]
                if found[:2] > event[:2] and self._follows(before, number, event, found)
            ),
            None,
        )
        if number < len(self._steps) - 1:
            return self._comes(lists, before, number + 1, event, unwanted, moment, failed)
        is_over = step.within_us is None or moment >= event[0] + step.within_us
        return unwanted is None and is_over

    def _follows(self, before: int, number: int, event: Event, found: Event) -> bool:
        step: Step = self._steps[number]
        if step.within_us is not None and found[0] > event[0] + step.within_us:
            return False
        for path in step.same:
            value = event[self._places[before][path]]
            if value is None or value != found[self._places[number][path]]:
                return False
        return True

    def looks_back_to(self, moment: int) -> int:
        """See Rule."""
        return _looks_back_to(self._window, moment)
