"""Slots of conditions on what events write: traits, consents and touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from headrace.api.common.v1.event_pb2 import Event
from headrace_audience.engine.conditions import CONSENT, FIRST_TOUCH, LAST_TOUCH, TRAIT, AttributeState
from headrace_audience.engine.frames import Frame, View, always
from headrace_audience.engine.past import Past
from headrace_audience.engine.people import FOREVER, NEVER, Bools, Times
from headrace_audience.engine.states import TraitRoute
from headrace_audience.engine.touches import touch_of
from headrace_audience.engine.traits import consents_of, decoded_traits
from headrace_audience.engine.waiting import TraitWrite

WRITES: Mapping[str, Callable[[Event], Mapping[str, Any]]] = {
    TRAIT: decoded_traits,
    CONSENT: consents_of,
    FIRST_TOUCH: touch_of,
    LAST_TOUCH: touch_of,
}
"""What an event writes, by kind."""


class TraitSlot:
    """A test of the value of a trait or the like."""

    def __init__(self, key: str, state: AttributeState, route: TraitRoute) -> None:
        self.keys = (key,)
        self._route = route
        self._column = route.column
        self._reading = route.column.readings[key]
        self._op = state.test.op
        self.moving = self._reading.moving
        self._span = int(cast("float", state.test.values[0])) if self.moving else 0

    def truths(self, frame: Frame) -> Bools:
        """See Slot."""
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
        """See Slot."""
        writes: list[tuple[int, str, int]] = []
        written = self._column.written(view.ordinal)
        if written is not None:
            writes.append((*written, int(self._reading.codes[self._column.rows.of[view.ordinal]])))
        for item in view.waiting:
            content = item.content
            if isinstance(content, TraitWrite):
                if (content.kind, content.name) == (self._route.kind, self._route.name):
                    writes.append((item.time_us, item.message_id, self._reading.code(content.value)))
            else:
                found = WRITES[self._route.kind](content.event)
                if self._route.name in found:
                    writes.append((item.time_us, item.message_id, self._reading.code(found[self._route.name])))
        writes.sort()
        return written is not None, writes[:1] if self._column.first else writes

    def truth(self, record: tuple[bool, list[tuple[int, str, int]]], moment: int) -> bool:
        """See Slot."""
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
        """See Slot."""
        return self._column.first or not record[0] or moment >= record[1][0][0]

    def edges(self, record: tuple[bool, list[tuple[int, str, int]]]) -> Iterable[int]:
        """See Slot."""
        for time, _, code in record[1]:
            yield time
            if self.moving and code != NEVER:
                yield code
                yield code + self._span if self._op == "in_last" else code - self._span

    def _rows(self, past: Past) -> npt.NDArray[Any]:
        return past.gathered(self._column, self._column.rows.of.__getitem__)

    def past_truths(self, past: Past) -> Bools:
        """See PastSlot."""
        rows = self._rows(past)
        codes = self._reading.codes[rows]
        if self._column.first:
            codes = np.where(self._column.times_at(rows) <= past.moments, codes, self._reading.empty).astype(
                codes.dtype
            )
        if not self.moving:
            return cast("Bools", codes.view(np.bool_))
        first, last = (codes, codes + self._span) if self._op == "in_last" else (codes - self._span, codes)
        return cast("Bools", (codes != NEVER) & (first <= past.moments) & (past.moments < last))

    def past_known(self, past: Past) -> Bools:
        """See PastSlot."""
        if self._column.first:
            return always(past)
        return self._column.times_at(self._rows(past)) <= past.moments

    def past_edges(self, past: Past) -> Times:
        """See PastSlot."""
        rows = self._rows(past)
        written = self._column.times_at(rows)
        edges = np.where(written <= past.moments, written, NEVER)
        if self.moving:
            codes = self._reading.codes[rows]
            for span in (0, self._span if self._op == "in_last" else -self._span):
                passed = (codes != NEVER) & (codes + span <= past.moments)
                np.maximum(edges, np.where(passed, codes + span, NEVER), out=edges)
        return edges
