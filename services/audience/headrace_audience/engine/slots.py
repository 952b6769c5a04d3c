"""Definitions compiled: one slot for each different leaf, and an expression for each condition over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace_audience.engine.columns import NarrowColumn
from headrace_audience.engine.conditions import AttributeState, ListState, key_of, state_of
from headrace_audience.engine.event_slots import EventSlot, FirstTimeSlot, IdentifierSlot, LastTimeSlot, NarrowEventSlot
from headrace_audience.engine.frames import AudienceSlot, ConstantSlot, Slot
from headrace_audience.engine.list_slots import ListSlot, rule_of
from headrace_audience.engine.states import States
from headrace_audience.engine.trait_slots import TraitSlot
from headrace_audience.language.computed import as_count
from headrace_audience.language.definition import (
    All,
    Any_,
    AudienceMember,
    ComputedValue,
    Condition,
    EventCount,
    FirstTime,
    IdentifierExists,
    LastTime,
    Leaf,
    Not,
)

Expression = Callable[[Any], Any]


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
            return AudienceSlot(leaf.audience_id)
        count = as_count(leaf) if isinstance(leaf, ComputedValue) else None
        if count is not None:
            return self._make(count)
        needed = state_of(leaf)
        if not needed:
            assert isinstance(leaf, EventCount)
            return ConstantSlot(leaf.accept[0])
        states = self._states
        keys = [key_of(state) for state in needed]
        key, state = keys[0], needed[0]
        if isinstance(leaf, IdentifierExists):
            return IdentifierSlot(leaf, key, states.identifiers[leaf.namespace])
        if isinstance(state, AttributeState):
            return TraitSlot(key, state, states.attributes[state.kind, state.path[0]])
        if isinstance(state, ListState):
            return ListSlot(rule_of(leaf), [(states.lists[k], states.group_of(k)) for k in keys])
        if isinstance(leaf, FirstTime):
            return FirstTimeSlot(leaf, states.firsts[key], states.group_of(key))
        route = states.events[key]
        if isinstance(leaf, LastTime):
            return LastTimeSlot(leaf, key, route, states.group_of(key))
        assert isinstance(leaf, EventCount)
        slot = NarrowEventSlot if isinstance(route.column, NarrowColumn) else EventSlot
        return slot(leaf, key, route, states.group_of(key))


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
