"""Conditions on computed traits: what they mean, and cases worked by hand, by every evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from headrace_audience.engine.conditions import EventState, ListState, key_of, state_of, state_of_key
from headrace_audience.language.computed import as_count, bind
from headrace_audience.language.definition import ComputedValue, Members
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.evaluate import ENGINES, evaluate
from headrace_audience.offline.facts import Fact

from headrace.domain.computed_traits.definition import parse_definition as parse_computed
from headrace.domain.definitions import DefinitionError
from headrace.domain.times import SECOND_US, format_time_us
from tests.support.audience_histories import START

DAY = 24 * 3600 * SECOND_US
SUM_3D: Mapping[str, Any] = {"event": "Purchased", "within": "3d", "compute": {"sum": "value"}}
BIG = 2**53


def bound(test: Mapping[str, Any], trait: Mapping[str, Any] | None) -> ComputedValue:
    computed = {"t": parse_computed(trait)} if trait else {}
    where = bind(parse_definition({"where": {"computed": "t", **test}}), computed).where
    assert isinstance(where, ComputedValue)
    return where


def purchases(*values: Any) -> list[Fact]:
    """Of one person, one a day, the first at START."""
    return [
        Fact("p", START + day * DAY, f"m{day}", name="Purchased", properties={"value": value})
        for day, value in enumerate(values)
    ]


def members(test: Mapping[str, Any], trait: Mapping[str, Any], facts: list[Fact], at_us: int) -> list[dict[str, Any]]:
    """The members, on whom all evaluators agree."""
    definition = bind(parse_definition({"where": {"computed": "t", **test}}), {"t": parse_computed(trait)})
    answer = evaluate(definition, facts, at_us, engines=ENGINES)
    assert answer["mismatches"] == []
    found: list[dict[str, Any]] = answer["members"]
    return found


def test_a_window_is_left_at_its_moment() -> None:
    """100 on day 0 and 400 on day 2: 500 from day 2 on, until day 0 is three days ago."""
    facts = purchases(100, "no number", 400)
    assert members({"gte": 500}, SUM_3D, facts, START + 2 * DAY - 1) == []
    (member,) = members({"gte": 500}, SUM_3D, facts, START + 2 * DAY)
    assert member["since"] == format_time_us(START + 2 * DAY)
    assert member["leaves_at"] == format_time_us(START + 3 * DAY)
    assert members({"gte": 500}, SUM_3D, facts, START + 3 * DAY) == []


@pytest.mark.parametrize(
    ("compute", "values", "test", "holds"),
    [
        ("count", (1, 2), {"eq": 2}, True),
        ("count", (1, 2), {"lt": 2}, False),
        ({"sum": "value"}, (0.1, 0.2), {"eq": 0.3}, True),
        ({"sum": "value"}, (1e300, 1, -1e300), {"eq": 1}, True),
        ({"sum": "value"}, (BIG, 1), {"gt": BIG}, False),  # the nearest double of 2^53 + 1 is 2^53
        ({"sum": "value"}, (BIG, 1, 1), {"gt": BIG}, True),
        ({"sum": "value"}, (1.7e308, 1.7e308), {"gt": 1}, False),  # there is no double so large
        ({"sum": "value"}, (1.7e308, 1.7e308), {"exists": True}, True),
        ({"avg": "value"}, (0.1, 0.2, 0.3), {"eq": 0.2}, True),
        ({"avg": "value"}, (1, 2, 2), {"between": [1.66, 1.67]}, True),
        ({"min": "value"}, (3, "0", True, 2.5), {"eq": 2.5}, True),
        ({"max": "value"}, (3, None, 2.5), {"in": [3, 4]}, True),
        ({"first": "value"}, ([], "x" * 501, "basic", "pro"), {"eq": "basic"}, True),
        ({"last": "value"}, ("basic", "pro", None), {"starts_with": "PR", "ignore_case": True}, True),
        ({"most_frequent": "value"}, ("b", "a", "b", "a"), {"eq": "a"}, True),
        ({"most_frequent": "value"}, (BIG, BIG + 1, 7), {"eq": 7}, True),  # three different values
        ({"most_frequent": "value"}, (7, 10**23, 1e23), {"eq": 1e23}, True),
        ({"unique_list": "value"}, ("a", 1, True), {"contains": 1.0}, True),
        ({"unique_list": "value"}, ("a", 1, True), {"contains": "1"}, False),
        ({"unique_list": "value"}, ("a", 1, True), {"not_contains": "1"}, True),
    ],
)
def test_values(compute: Any, values: tuple[Any, ...], test: dict[str, Any], *, holds: bool) -> None:
    found = members(test, {"event": "Purchased", "compute": compute}, purchases(*values), START + 10 * DAY)
    assert bool(found) is holds


@pytest.mark.parametrize("compute", ["count", {"sum": "value"}, {"last": "value"}, {"unique_list": "value"}])
def test_who_has_no_value_passes_only_negations(compute: Any) -> None:
    facts = [Fact("p", START, "m", name="Other")]
    trait = {"event": "Purchased", "compute": compute}
    for test in ({"lt": 3}, {"eq": 0}, {"exists": True}, {"not_contains": "a"}, {"between": [0, 9]}):
        assert members(test, trait, facts, START) == []
    for test in ({"neq": 0}, {"not_in": [0, 1]}, {"exists": False}):
        assert [m["profile"] for m in members(test, trait, facts, START)] == ["p"]


def test_of_a_trait_that_does_not_exist_nobody_has_a_value() -> None:
    for test, holds in (({"gte": 0}, False), ({"exists": False}, True)):
        definition = bind(parse_definition({"where": {"computed": "t", **test}}), {})
        answer = evaluate(definition, purchases(1), START, engines=ENGINES)
        assert (len(answer["members"]), answer["mismatches"]) == (int(holds), [])


def test_a_count_keeps_as_many_events_as_it_compares_with() -> None:
    trait = {"event": "Purchased", "compute": "count"}
    for test, keep in (({"gte": 3}, 3), ({"lt": 3}, 3), ({"in": [1, 4]}, 5), ({"gt": -3}, 1), ({"lt": 2.5}, 3)):
        (state,) = state_of(bound(test, trait))
        assert isinstance(state, EventState)
        assert state.keep == keep
    for never in ({"before": "2026-01-01"}, {"eq": "many"}, {"gt": -3.5}):
        assert (count := as_count(bound(never, trait))) is not None
        assert not count.accept[0]
    (state,) = state_of(bound({"gte": 20_000}, trait))
    assert isinstance(state, ListState)
    assert state.values == ()


def test_conditions_on_one_property_share_what_is_kept() -> None:
    of_sum, of_last = (bound({"exists": True}, {**SUM_3D, "compute": {f: "value"}}) for f in ("sum", "last"))
    assert state_of(of_sum) == state_of(of_last)
    (state,) = state_of(of_sum)
    assert state_of_key(key_of(state)) == state


def test_everything_is_bound_wherever_it_stands() -> None:
    test = {"computed": "t", "gte": 1}
    definition = parse_definition({"where": {"all": [{"not": test}, {"any": [test, {"event": "A"}]}]}})
    assert definition.computed_traits == {"t"}
    assert "ComputedTest" not in repr(bind(definition, {}))
    groups = parse_definition({"of": "groups", "where": {"members": "any", "where": test}})
    assert groups.computed_traits == {"t"}
    inside = bind(groups, {"t": parse_computed(SUM_3D)}).where
    assert isinstance(inside, Members)
    assert isinstance(inside.part, ComputedValue)


def test_an_explanation_shows_the_value() -> None:
    raw = {"where": {"computed": "t", "gte": 500}}
    definition = bind(parse_definition(raw), {"t": parse_computed(SUM_3D)})
    answer = evaluate(definition, purchases(0.5, 400), START + 2 * DAY, explain_profile="p", source=raw)
    found = answer["explanation"]["condition"]
    assert (found["kind"], found["computed"], found["value"], found["counted"]) == ("computed", "t", 400.5, 2)
    assert [event["message_id"] for event in found["events"]] == ["m1", "m0"]


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ({"computed": "t"}, "where: has no comparison"),
        ({"computed": "", "gte": 1}, "where.computed: must be a text that is not empty"),
        ({"computed": "t", "gte": "5"}, "where.gte: must be a number"),
        ({"computed": "t", "in_last": "5d"}, 'where.in_last: "in_last" does not go with computed traits'),
        ({"computed": "t", "gte": 1, "within": "3d"}, "where.within: unknown key 'within'"),
    ],
)
def test_wrong_conditions_are_refused_by_their_place(condition: dict[str, Any], error: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse_definition({"where": condition})
    assert str(raised.value).startswith(error)
