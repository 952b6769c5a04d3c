"""What conditions on computed traits mean, once the definitions of the traits are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace.domain.computed_traits.definition import COUNT
from headrace.domain.computed_traits.definition import Definition as ComputedDefinition
from headrace.domain.definitions import TIME_OPS, Test
from headrace.domain.predicates import compile_test
from headrace_audience.language.counts import MAX_COUNT
from headrace_audience.language.definition import (
    EVER,
    All,
    Any_,
    ComputedTest,
    ComputedValue,
    Condition,
    Definition,
    EventCount,
    Members,
    Not,
    Window,
)
from headrace_audience.language.spans import Fixed


def bind(definition: Definition, computed: Mapping[str, ComputedDefinition]) -> Definition:
    """The definition with what each computed trait that it tests computes.

    Args:
        definition: An audience.
        computed: Definitions of computed traits by id; nobody has a value of one that is missing.
    """
    if not definition.computed_traits:
        return definition
    return replace(definition, where=_bound(definition.where, computed))


def _bound(condition: Condition, computed: Mapping[str, ComputedDefinition]) -> Condition:
    if isinstance(condition, All | Any_):
        return replace(condition, parts=tuple(_bound(part, computed) for part in condition.parts))
    if isinstance(condition, Not | Members):
        return replace(condition, part=_bound(condition.part, computed))
    if not isinstance(condition, ComputedTest):
        return condition
    trait = computed.get(condition.trait_id)
    if trait is None:
        return ComputedValue(condition.trait_id, (), (), EVER, COUNT, (), condition.test)
    window = EVER if trait.within_us is None else Window(within=Fixed(trait.within_us))
    return ComputedValue(
        condition.trait_id, trait.names, trait.where, window, trait.function, trait.path, condition.test
    )


def as_count(leaf: ComputedValue) -> EventCount | None:
    """The count of events that says the same as a test of a trait that counts; None when there is no such count.

    A number of the newest events is less to keep than all of them.
    """
    if not leaf.names:
        return EventCount((), (), EVER, (compile_test(leaf.test)(None),))
    if leaf.function != COUNT or _largest(leaf.test) > MAX_COUNT:
        return None
    passes = compile_test(leaf.test)
    # Of nobody's events there is no value, and from one more than the largest operand on all numbers are alike.
    accept = [passes(None), *(passes(number) for number in range(1, int(_largest(leaf.test)) + 2))]
    while len(accept) > 1 and accept[-1] == accept[-2]:
        accept.pop()
    return EventCount(leaf.names, leaf.where, leaf.window, tuple(accept))


def _largest(test: Test) -> float:
    """The largest number that a test compares with; 0 when there is none, and no number passes it or all do."""
    if test.op in TIME_OPS:
        return 0.0
    return max([0.0, *(v for v in test.values if isinstance(v, float))])
