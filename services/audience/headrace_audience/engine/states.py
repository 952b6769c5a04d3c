"""All columns of an engine by state key, and the routes by which events reach them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.api.common.v1.event_pb2 import Event as EventMessage
from headrace.api.common.v1.event_pb2 import EventKind
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.definitions import Predicate
from headrace.domain.predicates import compile_predicates, decode_object
from headrace_audience.engine.columns import EventColumn, hash_of, new_column
from headrace_audience.engine.conditions import (
    CONSENT,
    FIRST_TOUCH,
    LAST_TOUCH,
    TRAIT,
    AttributeState,
    EventState,
    FirstState,
    ListState,
    State,
    state_of_key,
)
from headrace_audience.engine.list_columns import ListRoute
from headrace_audience.engine.people import FOREVER, Bools, Ordinals, People, Times
from headrace_audience.engine.touches import touch_of
from headrace_audience.engine.trait_columns import FirstColumn, TraitColumn
from headrace_audience.engine.traits import TRAITS_MARK, consents_of, decoded_traits
from headrace_audience.engine.waiting import Future, FutureItem, TraitWrite, Waiting
from headrace_audience.language.spans import Span

TRACK = EventKind.EVENT_KIND_TRACK
PROFILES = '["profiles"]'
"""The key of no state: its history is the ids of all profiles."""

CAUSES_OF_ONE = 16
"""Of so many new events per profile it is remembered what they may have caused."""
CAUSES_OF_ALL = 200_000
"""Profiles with remembered events, at most: a long replay into held partitions remembers no more."""


@dataclass(slots=True)
class EventRoute:
    """One event state: its column, and its events that do not count yet."""

    key: str
    state: EventState
    column: EventColumn
    waiting: Waiting

    def in_range(self, time_us: int) -> bool:
        """Whether an event at this time can ever count."""
        state = self.state
        return (state.from_us is None or time_us >= state.from_us) and (state.to_us is None or time_us <= state.to_us)

    def counts_until(self, now: int) -> int:
        """Events up to this time count at a moment."""
        return now if self.state.delay is None else self.state.delay.start(now)

    def releases_at(self) -> int:
        """When the first waiting event counts; FOREVER when none waits."""
        first = self.waiting.first()
        return first if first == FOREVER or self.state.delay is None else self.state.delay.passes(first)


@dataclass(slots=True)
class Group:
    """States of the same events: they differ in what they keep of them, and in their windows."""

    names: tuple[str, ...]
    test: Callable[[Mapping[str, Any]], bool] | None
    routes: dict[str, EventRoute] = field(default_factory=dict)
    lists: dict[str, ListRoute] = field(default_factory=dict)
    first: FirstRoute | None = None
    ordinals: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    message_ids: list[str] = field(default_factory=list)

    @property
    def keys(self) -> Set[str]:
        """Keys of the states."""
        return self.routes.keys() | self.lists.keys() | ({self.first.key} if self.first else set())

    def delay(self, key: str) -> Span | None:
        """What must pass over an event until it counts for a state."""
        return self.routes[key].state.delay if key in self.routes else None

    def matches(self, event: EventMessage) -> bool:
        """Whether an event is one of these."""
        if event.kind != TRACK or event.name not in self.names:
            return False
        return self.test is None or self.test(decode_object(event.properties))


@dataclass(slots=True)
class FirstRoute:
    """When the first event of a group came."""

    key: str
    column: FirstColumn


@dataclass(slots=True)
class TraitRoute:
    """Something that events write, such as a trait, and its column; `kind` is that of an AttributeState."""

    kind: str
    name: str
    column: TraitColumn

    @property
    def keys(self) -> Set[str]:
        """Keys of the states that read it."""
        return self.column.readings.keys()


@dataclass(slots=True)
class IdentifierRoute:
    """A namespace and its column."""

    key: str
    column: FirstColumn
    ordinals: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    @property
    def keys(self) -> Set[str]:
        """Key of the one state."""
        return frozenset([self.key])


Route = Group | TraitRoute | IdentifierRoute


@dataclass(slots=True)
class Candidate:
    """A new event that may have caused flips of a profile."""

    time_us: int
    message_id: str
    traceparent: str
    cause: str
    routes: tuple[Route, ...]
    """What it reached."""
    first: bool
    """It made the profile known, which every audience notices."""


Note = tuple[ResolvedEvent, str, tuple[Route, ...], bool]
"""What a candidate is made of, once a flip asks for it: event, cause, routes, first."""


def candidate_of(note: Note | Candidate) -> Candidate:
    """A candidate, made if need be."""
    if isinstance(note, Candidate):
        return note
    resolved, cause, routes, first = note
    event = resolved.event
    trace = resolved.traceparent or event.traceparent
    return Candidate(event.timestamp_us, event.message_id, trace, cause, routes, first)


@dataclass(slots=True)
class Touched:
    """What was changed since the last evaluation."""

    ordinals: dict[str, list[Ordinals]] = field(default_factory=dict)
    """Profiles by the key of the state that changed."""
    writes: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    """Profiles by what was written, such as a trait, whose readings changed."""
    new: list[int] = field(default_factory=list)
    """Profiles that every audience must look at."""
    candidates: dict[int, list[Candidate | Note]] = field(default_factory=dict)

    def add(self, key: str, changed: Ordinals) -> None:
        """Note that a state of profiles changed."""
        if len(changed):
            self.ordinals.setdefault(key, []).append(changed)


class States:
    """Columns by state key; fold() is the hot path of the engine."""

    def __init__(self, people: People, future: Future) -> None:
        self._people = people
        self._future = future
        self._capacity = people.capacity
        self.events: dict[str, EventRoute] = {}
        self.lists: dict[str, ListRoute] = {}
        self.firsts: dict[str, FirstRoute] = {}
        self.attributes: dict[tuple[str, str], TraitRoute] = {}
        self.identifiers: dict[str, IdentifierRoute] = {}
        self.keys: dict[str, State] = {}
        self.touched = Touched()
        self._groups: dict[tuple[tuple[str, ...], tuple[Predicate, ...]], Group] = {}
        self._by_name: dict[str, list[Group]] = {}
        self._traits: dict[str, TraitRoute] = {}
        self._consents: dict[str, TraitRoute] = {}
        self._touches: list[dict[str, TraitRoute]] = []

    # --- which states there are

    def add(self, key: str) -> None:
        """Make the column of a state, empty."""
        state = state_of_key(key)
        self.keys[key] = state
        capacity = self._people.capacity
        if isinstance(state, EventState):
            group = self._group(state.names, state.where)
            route = EventRoute(key, state, new_column(state.keep, capacity), Waiting())
            self.events[key] = group.routes[key] = route
        elif isinstance(state, ListState):
            self.lists[key] = self._group(state.names, state.where).lists[key] = ListRoute(key, state)
        elif isinstance(state, FirstState):
            group = self._group(state.names, ())
            self.firsts[key] = group.first = FirstRoute(key, FirstColumn(capacity))
        elif isinstance(state, AttributeState):
            name = (state.kind, state.path[0])
            if name not in self.attributes:
                self.attributes[name] = TraitRoute(*name, TraitColumn(capacity, first=state.kind == FIRST_TOUCH))
            self.attributes[name].column.add_reading(key, state)
        else:
            self.identifiers[state.namespace] = IdentifierRoute(key, FirstColumn(capacity))
        self._look_for_kinds()

    def _group(self, names: tuple[str, ...], where: tuple[Predicate, ...]) -> Group:
        group = self._groups.get((names, where))
        if group is None:
            group = self._groups[names, where] = Group(names, compile_predicates(where) if where else None)
            for name in names:
                self._by_name.setdefault(name, []).append(group)
        return group

    def group_of(self, key: str) -> Group:
        """The events of a state."""
        state = self.keys[key]
        assert isinstance(state, EventState | ListState | FirstState)
        return self._groups[state.names, () if isinstance(state, FirstState) else state.where]

    def _look_for_kinds(self) -> None:
        by_kind: dict[str, dict[str, TraitRoute]] = {}
        for (kind, name), route in self.attributes.items():
            by_kind.setdefault(kind, {})[name] = route
        self._traits, self._consents = by_kind.get(TRAIT, {}), by_kind.get(CONSENT, {})
        self._touches = [by_kind[kind] for kind in (FIRST_TOUCH, LAST_TOUCH) if kind in by_kind]

    def remove(self, key: str) -> None:
        """Forget a state."""
        state = self.keys[key]
        if isinstance(state, EventState | ListState | FirstState):
            self._remove_from_group(key)
        elif isinstance(state, AttributeState):
            name = (state.kind, state.path[0])
            column = self.attributes[name].column
            column.remove_reading(key)
            if not column.readings:
                del self.attributes[name]
        else:
            del self.identifiers[state.namespace]
        del self.keys[key]
        self._look_for_kinds()

    def _remove_from_group(self, key: str) -> None:
        group = self.group_of(key)
        self.events.pop(key, None)
        self.lists.pop(key, None)
        group.routes.pop(key, None)
        group.lists.pop(key, None)
        if self.firsts.pop(key, None) is not None:
            group.first = None
        if not group.keys:
            self._groups = {names: other for names, other in self._groups.items() if other is not group}
            for name in group.names:
                self._by_name[name].remove(group)
                if not self._by_name[name]:
                    del self._by_name[name]

    def ensure_room(self) -> None:
        """Grow the columns after the profiles have grown."""
        capacity = self._people.capacity
        if capacity == self._capacity:
            return
        self._capacity = capacity
        for route in self.events.values():
            route.column.ensure(capacity)
        for first in self.firsts.values():
            first.column.ensure(capacity)
        for attribute in self.attributes.values():
            attribute.column.ensure(capacity)
        for identifier in self.identifiers.values():
            identifier.column.ensure(capacity)

    def attribute_of(self, key: str) -> TraitRoute | None:
        """What a state reads that events write; None when it is of another kind."""
        state = self.keys[key]
        return self.attributes[state.kind, state.path[0]] if isinstance(state, AttributeState) else None

    def clear(self, ordinals: Ordinals) -> None:
        """Forget all state of profiles."""
        gone: Bools = np.zeros(self._people.capacity, np.bool_)
        gone[ordinals] = True
        for route in self.events.values():
            route.column.clear(ordinals)
            route.waiting.drop(gone)
        for one in self.lists.values():
            one.column.clear(ordinals)
        for first in self.firsts.values():
            first.column.clear(ordinals)
        for attribute in self.attributes.values():
            attribute.column.clear(ordinals)
        for identifier in self.identifiers.values():
            identifier.column.clear(ordinals)

    # --- events

    def fold(
        self, events: Iterable[ResolvedEvent], horizon: int, cause: str, only: Collection[str] | None = None
    ) -> None:
        """Take events in; those later than the horizon wait as a whole."""
        people, touched = self._people, self.touched
        index, merged = people.index, people.merged
        by_name, namespaces = self._by_name, self.identifiers
        traits, consents, touches = self._traits, self._consents, self._touches
        for resolved in events:
            profile_id = resolved.profile_id
            if not profile_id or profile_id in merged:
                continue
            ordinal = index.get(profile_id)
            if ordinal is None:
                ordinal = people.add(profile_id)
                touched.new.append(ordinal)
                is_new = True
            else:
                is_new = False
            event = resolved.event
            time = event.timestamp_us
            if time > horizon:
                self._future.add(FutureItem(time, event.message_id, profile_id, resolved, cause))
                if is_new and only is None:
                    self._note(ordinal, resolved, cause, (), is_new)
                continue
            reached: list[Route] = []
            if event.kind == TRACK:
                groups = by_name.get(event.name)
                if groups is not None:
                    message_id = event.message_id
                    properties: dict[str, Any] | None = None
                    for group in groups:
                        test = group.test
                        if test is not None:
                            if properties is None:
                                properties = decode_object(event.properties)
                            if not test(properties):
                                continue
                        group.ordinals.append(ordinal)
                        group.times.append(time)
                        group.message_ids.append(message_id)
                        for key, one in group.lists.items():
                            if only is None or key in only:
                                if properties is None and one.reads_properties:
                                    properties = decode_object(event.properties)
                                one.take(ordinal, one.event(time, message_id, properties or {}))
                        reached.append(group)
            if traits and (event.traits or TRAITS_MARK in event.context):
                self._write(ordinal, event, traits, decoded_traits(event), only, reached)
            if consents:
                self._write(ordinal, event, consents, consents_of(event), only, reached)
            if touches and event.context:
                touch = touch_of(event)
                for routes in touches:
                    self._write(ordinal, event, routes, touch, only, reached)
            if namespaces:
                for identifier in resolved.decision.identifiers:
                    route = namespaces.get(identifier.namespace)
                    if route is not None:
                        route.ordinals.append(ordinal)
                        route.times.append(time)
                        reached.append(route)
            if only is None and (reached or is_new):
                self._note(ordinal, resolved, cause, tuple(reached), is_new)
        self.ensure_room()
        self._flush(horizon, only)

    def _write(
        self,
        ordinal: int,
        event: EventMessage,
        routes: Mapping[str, TraitRoute],
        found: Mapping[str, Any],
        only: Collection[str] | None,
        reached: list[Route],
    ) -> None:
        if not found:
            return
        self.ensure_room()
        for name, value in found.items():
            route = routes.get(name)
            # One column serves all tests of a trait, so a write limited to some keys is taken in for all.
            if route is not None and (only is None or not route.keys.isdisjoint(only)):
                reached.append(route)
                if route.column.write(ordinal, event.timestamp_us, event.message_id, value):
                    self.touched.writes.setdefault((route.kind, name), set()).add(ordinal)

    def take_touched(self) -> Touched:
        """What was changed since the last call."""
        touched, self.touched = self.touched, Touched()
        for name, ordinals in touched.writes.items():
            if name in self.attributes:
                changed = np.array(sorted(ordinals), np.int64)
                for key in self.attributes[name].keys:
                    touched.add(key, changed)
        return touched

    def _note(self, ordinal: int, resolved: ResolvedEvent, cause: str, routes: tuple[Route, ...], first: bool) -> None:
        candidates = self.touched.candidates
        known = candidates.get(ordinal)
        if known is None:
            if len(candidates) >= CAUSES_OF_ALL:
                return
            known = candidates[ordinal] = []
        elif len(known) == CAUSES_OF_ONE:
            del known[0]
        note = (resolved, cause, routes, first)
        # Of held partitions a lot may come together: then the event itself is not kept alive, with its whole batch.
        known.append(candidate_of(note) if self._people.held else note)

    def _flush(self, horizon: int, only: Collection[str] | None) -> None:
        hashes: dict[str, int] = {}
        for group in self._groups.values():
            if not group.ordinals:
                continue
            ordinals = np.array(group.ordinals, np.int64)
            times = np.array(group.times, np.int64)
            ids: Times | None = None
            for key, route in group.routes.items():
                if only is not None and key not in only:
                    continue
                if ids is None and route.state.keep > 1:
                    ids = np.array([_hash(m, hashes) for m in group.message_ids], np.int64)
                self.insert(route, ordinals, times, np.zeros_like(times) if ids is None else ids, horizon)
            if group.first is not None and (only is None or group.first.key in only):
                self.touched.add(group.first.key, group.first.column.insert(ordinals, times))
            for key, one in group.lists.items():
                self.touched.add(key, one.flush(horizon))
            group.ordinals.clear()
            group.times.clear()
            group.message_ids.clear()
        for namespace in self.identifiers.values():
            if not namespace.ordinals:
                continue
            if only is None or namespace.key in only:
                new = namespace.column.insert(
                    np.array(namespace.ordinals, np.int64), np.array(namespace.times, np.int64)
                )
                self.touched.add(namespace.key, new)
            namespace.ordinals.clear()
            namespace.times.clear()

    def insert(self, route: EventRoute, ordinals: Ordinals, times: Times, ids: Times, horizon: int) -> None:
        """Put matching events into one event state; those that do not count yet wait."""
        state = route.state
        if state.from_us is not None or state.to_us is not None:
            inside = np.ones(len(times), np.bool_)
            if state.from_us is not None:
                inside &= times >= state.from_us
            if state.to_us is not None:
                inside &= times <= state.to_us
            ordinals, times, ids = ordinals[inside], times[inside], ids[inside]
        late = times > route.counts_until(horizon)
        if late.any():
            route.waiting.add(ordinals[late], times[late], ids[late])
            counts = ~late
            ordinals, times, ids = ordinals[counts], times[counts], ids[counts]
        if len(times):
            self.touched.add(route.key, route.column.insert(ordinals, times, ids))

    # --- the passing of time

    def next_release(self) -> int:
        """When the next waiting thing counts; FOREVER when nothing waits."""
        moments = [route.releases_at() for route in self.events.values()]
        return min([self._future.first(), *moments])

    def release(self, horizon: int) -> None:
        """Let everything count whose time has come."""
        while self._future.first() <= horizon:
            for item in self._future.take(horizon):
                if isinstance(item.content, ResolvedEvent):
                    self.fold((item.content,), horizon, item.cause)
                    continue
                ordinal = self._people.index.get(item.profile_id)
                if ordinal is not None and item.profile_id not in self._people.merged:
                    self.write_trait(item.content, ordinal, item.time_us, item.message_id)
        for route in self.events.values():
            due = route.waiting.take(route.counts_until(horizon))
            if due is not None:
                self.touched.add(route.key, route.column.insert(*due))

    def write_trait(self, write: TraitWrite, ordinal: int, time_us: int, message_id: str) -> None:
        """Take in one value of a history."""
        name = (write.kind, write.name)
        route = self.attributes.get(name)
        if route is not None and route.column.write(ordinal, time_us, message_id, write.value):
            self.touched.writes.setdefault(name, set()).add(ordinal)


def _hash(message_id: str, hashes: dict[str, int]) -> int:
    number = hashes.get(message_id)
    if number is None:
        number = hashes[message_id] = hash_of(message_id)
    return number
