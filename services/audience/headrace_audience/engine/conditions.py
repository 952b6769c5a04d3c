"""States: what must be kept of the events so that conditions can be answered exactly.

Several conditions share a state: "viewed in 90 days" and "viewed in 14 days" both need the newest view. A state has a
key, a text that describes it completely, equal for equal states in every process; the engine, snapshots and the batch
evaluator name states by it. Which condition needs which is in state_of().

| state | keeps of a person | answers |
| --- | --- | --- |
| EventState | times and ids of the newest n matching events | counts; last time |
| FirstState | the time of the first event | first time |
| ListState | all matching events of a span, and the newest before it, with values | the rest |
| ListState that chooses | the one event with the first, last, least or greatest value | such values of all time |
| AttributeState | who wrote last, or first, and what a test makes of the value | traits, consents, touches |
| IdentifierState | when it was first seen | identifiers |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from headrace.domain.computed_traits.definition import COUNT
from headrace.domain.definitions import Predicate, Test
from headrace_audience.engine.touches import TOUCH_RULES
from headrace_audience.language.computed import as_count
from headrace_audience.language.definition import (
    Aggregate,
    AudienceMember,
    ComputedValue,
    ConsentTest,
    DatedCount,
    Definition,
    EventCount,
    FirstTime,
    IdentifierExists,
    InOrder,
    LastTime,
    Leaf,
    Regularly,
    Restarted,
    TouchTest,
    TraitTest,
    walk,
)
from headrace_audience.language.spans import Calendar, Fixed, Span

TRAIT, CONSENT, FIRST_TOUCH, LAST_TOUCH = "trait", "consent", "first_touch", "last_touch"
"""What events write: kinds of AttributeState. Of FIRST_TOUCH the first write counts, of the others the last."""

FIRST, LAST, LEAST, GREATEST = "first", "last", "min", "max"
CHOOSING = (FIRST, LAST, LEAST, GREATEST)
"""Functions whose value is that of one event; of events of all time, no other is kept."""

AMOUNT, IDENTITY, MATCH, MOMENT, NUMBER, SCALAR = "amount", "identity", "match", "moment", "number", "scalar"


@dataclass(frozen=True, slots=True)
class EventState:
    """The `keep` newest different events that match, with event times in [from_us, to_us].

    An event enters only when the span `delay` has passed over it, so that a window that ends in the past is a moving
    window too.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    keep: int
    from_us: int | None = None
    to_us: int | None = None
    delay: Span | None = None


@dataclass(frozen=True, slots=True)
class FirstState:
    """The time of the first event of these names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that is kept of each event of a list.

    Attributes:
        kind: AMOUNT: the number at `path`, as an amount. IDENTITY: a number that stands for the value at `path`, equal
            for equal values. MATCH: whether the event passes `where`. MOMENT: the time that the text at `path` says.
            SCALAR: the value at `path` in the form in which computed traits count it. NUMBER: the same, when it is one.
        path: Path of the property.
        where: Predicates.
    """

    kind: str
    path: tuple[str, ...] = ()
    where: tuple[Predicate, ...] = ()


@dataclass(frozen=True, slots=True)
class ListState:
    """All different events that match, with times in [from_us, to_us] and within `span`, and the newest before it.

    `span` None means ever. `values` are kept of each.

    With `chosen`, one of CHOOSING, of the events up to now only the one is kept whose value, `values[0]`, is the first,
    the last, the least or the greatest; those without a value do not count.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    values: tuple[Kept, ...] = ()
    span: Span | None = None
    from_us: int | None = None
    to_us: int | None = None
    chosen: str = ""


@dataclass(frozen=True, slots=True)
class AttributeState:
    """What a test makes of the value of something that events write: `kind` is TRAIT, CONSENT, FIRST_TOUCH, LAST_TOUCH.

    The value is that of the last write by (time, message id), of FIRST_TOUCH that of the first. `rules` says by which
    rules a touch was found in an event, so that a state of earlier ones is another state; empty for the others.
    """

    kind: str
    path: tuple[str, ...]
    test: Test
    rules: str = ""


@dataclass(frozen=True, slots=True)
class IdentifierState:
    """Whether an identifier of the namespace was seen."""

    namespace: str


State = EventState | FirstState | ListState | AttributeState | IdentifierState


def state_of(leaf: Leaf) -> tuple[State, ...]:
    """The states that answer a leaf; none for another audience, and for a count that is always right."""
    if isinstance(leaf, EventCount):
        keep = len(leaf.accept) - 1
        window = leaf.window
        state = EventState(leaf.names, leaf.where, keep, window.from_us, window.to_us, window.older_than)
        return (state,) if keep else ()
    if isinstance(leaf, FirstTime):
        return (FirstState(leaf.names),)
    if isinstance(leaf, LastTime):
        if not leaf.where:
            return (EventState(leaf.names, (), 1),)
        return (ListState(leaf.names, (), (Kept(MATCH, where=leaf.where),), Fixed(0)),)
    if isinstance(leaf, Aggregate):
        kept = Kept(IDENTITY if leaf.function == "distinct" else AMOUNT, leaf.path)
        window = leaf.window
        chosen = leaf.function if leaf.function in CHOOSING and not window.moves else ""
        return (ListState(leaf.names, leaf.where, (kept,), window.within, window.from_us, window.to_us, chosen),)
    if isinstance(leaf, ComputedValue):
        return _states_of_computed(leaf)
    if isinstance(leaf, DatedCount):
        dates = tuple(Kept(MOMENT, predicate.path) for predicate in leaf.dated)
        window = leaf.window
        return (ListState(leaf.names, leaf.where, dates, window.within, window.from_us, window.to_us),)
    if isinstance(leaf, Restarted):
        return (ListState(leaf.names, (), (), leaf.gone_since),)
    if isinstance(leaf, Regularly):
        return (ListState(leaf.names, (), (), Fixed(leaf.periods * leaf.period_us)),)
    if isinstance(leaf, InOrder):
        return _states_of_steps(leaf)
    if isinstance(leaf, TraitTest):
        return (AttributeState(TRAIT, leaf.path, leaf.test),)
    if isinstance(leaf, ConsentTest):
        return (AttributeState(CONSENT, (leaf.purpose,), leaf.test),)
    if isinstance(leaf, TouchTest):
        kind = FIRST_TOUCH if leaf.which == "first" else LAST_TOUCH
        return (AttributeState(kind, leaf.path, leaf.test, TOUCH_RULES),)
    if isinstance(leaf, IdentifierExists):
        return (IdentifierState(leaf.namespace),)
    assert isinstance(leaf, AudienceMember)
    return ()


def _states_of_computed(leaf: ComputedValue) -> tuple[State, ...]:
    count = as_count(leaf)
    if count is not None:
        return state_of(count)
    if leaf.function == COUNT:
        return (ListState(leaf.names, leaf.where, (), leaf.window.within),)
    chosen = leaf.function if leaf.function in CHOOSING and not leaf.window.moves else ""
    kind = NUMBER if chosen in (LEAST, GREATEST) else SCALAR
    return (ListState(leaf.names, leaf.where, (Kept(kind, leaf.path),), leaf.window.within, chosen=chosen),)


def _states_of_steps(leaf: InOrder) -> tuple[ListState, ...]:
    """One list for each step, with the values that it and the steps after it compare."""
    window = leaf.window
    states: list[ListState] = []
    for number, step in enumerate(leaf.steps):
        paths = dict.fromkeys(step.same)
        for later in leaf.steps[number + 1 :]:
            paths |= dict.fromkeys(later.same)
            if not later.negated:
                break
        values = tuple(Kept(IDENTITY, path) for path in sorted(paths))
        # A negated step may come after a fixed window.
        to_us = None if step.negated else window.to_us
        states.append(ListState(step.names, step.where, values, window.within, window.from_us, to_us))
    return tuple(states)


def states_of(definition: Definition) -> dict[str, State]:
    """All states of a definition by key."""
    return {key_of(state): state for leaf in walk(definition.where) for state in state_of(leaf)}


def key_of(state: State) -> str:
    """The key of a state: compact JSON from which state_of_key() makes the state again."""
    raw: list[Any]
    if isinstance(state, EventState):
        bounds = [state.from_us, state.to_us, _span_json(state.delay)]
        raw = ["event", list(state.names), _where_json(state.where), state.keep, *bounds]
    elif isinstance(state, FirstState):
        raw = ["first", list(state.names)]
    elif isinstance(state, ListState):
        values = [[kept.kind, list(kept.path), _where_json(kept.where)] for kept in state.values]
        bounds = [_span_json(state.span), state.from_us, state.to_us]
        raw = ["list", list(state.names), _where_json(state.where), values, *bounds]
        raw += [state.chosen] if state.chosen else []
    elif isinstance(state, AttributeState):
        raw = [state.kind, list(state.path), _test_json(state.test), *([state.rules] if state.rules else [])]
    else:
        raw = ["identifier", state.namespace]
    return json.dumps(raw, separators=(",", ":"))


def state_of_key(key: str) -> State:
    """The state of a key that key_of() made. Raises ValueError for other texts."""
    match json.loads(key):
        case ["event", names, where, keep, from_us, to_us, delay]:
            return EventState(tuple(names), _where(where), keep, from_us, to_us, _span(delay))
        case ["first", names]:
            return FirstState(tuple(names))
        case ["list", names, where, values, span, from_us, to_us, *chosen]:
            kept = tuple(Kept(kind, tuple(path), _where(tests)) for kind, path, tests in values)
            return ListState(tuple(names), _where(where), kept, _span(span), from_us, to_us, *chosen)
        case ["trait" | "consent" | "first_touch" | "last_touch" as kind, path, test, *rules]:
            return AttributeState(kind, tuple(path), _test(test), *rules)
        case ["identifier", namespace]:
            return IdentifierState(namespace)
    raise ValueError(f"{key!r} is no key of a state")


def _where_json(where: tuple[Predicate, ...]) -> list[Any]:
    return [[list(p.path), _test_json(p.test)] for p in where]


def _where(raw: list[Any]) -> tuple[Predicate, ...]:
    return tuple(Predicate(tuple(path), _test(test)) for path, test in raw)


def _test_json(test: Test) -> list[Any]:
    return [test.op, list(test.values), test.ignore_case]


def _test(raw: list[Any]) -> Test:
    return Test(raw[0], tuple(raw[1]), raw[2])


def _span_json(span: Span | None) -> Any:
    if isinstance(span, Calendar):
        return [span.days, span.zone]
    return None if span is None else span.us


def _span(raw: Any) -> Span | None:
    if isinstance(raw, list):
        return Calendar(*raw)
    return None if raw is None else Fixed(raw)
