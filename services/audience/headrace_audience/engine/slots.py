"""Definitions compiled against the columns: whole arrays of profiles at one moment, or one profile at any moment.

Each different leaf is one slot, shared by all audiences. A compiled condition is a function of a frame that knows the
truth of slots: an array of truths per slot in the one case, a single truth in the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.predicates import decode_object
from headrace_audience.engine.columns import NarrowColumn, WideColumn, hash_of
from headrace_audience.engine.conditions import State, TraitState, key_of, state_of
from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Ordinals, Times
from headrace_audience.engine.states import TRACK, EventRoute, IdentifierRoute, States, TraitRoute
from headrace_audience.engine.traits import decoded_traits
from headrace_audience.engine.waiting import FutureItem, TraitWrite
from headrace_audience.language.definition import (
    All,
    Any_,
    AudienceMember,
    Condition,
    EventCount,
    IdentifierExists,
    Leaf,
    Not,
    TraitTest,
)


class Slot(Protocol):
    """A leaf, compiled."""

    key: str
    """The state that it reads; empty when none."""
    moving: bool
    """Whether time alone can change it."""

    def truths(self, frame: Frame) -> Bools:
        """Truth per profile of a frame; adds the next edges to it."""
        ...

    def record(self, view: View) -> Any:
        """What is known of the profile of a view."""
        ...

    def truth(self, record: Any, moment: int) -> bool:
        """Truth at a moment, given a record."""
        ...

    def known(self, record: Any, moment: int) -> bool:
        """Whether the record still tells the truth at a moment of the past."""
        ...

    def edges(self, record: Any) -> Iterable[int]:
        """All moments at which the truth may change."""
        ...


class Frame:
    """Many profiles at one moment."""

    def __init__(self, ordinals: Ordinals, now_us: int, audience: Callable[[str, Frame], Bools]) -> None:
        self.ordinals = ordinals
        self.now_us = now_us
        self.edge: Times = np.full(len(ordinals), FOREVER, np.int64)
        self._audience = audience
        self._truths: dict[int, Bools] = {}
        self._audiences: dict[str, Bools] = {}
        self._gathered: dict[int, npt.NDArray[Any]] = {}

    def leaf(self, slot: Slot) -> Bools:
        """Truth of a slot, per profile."""
        truths = self._truths.get(id(slot))
        if truths is None:
            truths = self._truths[id(slot)] = slot.truths(self)
        return truths

    def audience(self, audience_id: str) -> Bools:
        """Membership in an audience, per profile."""
        truths = self._audiences.get(audience_id)
        if truths is None:
            truths = self._audiences[audience_id] = self._audience(audience_id, self)
        return truths

    def gathered(self, thing: object, gather: Callable[[Ordinals], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What a column holds for the profiles; slots that share a column gather once."""
        values = self._gathered.get(id(thing))
        if values is None:
            values = self._gathered[id(thing)] = gather(self.ordinals)
        return values

    def add_edges(self, edges: Times) -> None:
        """Take moments into account at which something changes next."""
        np.minimum(self.edge, edges, out=self.edge)


class View:
    """One profile over all moments, as far as the kept state tells.

    What is found out is remembered, because audiences share slots and moments.

    Attributes:
        ordinal: The profile.
        ahead: Whether it looks into the future too, at what waits for the clock.
        waiting: What waits as a whole.
    """

    def __init__(
        self, ordinal: int, audience: Callable[[str, Moment], bool], ahead: Iterable[FutureItem] | None
    ) -> None:
        self.ordinal = ordinal
        self.ahead = ahead is not None
        self.waiting: list[FutureItem] = [] if ahead is None else list(ahead)
        self._audience = audience
        self._slots: dict[int, tuple[Any, list[int]]] = {}
        self._moments: dict[int, Moment] = {}

    def record(self, slot: Slot) -> Any:
        """What is known to a slot."""
        return self._slot(slot)[0]

    def edges(self, slot: Slot) -> list[int]:
        """All moments at which the truth of a slot may change, ascending."""
        return self._slot(slot)[1]

    def _slot(self, slot: Slot) -> tuple[Any, list[int]]:
        found = self._slots.get(id(slot))
        if found is None:
            record = slot.record(self)
            found = self._slots[id(slot)] = record, sorted(slot.edges(record))
        return found

    def at(self, moment: int) -> Moment:
        """The view at a moment."""
        found = self._moments.get(moment)
        if found is None:
            found = self._moments[moment] = Moment(self, moment, self._audience)
        return found

    def edge_before(self, slots: Iterable[Slot], limit: int) -> int | None:
        """The last moment up to a limit at which any of the slots may have changed."""
        last: int | None = None
        for slot in slots:
            edges = self._slot(slot)[1]
            place = bisect_right(edges, limit)
            if place and (last is None or edges[place - 1] > last):
                last = edges[place - 1]
        return last


class Moment:
    """A view at one moment: the frame of scalar evaluation."""

    def __init__(self, view: View, moment: int, audience: Callable[[str, Moment], bool]) -> None:
        self.view = view
        self.moment = moment
        self._audience = audience
        self._truths: dict[int, bool] = {}
        self._known: dict[int, bool] = {}

    def leaf(self, slot: Slot) -> bool:
        """Truth of a slot."""
        truth = self._truths.get(id(slot))
        if truth is None:
            if isinstance(slot, _AudienceSlot):
                truth = self._audience(slot.audience_id, self)
            else:
                truth = slot.truth(self.view.record(slot), self.moment)
            self._truths[id(slot)] = truth
        return truth

    def knows(self, slots: Iterable[Slot]) -> bool:
        """Whether the kept state still tells the truth of all these slots at this moment."""
        for slot in slots:
            known = self._known.get(id(slot))
            if known is None:
                known = self._known[id(slot)] = slot.known(self.view.record(slot), self.moment)
            if not known:
                return False
        return True


Expression = Callable[[Any], Any]


def _always(past: Past) -> Bools:
    return np.ones(len(past.ordinals), np.bool_)


def _no_edges(past: Past) -> Times:
    return np.full(len(past.ordinals), NEVER, np.int64)


class _ConstantSlot:
    """A count that is always right, or never."""

    key = ""
    moving = False

    def __init__(self, value: bool) -> None:
        self._value = value

    def truths(self, frame: Frame) -> Bools:
        return np.full(len(frame.ordinals), self._value)

    def record(self, view: View) -> None:
        return None

    def truth(self, record: Any, moment: int) -> bool:
        return self._value

    def known(self, record: Any, moment: int) -> bool:
        return True

    def edges(self, record: Any) -> Iterable[int]:
        return ()

    def past_truths(self, past: Past) -> Bools:
        return np.full(len(past.ordinals), self._value)

    past_known = staticmethod(_always)
    past_edges = staticmethod(_no_edges)


class _EventSlot:
    """A count of events in a window."""

    def __init__(self, leaf: EventCount, key: str, route: EventRoute) -> None:
        self.key = key
        self._route = route
        self._column = route.column
        self._within = leaf.window.within_us
        self.moving = self._within is not None
        self._delay = leaf.window.older_than_us
        self._accept = leaf.accept
        self._table = np.array(leaf.accept, np.bool_)
        # Falling from c events, the truth changes when so many are left; -1: it does not.
        self._falls_to = np.array([self._fall(c) for c in range(len(leaf.accept))], np.int64)

    def _fall(self, count: int) -> int:
        lower = [c for c in range(count) if self._accept[c] != self._accept[count]]
        return lower[-1] if lower else -1

    def truths(self, frame: Frame) -> Bools:
        after = NEVER if self._within is None else frame.now_us - self._within
        column = self._column
        if isinstance(column, WideColumn):
            counts = column.counts(frame.ordinals, after)
            if self._within is not None:
                nth = column.nth_newest(frame.ordinals, self._falls_to[counts])
                frame.add_edges(np.where(nth == NEVER, FOREVER, nth + self._within))
            return cast("Bools", self._table[counts])
        times = frame.gathered(column, column.gather)
        if column.keep == 1:
            newest = times[:, 0]
            inside = newest > after
            if self._within is not None:
                frame.add_edges(np.where(inside, newest + self._within, FOREVER))
            return inside if self._accept[1] else ~inside
        counts = (times > after).sum(axis=1)
        if self._within is not None:
            falls_to = self._falls_to[counts]
            nth = times[np.arange(len(counts)), np.maximum(falls_to, 0)]
            frame.add_edges(np.where(falls_to >= 0, nth + self._within, FOREVER))
        return cast("Bools", self._table[counts])

    def record(self, view: View) -> tuple[list[int], list[int]]:
        kept = self._column.kept(view.ordinal)
        if not view.ahead:
            return kept, kept
        coming: set[tuple[int, int]] = set()
        ordinals, times, ids = self._route.waiting.entries()
        mine = ordinals == view.ordinal
        coming.update(zip(times[mine].tolist(), ids[mine].tolist(), strict=True))
        state = self._route.state
        for item in view.waiting:
            resolved = item.content
            if isinstance(resolved, TraitWrite) or not self._route.in_range(item.time_us):
                continue
            event = resolved.event
            if event.kind == TRACK and event.name in state.names and self._passes(resolved):
                coming.add((item.time_us, hash_of(item.message_id) if state.keep > 1 else 0))
        return kept, kept + sorted(time for time, _ in coming)

    def _passes(self, resolved: ResolvedEvent) -> bool:
        test = self._route.test
        return test is None or test(decode_object(resolved.event.properties))

    def truth(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        times = record[1]
        start = 0 if self._within is None else bisect_right(times, moment - self._within)
        count = bisect_right(times, moment - self._delay) - start
        return self._accept[min(max(count, 0), len(self._accept) - 1)]

    def known(self, record: tuple[list[int], list[int]], moment: int) -> bool:
        kept = record[0]
        if len(kept) < self._column.keep:
            return True
        # Older events were dropped: they are missed when some of the kept ones do not count yet and the rest do not
        # reach back over the whole window.
        after = NEVER if self._within is None else moment - self._within
        return kept[-1] <= moment - self._delay or kept[0] <= after

    def edges(self, record: tuple[list[int], list[int]]) -> Iterable[int]:
        for time in record[1]:
            yield time + self._delay
            if self._within is not None:
                yield time + self._within


class _NarrowEventSlot(_EventSlot):
    """The same, when the events lie in arrays."""

    def _times(self, past: Past) -> Times:
        assert isinstance(self._column, NarrowColumn)
        return past.gathered(self._column, self._column.gather)

    def _after(self, past: Past) -> Times | int:
        return NEVER if self._within is None else past.moments - self._within

    def past_truths(self, past: Past) -> Bools:
        times, after = self._times(past).T, self._after(past)
        inside = (times > after) & (times <= past.moments - self._delay)
        return cast("Bools", self._table[inside.sum(axis=0)])

    def past_known(self, past: Past) -> Bools:
        times = self._times(past)
        newest, oldest = times[:, 0], times[:, -1]
        counting = newest <= past.moments - self._delay
        return cast("Bools", (oldest == NEVER) | counting | (oldest <= self._after(past)))

    def past_edges(self, past: Past) -> Times:
        times = self._times(past).T
        edges = np.full(len(past.ordinals), NEVER, np.int64)
        for span in (self._delay,) if self._within is None else (self._delay, self._within):
            passed = (times != NEVER) & (times + span <= past.moments)
            np.maximum(edges, np.where(passed, times + span, NEVER).max(axis=0), out=edges)
        return edges


class _TraitSlot:
    """A test of the newest value of a trait."""

    def __init__(self, key: str, state: TraitState, route: TraitRoute) -> None:
        self.key = key
        self._route = route
        self._column = route.column
        self._reading = route.column.readings[key]
        self._op = state.test.op
        self.moving = self._reading.moving
        self._span = int(cast("float", state.test.values[0])) if self.moving else 0

    def truths(self, frame: Frame) -> Bools:
        rows = frame.gathered(self._column, self._column.rows.of.__getitem__)
        codes = self._reading.codes[rows]
        if not self.moving:
            return cast("Bools", codes.view(np.bool_))
        now, span = frame.now_us, self._span
        first, last = (codes, codes + span) if self._op == "in_last" else (codes - span, codes)
        real = codes != NEVER
        frame.add_edges(np.where(real & (first > now), first, np.where(real & (last > now), last, FOREVER)))
        return cast("Bools", real & (first <= now) & (now < last))

    def record(self, view: View) -> tuple[bool, list[tuple[int, str, int]]]:
        writes: list[tuple[int, str, int]] = []
        written = self._column.written(view.ordinal)
        if written is not None:
            writes.append((*written, int(self._reading.codes[self._column.rows.of[view.ordinal]])))
        for item in view.waiting:
            content = item.content
            if isinstance(content, TraitWrite):
                if content.name == self._route.name:
                    writes.append((item.time_us, item.message_id, self._reading.code(content.value)))
            else:
                traits = decoded_traits(content.event)
                if self._route.name in traits:
                    writes.append((item.time_us, item.message_id, self._reading.code(traits[self._route.name])))
        return written is not None, sorted(writes)

    def truth(self, record: tuple[bool, list[tuple[int, str, int]]], moment: int) -> bool:
        code = self._reading.empty
        for time, _, later in record[1]:
            if time > moment:
                break
            code = later
        if not self.moving:
            return bool(code)
        if code == NEVER:
            return False
        if self._op == "in_last":
            return moment - self._span < code <= moment
        return moment < code <= moment + self._span

    def known(self, record: tuple[bool, list[tuple[int, str, int]]], moment: int) -> bool:
        return not record[0] or moment >= record[1][0][0]

    def edges(self, record: tuple[bool, list[tuple[int, str, int]]]) -> Iterable[int]:
        for time, _, code in record[1]:
            yield time
            if self.moving and code != NEVER:
                yield code
                yield code + self._span if self._op == "in_last" else code - self._span

    def _rows(self, past: Past) -> npt.NDArray[Any]:
        return past.gathered(self._column, self._column.rows.of.__getitem__)

    def past_truths(self, past: Past) -> Bools:
        codes = self._reading.codes[self._rows(past)]
        if not self.moving:
            return cast("Bools", codes.view(np.bool_))
        first, last = (codes, codes + self._span) if self._op == "in_last" else (codes - self._span, codes)
        return cast("Bools", (codes != NEVER) & (first <= past.moments) & (past.moments < last))

    def past_known(self, past: Past) -> Bools:
        return self._column.times_at(self._rows(past)) <= past.moments

    def past_edges(self, past: Past) -> Times:
        rows = self._rows(past)
        written = self._column.times_at(rows)
        edges = np.where(written <= past.moments, written, NEVER)
        if self.moving:
            codes = self._reading.codes[rows]
            for span in (0, self._span if self._op == "in_last" else -self._span):
                passed = (codes != NEVER) & (codes + span <= past.moments)
                np.maximum(edges, np.where(passed, codes + span, NEVER), out=edges)
        return edges


class _IdentifierSlot:
    """Whether an identifier of a namespace was seen."""

    moving = True

    def __init__(self, leaf: IdentifierExists, key: str, route: IdentifierRoute) -> None:
        self.key = key
        self._namespace = leaf.namespace
        self._exists = leaf.exists
        self._column = route.column

    def truths(self, frame: Frame) -> Bools:
        first = frame.gathered(self._column, self._column.gather)
        seen = first <= frame.now_us
        frame.add_edges(np.where(seen, FOREVER, first))
        return seen if self._exists else ~seen

    def record(self, view: View) -> int:
        moments = [self._column.first(view.ordinal)]
        for item in view.waiting:
            if isinstance(item.content, ResolvedEvent) and any(
                identifier.namespace == self._namespace for identifier in item.content.decision.identifiers
            ):
                moments.append(item.time_us)
        return min(moments)

    def truth(self, record: int, moment: int) -> bool:
        return (record <= moment) is self._exists

    def known(self, record: int, moment: int) -> bool:
        return True

    def edges(self, record: int) -> Iterable[int]:
        return () if record == FOREVER else (record,)

    def past_truths(self, past: Past) -> Bools:
        seen = past.gathered(self._column, self._column.gather) <= past.moments
        return seen if self._exists else ~seen

    past_known = staticmethod(_always)

    def past_edges(self, past: Past) -> Times:
        first = past.gathered(self._column, self._column.gather)
        return np.where(first <= past.moments, first, NEVER)


class _AudienceSlot:
    """Whether the profile is in another audience."""

    key = ""
    moving = False

    def __init__(self, audience_id: str) -> None:
        self.audience_id = audience_id

    def truths(self, frame: Frame) -> Bools:
        return frame.audience(self.audience_id)

    def record(self, view: View) -> None:
        return None

    def truth(self, record: Any, moment: int) -> bool:
        raise AssertionError("a Moment asks for the audience itself")

    def known(self, record: Any, moment: int) -> bool:
        return True

    def edges(self, record: Any) -> Iterable[int]:
        return ()

    def past_truths(self, past: Past) -> Bools:
        return past.by_audience(self.audience_id, past)

    past_known = staticmethod(_always)
    past_edges = staticmethod(_no_edges)


class Slots:
    """The slots of all audiences, one for each different leaf."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._slots: dict[Leaf, Slot] = {}

    def of(self, leaf: Leaf) -> Slot:
        """The slot of a leaf; its state is in the columns already."""
        slot = self._slots.get(leaf)
        if slot is None:
            slot = self._slots[leaf] = self._make(leaf)
        return slot

    def keep_only(self, leaves: set[Leaf]) -> None:
        """Forget the slots of all other leaves."""
        for leaf in self._slots.keys() - leaves:
            del self._slots[leaf]

    def moving(self) -> list[Slot]:
        """The slots that time alone can change."""
        return [slot for slot in self._slots.values() if slot.moving]

    def _make(self, leaf: Leaf) -> Slot:
        if isinstance(leaf, AudienceMember):
            return _AudienceSlot(leaf.audience_id)
        state: State | None = state_of(leaf)
        if state is None:
            assert isinstance(leaf, EventCount)
            return _ConstantSlot(leaf.accept[0])
        key = key_of(state)
        if isinstance(leaf, EventCount):
            route = self._states.events[key]
            narrow = isinstance(route.column, NarrowColumn)
            return _NarrowEventSlot(leaf, key, route) if narrow else _EventSlot(leaf, key, route)
        if isinstance(leaf, TraitTest):
            assert isinstance(state, TraitState)
            return _TraitSlot(key, state, self._states.traits[leaf.path[0]])
        return _IdentifierSlot(leaf, key, self._states.identifiers[leaf.namespace])


def compile_condition(condition: Condition, slots: Slots) -> Expression:
    """A function that gives the truth of a condition in a frame."""
    if isinstance(condition, Not):
        part = compile_condition(condition.part, slots)
        return lambda frame: part(frame) ^ True
    if isinstance(condition, All | Any_):
        parts = [compile_condition(part, slots) for part in condition.parts]
        first, rest = parts[0], parts[1:]
        if isinstance(condition, All):

            def every(frame: Any) -> Any:
                truth = first(frame)
                for part in rest:
                    truth = truth & part(frame)
                return truth

            return every

        def some(frame: Any) -> Any:
            truth = first(frame)
            for part in rest:
                truth = truth | part(frame)
            return truth

        return some
    slot = slots.of(condition)
    return lambda frame: frame.leaf(slot)
