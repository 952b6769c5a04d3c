"""One audience inside the engine, and what its flips say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace_audience.compiled import Expression, Moment, Slot, View
from headrace_audience.definition import Definition, Leaf
from headrace_audience.people import Bools, Ordinals, People
from headrace_audience.states import Candidate, Group

LOOK_BACK = 64
"""So many edges back the beginning of a membership is looked for."""

TruthAt = Callable[[str, Moment], bool]


@dataclass(frozen=True, slots=True)
class Flip:
    """One change of one membership."""

    audience_id: str
    profile_id: str
    member: bool
    """True: entered. False: left."""
    effective_at_us: int
    """The moment from which it holds: the time of the causing event, or the edge of a window."""
    cause: str
    """"event", "time", "merge", "fill" or "definition"."""
    message_id: str = ""
    """The causing event, when an event did it."""
    traceparent: str = ""
    """Trace context of the causing event."""
    merged_into: str = ""
    """The survivor, when the profile left because it was merged."""


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

    @property
    def static(self) -> bool:
        """Whether its members are set from outside."""
        return self.definition.kind == "static"

    def edges(self, view: View) -> set[int]:
        """All moments at which the membership of a profile may change."""
        return {edge for slot in self.slots for edge in slot.edges(view.record(slot))}

    def next_change(self, view: View, after: int, truth_at: TruthAt) -> int | None:
        """The first moment after another at which the membership is a different one; None: never."""
        now = bool(self.expression(Moment(view, after, truth_at)))
        for edge in sorted(edge for edge in self.edges(view) if edge > after):
            if bool(self.expression(Moment(view, edge, truth_at))) != now:
                return edge
        return None

    def holds_since(self, view: View, now: int, truth_at: TruthAt) -> tuple[int | None, bool]:
        """From when the membership has been what it is now, as far as is known; None: always.

        Beside it whether that is certain: newer events may have displaced those that would tell.
        """
        if self.static:
            return None, True
        truth = bool(self.expression(Moment(view, now, truth_at)))
        edges = sorted((edge for edge in self.edges(view) if edge <= now), reverse=True)
        for edge in edges[:LOOK_BACK]:
            before = edge - 1
            if not all(slot.known(view.record(slot), before) for slot in self.slots):
                return edge, False
            if bool(self.expression(Moment(view, before, truth_at))) != truth:
                return edge, True
        return (edges[LOOK_BACK - 1], False) if len(edges) > LOOK_BACK else (None, True)


@dataclass(slots=True)
class Changes:
    """Changed memberships of an audience, not yet explained."""

    audience: Audience
    ordinals: Ordinals
    entered: Bools
    cause: str = ""
    """"fill" or "definition" when everybody was evaluated; empty: to be found."""


class Explainer:
    """Makes flips of changes: since when, and why."""

    def __init__(
        self,
        people: People,
        candidates: Mapping[int, Sequence[Candidate]],
        before: int,
        now: int,
        view: Callable[[int], View],
        truth_at: TruthAt,
    ) -> None:
        self._people = people
        self._candidates = candidates
        self._before = before
        self._now = now
        self._view = view
        self._truth_at = truth_at

    def flips(self, changes: Iterable[Changes]) -> list[Flip]:
        """The flips, ordered by moment, audience and profile."""
        flips = [
            self._flip(change, ordinal, entered)
            for change in changes
            for ordinal, entered in zip(change.ordinals.tolist(), change.entered.tolist(), strict=True)
        ]
        flips.sort(key=lambda flip: (flip.effective_at_us, flip.audience_id, flip.profile_id))
        return flips

    def _flip(self, change: Changes, ordinal: int, entered: bool) -> Flip:
        audience = change.audience
        profile_id = self._people.ids[ordinal]
        if not self._people.alive[ordinal]:
            survivor = self._people.merged[profile_id]
            return Flip(audience.id, profile_id, False, self._now, "merge", merged_into=survivor)
        since, certain = audience.holds_since(self._view(ordinal), self._now, self._truth_at)
        candidates = self._candidates.get(ordinal, ())
        if since is None:
            certain = False
            since = min([self._now, *(candidate.time_us for candidate in candidates)])
        if change.cause:
            return Flip(audience.id, profile_id, entered, since, change.cause)
        candidate = self._cause(audience, candidates, since, certain)
        if candidate is None:
            return Flip(audience.id, profile_id, entered, since, "time")
        if candidate.cause != "event":
            return Flip(audience.id, profile_id, entered, since, candidate.cause)
        return Flip(audience.id, profile_id, entered, since, "event", candidate.message_id, candidate.traceparent)

    def _cause(
        self, audience: Audience, candidates: Sequence[Candidate], since: int, certain: bool
    ) -> Candidate | None:
        relevant = [c for c in candidates if _counts_from(audience, c)]
        exact = [c for c in relevant if since in _counts_from(audience, c)]
        if not exact and certain and since > self._before:
            return None
        return max(exact or relevant, key=lambda c: (c.time_us, c.message_id), default=None)


def _counts_from(audience: Audience, candidate: Candidate) -> set[int]:
    """The moments from which a new event may have changed an audience; none when it cannot have."""
    moments = {candidate.time_us} if candidate.first else set()
    for route in candidate.routes:
        for key in route.keys:
            if key in audience.keys:
                delay = route.routes[key].state.delay_us if isinstance(route, Group) else 0
                moments.add(candidate.time_us + delay)
    return moments
