"""What conditions are evaluated in: whole arrays of profiles at one moment, or one profile at any moment.

Each different leaf is one slot, shared by all audiences. A compiled condition is a function of a frame that knows the
truth of slots: an array of truths per slot in the one case, a single truth in the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Ordinals, Times
from headrace_audience.engine.waiting import FutureItem


class Slot(Protocol):
    """A leaf, compiled."""

    moving: bool
    """Whether time alone can change it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The states that it reads."""
        ...

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
            if isinstance(slot, AudienceSlot):
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


def always(past: Past) -> Bools:
    """A slot is known at all moments."""
    return np.ones(len(past.ordinals), np.bool_)


def no_edges(past: Past) -> Times:
    """A slot does not change by itself."""
    return np.full(len(past.ordinals), NEVER, np.int64)


class ConstantSlot:
    """A count that is always right, or never."""

    keys = ()
    moving = False

    def __init__(self, value: bool) -> None:
        self._value = value

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        return np.full(len(frame.ordinals), self._value)

    def record(self, view: View) -> None:
        """See Slot."""
        return None

    def truth(self, record: Any, moment: int) -> bool:
        """See Slot."""
        return self._value

    def known(self, record: Any, moment: int) -> bool:
        """See Slot."""
        return True

    def edges(self, record: Any) -> Iterable[int]:
        """See Slot."""
        return ()

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        return np.full(len(past.ordinals), self._value)

    past_known = staticmethod(always)
    past_edges = staticmethod(no_edges)


class AudienceSlot:
    """Whether the profile is in another audience."""

    keys = ()
    moving = False

    def __init__(self, audience_id: str) -> None:
        self.audience_id = audience_id

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
        return frame.audience(self.audience_id)

    def record(self, view: View) -> None:
        """See Slot."""
        return None

    def truth(self, record: Any, moment: int) -> bool:
        """See Slot."""
        raise AssertionError("a Moment asks for the audience itself")

    def known(self, record: Any, moment: int) -> bool:
        """See Slot."""
        return True

    def edges(self, record: Any) -> Iterable[int]:
        """See Slot."""
        return ()

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        return past.by_audience(self.audience_id, past)

    past_known = staticmethod(always)
    past_edges = staticmethod(no_edges)
