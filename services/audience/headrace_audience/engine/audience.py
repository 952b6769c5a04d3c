"""One audience inside the engine, and what its flips say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, cast

import numpy as np

from headrace_audience.engine.frames import Slot, View
from headrace_audience.engine.past import LOOK_BACK, Past, PastSlot, holding_since
from headrace_audience.engine.people import Bools, Ordinals, People
from headrace_audience.engine.slots import Expression
from headrace_audience.engine.states import Candidate, Group, Note, Route, candidate_of
from headrace_audience.language.definition import Definition, Leaf
from headrace_audience.language.spans import Span

MANY = 16
"""So many changes of an audience at once are explained with whole arrays."""
REMEMBERED_VIEWS = 10_000
"""About so many profiles it is remembered what was found out."""


class Flip(NamedTuple):
    """One change of one membership. A tuple, because a new audience makes a million of them."""

    audience_id: str
    profile_id: str
    member: bool
    """True: entered. False: left."""
    effective_at_us: int
    """The moment from which it holds: the time of the causing event, or the edge of a window."""
    cause: str
    """"event", "time", "merge", "reassignment", "repair", "fill" or "definition"."""
    message_id: str = ""
    """The causing event, when an event did it."""
    traceparent: str = ""
    """Trace context of the causing event."""
    merged_into: str = ""
    """The survivor, when the profile left because it was merged."""


@dataclass(slots=True)
class Sweep:
    """Everybody is evaluated for audiences that start, some at a time."""

    ahead: Ordinals
    """Who is still to be looked at, ascending."""

    def is_ahead(self, ordinals: Ordinals) -> Bools:
        """Who of some is still to be looked at; perhaps some others whose numbers lie between."""
        if not len(self.ahead):
            return np.zeros(len(ordinals), np.bool_)
        return cast("Bools", (ordinals >= self.ahead[0]) & (ordinals <= self.ahead[-1]))


@dataclass(slots=True)
class Audience:
    """An audience, and what follows from all audiences together."""

    id: str
    definition: Definition
    leaves: frozenset[Leaf]
    """Its own conditions; none when it is static."""
    expression: Expression
    started: bool = False
    cause: str = ""
    """Why everybody must be evaluated; empty: no need."""
    sweep: Sweep | None = None
    """How far that is, once it has begun."""
    live: bool = False
    """Started, and so is all that it refers to."""
    slots: tuple[Slot, ...] = ()
    """Its own and those of the audiences that it refers to, as `keys`, `moving` and `statics` are."""
    keys: frozenset[str] = frozenset()
    moving: bool = False
    statics: frozenset[str] = frozenset()
    """Static audiences that it refers to."""
    depends_on: frozenset[str] = frozenset()
    """All audiences that it refers to, known or not."""

    reach: dict[int, frozenset[Span | None]] = field(default_factory=dict)
    """What delays() has found, by the identity of the route."""

    @property
    def static(self) -> bool:
        """Whether its members are set from outside."""
        return self.definition.kind == "static"

    def delays(self, route: Route) -> frozenset[Span | None]:
        """What must pass over events of a route until they change this audience; empty when they cannot change it."""
        found = self.reach.get(id(route))
        if found is None:
            found = self.reach[id(route)] = frozenset(
                route.delay(key) if isinstance(route, Group) else None for key in route.keys if key in self.keys
            )
        return found

    def next_change(self, view: View, after: int) -> int | None:
        """The first moment after another at which the membership is a different one; None: never."""
        now = bool(self.expression(view.at(after)))
        for edge in sorted({edge for slot in self.slots for edge in view.edges(slot) if edge > after}):
            if bool(self.expression(view.at(edge))) != now:
                return edge
        return None

    def holds_since(self, view: View, now: int, member: bool) -> tuple[int | None, bool]:
        """From when the membership has been what it is now, as far as is known; None: always.

        Beside it whether that is certain: newer events may have displaced those that would tell.
        """
        if self.static:
            return None, True
        limit = now
        for _ in range(LOOK_BACK):
            edge = view.edge_before(self.slots, limit)
            if edge is None:
                return None, True
            limit = edge - 1
            before = view.at(limit)
            if not before.knows(self.slots):
                return edge, False
            if bool(self.expression(before)) != member:
                return edge, True
        return limit + 1, False


@dataclass(slots=True)
class Changes:
    """Changed memberships of an audience, not yet explained."""

    audience: Audience
    ordinals: Ordinals
    entered: Bools
    cause: str = ""
    """"fill" or "definition" when everybody was evaluated; empty: to be found."""


def by_sweep(changes: Iterable[Changes]) -> Iterator[Changes]:
    """Changes that were come upon while an audience starts: of those not yet looked at its start is the cause."""
    for change in changes:
        sweep = change.audience.sweep
        if sweep is None or change.cause:
            yield change
            continue
        is_ahead = sweep.is_ahead(change.ordinals)
        for some, cause in ((is_ahead, change.audience.cause), (~is_ahead, "")):
            if some.any():
                yield Changes(change.audience, change.ordinals[some], change.entered[some], cause)


class Explainer:
    """Makes flips of changes: since when, and why."""

    def __init__(
        self,
        people: People,
        candidates: Mapping[int, Sequence[Candidate | Note]],
        anew: Mapping[str, str],
        before: int,
        now: int,
        view: Callable[[int], View],
        past_of: Callable[[str, Past], Bools],
    ) -> None:
        self._people = people
        self._candidates = candidates
        self._anew = anew
        self._before = before
        self._now = now
        self._make_view = view
        self._past_of = past_of
        self._views: dict[int, View] = {}
        self._made: dict[int, list[Candidate]] = {}

    def flips(self, changes: Iterable[Changes]) -> list[Flip]:
        """The flips of changes; what is found out about a profile is shared by all of one evaluation."""
        if len(self._views) > REMEMBERED_VIEWS:
            self._views.clear()
            self._made.clear()
        flips: list[Flip] = []
        for change in changes:
            ordinals, entered = change.ordinals.tolist(), change.entered.tolist()
            if len(ordinals) >= MANY and all(isinstance(slot, PastSlot) for slot in change.audience.slots):
                found = holding_since(
                    change.audience.expression,
                    cast("Sequence[PastSlot]", change.audience.slots),
                    Past(change.ordinals, self._now, self._past_of),
                    change.entered,
                )
                flips += map(self._flip, repeat(change), ordinals, entered, *found)
                continue
            for ordinal, member in zip(ordinals, entered, strict=True):
                since, certain = change.audience.holds_since(self._view(ordinal), self._now, member)
                flips.append(self._flip(change, ordinal, member, since, certain))
        return flips

    def _candidates_of(self, ordinal: int) -> Sequence[Candidate]:
        notes = self._candidates.get(ordinal)
        if notes is None:
            return ()
        made = self._made.get(ordinal)
        if made is None:
            made = self._made[ordinal] = [candidate_of(note) for note in notes]
        return made

    def _view(self, ordinal: int) -> View:
        view = self._views.get(ordinal)
        if view is None:
            view = self._views[ordinal] = self._make_view(ordinal)
        return view

    def _flip(self, change: Changes, ordinal: int, entered: bool, since: int | None, certain: bool) -> Flip:
        audience = change.audience
        profile_id = self._people.ids[ordinal]
        if not self._people.alive[ordinal]:
            survivor = self._people.merged.get(profile_id, "")
            cause = self._anew.get(profile_id, "merge")
            return Flip(audience.id, profile_id, False, self._now, cause, merged_into=survivor)
        if since is None:
            certain = False
            since = min([self._now, *(candidate.time_us for candidate in self._candidates_of(ordinal))])
        if change.cause:
            return Flip(audience.id, profile_id, entered, since, change.cause)
        if profile_id in self._anew:
            return Flip(audience.id, profile_id, entered, since, self._anew[profile_id])
        candidate = self._cause(audience, self._candidates_of(ordinal), since, certain)
        if candidate is None:
            return Flip(audience.id, profile_id, entered, since, "time")
        if candidate.cause != "event":
            return Flip(audience.id, profile_id, entered, since, candidate.cause)
        return Flip(audience.id, profile_id, entered, since, "event", candidate.message_id, candidate.traceparent)

    def _cause(
        self, audience: Audience, candidates: Sequence[Candidate], since: int, certain: bool
    ) -> Candidate | None:
        """The newest event that took effect at that moment; when none did, the newest that can have mattered at all."""
        exact: Candidate | None = None
        any_: Candidate | None = None
        for candidate in candidates:
            reaches, is_exact = candidate.first, candidate.first and candidate.time_us == since
            for route in candidate.routes:
                delays = audience.delays(route)
                if delays:
                    reaches = True
                    is_exact = is_exact or any(_after(delay, candidate.time_us) == since for delay in delays)
            if reaches:
                any_ = _newer(any_, candidate)
            if is_exact:
                exact = _newer(exact, candidate)
        return exact if exact is not None or (certain and since > self._before) else any_


def _after(delay: Span | None, time_us: int) -> int:
    return time_us if delay is None else delay.passes(time_us)


def _newer(one: Candidate | None, two: Candidate) -> Candidate:
    if one is None or (two.time_us, two.message_id) > (one.time_us, one.message_id):
        return two
    return one
