"""States: what must be kept of the events so that conditions can be answered exactly.

Several conditions share a state: "viewed in 90 days" and "viewed in 14 days" both need the newest view. A state has a
key, a text that describes it completely, equal for equal states in every process; the engine, snapshots and the batch
evaluator name states by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from headrace_audience.language.definition import (
    AudienceMember,
    Definition,
    EventCount,
    IdentifierExists,
    Leaf,
    Predicate,
    Test,
    TraitTest,
    walk,
)


@dataclass(frozen=True, slots=True)
class EventState:
    """The `keep` newest different events that match, with event times in [from_us, to_us].

    An event enters only when it is `delay_us` old, so that a window that ends in the past is a moving window too.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    keep: int
    from_us: int | None = None
    to_us: int | None = None
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class TraitState:
    """What a test makes of the newest value of a trait."""

    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class IdentifierState:
    """Whether an identifier of the namespace was seen."""

    namespace: str


State = EventState | TraitState | IdentifierState


def state_of(leaf: Leaf) -> State | None:
    """The state that answers a leaf; None when none is needed (another audience, a count that is always right)."""
    if isinstance(leaf, EventCount):
        keep = len(leaf.accept) - 1
        if keep == 0:
            return None
        window = leaf.window
        return EventState(leaf.names, leaf.where, keep, window.from_us, window.to_us, window.older_than_us)
    if isinstance(leaf, TraitTest):
        return TraitState(leaf.path, leaf.test)
    if isinstance(leaf, IdentifierExists):
        return IdentifierState(leaf.namespace)
    assert isinstance(leaf, AudienceMember)
    return None


def states_of(definition: Definition) -> dict[str, State]:
    """All states of a definition by key."""
    states = (state_of(leaf) for leaf in walk(definition.where))
    return {key_of(state): state for state in states if state is not None}


def _test_json(test: Test) -> list[Any]:
    return [test.op, list(test.values), test.ignore_case]


def _test(raw: list[Any]) -> Test:
    return Test(raw[0], tuple(raw[1]), raw[2])


def key_of(state: State) -> str:
    """The key of a state: compact JSON from which state_of_key() makes the state again."""
    raw: list[Any]
    if isinstance(state, EventState):
        where = [[list(p.path), _test_json(p.test)] for p in state.where]
        raw = ["event", list(state.names), where, state.keep, state.from_us, state.to_us, state.delay_us]
    elif isinstance(state, TraitState):
        raw = ["trait", list(state.path), _test_json(state.test)]
    else:
        raw = ["identifier", state.namespace]
    return json.dumps(raw, separators=(",", ":"))


def state_of_key(key: str) -> State:
    """The state of a key that key_of() made. Raises ValueError for other texts."""
    match json.loads(key):
        case ["event", names, where, keep, from_us, to_us, delay_us]:
            predicates = tuple(Predicate(tuple(path), _test(test)) for path, test in where)
            return EventState(tuple(names), predicates, keep, from_us, to_us, delay_us)
        case ["trait", path, test]:
            return TraitState(tuple(path), _test(test))
        case ["identifier", namespace]:
            return IdentifierState(namespace)
    raise ValueError(f"{key!r} is no key of a state")
