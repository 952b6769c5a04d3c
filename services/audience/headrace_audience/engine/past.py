"""Since when conditions have held, for many profiles at once: what `View` and `Moment` do for one, with arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from headrace_audience.engine.people import NEVER, Bools, Ordinals, Times

LOOK_BACK = 64
"""So many edges back the beginning of a membership is looked for."""


class Past:
    """Profiles, each at a moment of its own that is not in the future."""

    def __init__(self, ordinals: Ordinals, moments: Times | int, audience: Callable[[str, Past], Bools]) -> None:
        self.ordinals = ordinals
        self.moments: Times = np.full(len(ordinals), moments) if isinstance(moments, int) else moments
        self.by_audience = audience
        self._truths: dict[int, Bools] = {}
        self._gathered: dict[int, npt.NDArray[Any]] = {}

    def leaf(self, slot: Any) -> Bools:
        """Truth of a slot at the moments."""
        truths = self._truths.get(id(slot))
        if truths is None:
            truths = self._truths[id(slot)] = slot.past_truths(self)
        return truths

    def gathered(self, thing: object, gather: Callable[[Ordinals], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What a column holds for the profiles."""
        values = self._gathered.get(id(thing))
        if values is None:
            values = self._gathered[id(thing)] = gather(self.ordinals)
        return values

    def earlier(self, which: Bools, moments: Times) -> Past:
        """Some of the profiles at other moments."""
        other = Past(self.ordinals[which], moments[which], self.by_audience)
        other._gathered = {key: values[which] for key, values in self._gathered.items()}
        return other


@runtime_checkable
class PastSlot(Protocol):
    """A slot that can look back for many profiles."""

    def past_truths(self, past: Past) -> Bools:
        """Truth at the moments, as far as is known."""
        ...

    def past_known(self, past: Past) -> Bools:
        """Whether the kept state still tells the truth at the moments."""
        ...

    def past_edges(self, past: Past) -> Times:
        """The last edges up to the moments; NEVER when there is none."""
        ...


def holding_since(
    expression: Callable[[Any], Any], slots: Sequence[PastSlot], past: Past, member: Bools
) -> tuple[list[int | None], list[bool]]:
    """From when memberships have been what they are at the moments of `past`; see Audience.holds_since()."""
    count = len(past.ordinals)
    since = np.full(count, NEVER, np.int64)
    certain = np.ones(count, np.bool_)
    places = np.arange(count)
    for turn in range(LOOK_BACK):
        edges = np.full(len(places), NEVER, np.int64)
        for slot in slots:
            np.maximum(edges, slot.past_edges(past), out=edges)
        some = edges != NEVER
        places, edges, member = places[some], edges[some], member[some]
        if not len(places):
            break
        past = past.earlier(some, _less_one(edges, some))
        known = np.ones(len(places), np.bool_)
        for slot in slots:
            known &= slot.past_known(past)
        ends = ~known | (expression(past) != member)
        if turn == LOOK_BACK - 1:
            known &= ends
            ends[:] = True
        since[places[ends]], certain[places[ends]] = edges[ends], known[ends]
        goes_on = ~ends
        places, member = places[goes_on], member[goes_on]
        past = past.earlier(goes_on, past.moments)
    return [None if edge == NEVER else edge for edge in since.tolist()], certain.tolist()


def _less_one(edges: Times, some: Bools) -> Times:
    """The moments just before edges, spread over the places of `some`."""
    moments = np.full(len(some), NEVER, np.int64)
    moments[some] = edges - 1
    return moments
