"""Conditions on computed traits: three evaluators, at every moment, on values that are hard to count.

Many people are asked at once, so that each statement is tried on many histories.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import duckdb
import pytest
from headrace_audience.batch import queries
from headrace_audience.engine.conditions import CHOOSING, ListState, key_of, state_of, state_of_key
from headrace_audience.engine.engine import PROFILES, Engine
from headrace_audience.engine.list_columns import Event, ListRoute
from headrace_audience.engine.list_slots import rule_of
from headrace_audience.engine.people import FOREVER, NEVER
from headrace_audience.language.computed import bind
from headrace_audience.language.definition import ComputedValue, Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact, resolved_of, table_of
from headrace_audience.offline.reference import Reference
from headrace_audience.offline.reference_events import matches
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.computed_traits.definition import PROPERTY_FUNCTIONS
from headrace.domain.computed_traits.definition import parse_definition as parse_computed
from headrace.domain.times import SECOND_US
from tests.support.audience_histories import START

PLAIN = (0, 1, 2, 0.1, 0.2, 0.3, 19.99, -3)
"""0.1 + 0.2 is 0.3."""
HARD = (-0.0, 0.30000000000000004, 1e-7, 2**53, 2**53 + 1, 2.0**53, 10**23, 1e23, 1e300, 1.7e308, -1e-300)
"""Integers are no doubles."""
TEXTS = ("a", "B", "b", "é", "😀", "", "0.3", "x" * 500)
OTHERS: tuple[Any, ...] = (True, False, "x" * 501, 10**400, [], ["a"], {}, None)
PEOPLE = [f"p{number:02d}" for number in range(30)]
seeds = st.integers(0, 2**32).map(Random)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        yield connection


def comparison(r: Random, values: tuple[Any, ...]) -> dict[str, Any]:
    op = r.choice(("eq", "neq", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "not_contains", "exists"))
    if op == "exists":
        return {op: r.random() < 0.5}
    if op in ("gt", "gte", "lt", "lte"):
        return {op: r.choice((*PLAIN, *HARD))}
    wanted = r.choice(values)
    return {op: [wanted, 1]} if op in ("in", "not_in") else {op: wanted}


def values_of(r: Random) -> tuple[Any, ...]:
    """Few different values, so that some are equal."""
    kinds = (PLAIN, PLAIN, HARD, HARD, TEXTS, OTHERS)
    return tuple(value for _ in range(2) for value in r.choices(r.choice(kinds), k=2))


def history(r: Random, values: tuple[Any, ...]) -> list[Fact]:
    return [
        Fact(person, START + r.randint(0, 5) * SECOND_US, f"{person}-{n}", name=r.choice("AAB"), properties=properties)
        for person in PEOPLE
        for n in range(r.randint(0, 7))
        for properties in ({"v": r.choice(values)},)
    ]


def some_condition(r: Random) -> tuple[ComputedValue, list[Fact]]:
    return condition_on(r, r.choice(("count", *PROPERTY_FUNCTIONS)), r.choice(({}, {"within": "3s"})))


def condition_on(r: Random, function: str, window: dict[str, str]) -> tuple[ComputedValue, list[Fact]]:
    values = values_of(r)
    trait = {"event": "A", "compute": function if function == "count" else {function: "v"}}
    operands = tuple(v for v in values if isinstance(v, str | int | float) and v != 10**400) or (1,)
    test = {"lt": 10_001} if function == "count" else comparison(r, operands)
    bound = bind(parse_definition({"where": {"computed": "t", **test}}), {"t": parse_computed({**trait, **window})})
    assert isinstance(bound.where, ComputedValue)
    return bound.where, history(r, values)


@settings(max_examples=30, deadline=None)
@given(r=seeds)
def test_sql_says_what_the_reference_says(connection: duckdb.DuckDBPyConnection, r: Random) -> None:
    leaf, facts = some_condition(r)
    definition, reference = Definition("dynamic", leaf), Reference(facts)
    connection.register("events", table_of(facts))
    at_us = START + r.randint(0, 8) * SECOND_US
    assert queries.evaluate(connection, definition, at_us) == reference.members(definition, at_us)
    assert queries.outlook(connection, definition, at_us, profiles=reference.profiles) == [
        queries.Outlook(
            person,
            reference.holds(leaf, person, at_us),
            reference.since(definition, person, at_us),
            reference.next_change(definition, person, at_us),
        )
        for person in reference.profiles
    ]


@settings(max_examples=40, deadline=None)
@given(r=seeds)
def test_the_rule_says_at_every_moment_what_the_reference_says(r: Random) -> None:
    leaf, facts = some_condition(r)
    (state,) = state_of(leaf)
    assert isinstance(state, ListState)
    assert state_of_key(key_of(state)) == state
    rule, reference = rule_of(leaf), Reference(facts)
    route = ListRoute("", state)
    for person in reference.profiles:
        found: list[Event] = sorted(
            route.event(fact.timestamp_us, fact.message_id, fact.properties)
            for fact in facts
            if fact.profile == person and matches(fact, state.names, state.where)
        )
        moments = sorted({m + d for m in reference.edges(leaf, person) for d in (-1, 0, 1)})
        truths = [rule.holds([found], moment) for moment in moments]
        assert truths == [reference.holds(leaf, person, moment) for moment in moments]
        edges = set(rule.edges([found]))
        assert {m for m, now, before in zip(moments[1:], truths[1:], truths, strict=False) if now != before} <= edges
        for moment in moments:
            assert rule.next_edge([found], moment) == min((e for e in edges if e > moment), default=FOREVER)
            assert rule.last_edge([found], moment) == max((e for e in edges if e <= moment), default=NEVER)


@settings(max_examples=60, deadline=None)
@given(r=seeds)
def test_the_one_event_that_is_kept_says_what_all_say(r: Random) -> None:
    """Of a first, last, least or greatest value of all time; events come late, twice, unordered, ahead of the clock."""
    leaf, facts = condition_on(r, r.choice(CHOOSING), {})
    (state,) = state_of(leaf)
    assert isinstance(state, ListState)
    rule, reference = rule_of(leaf), Reference(facts)
    for person in reference.profiles:
        coming = [f for f in facts if f.profile == person and matches(f, state.names, state.where)]
        clock, end = START + r.randint(0, 3) * SECOND_US, START + r.randint(3, 7) * SECOND_US
        routes = []
        for _ in range(2):
            route = ListRoute("", state)
            coming = r.sample(coming, len(coming)) + r.choices(coming, k=len(coming))
            for place, fact in enumerate(coming):
                now = clock if place < len(coming) // 2 else end
                route.insert(0, route.event(fact.timestamp_us, fact.message_id, fact.properties), now)
            routes.append(route)
        column = routes[0].column
        for moment in {m + d for m in {end, *reference.edges(leaf, person)} for d in (-1, 0, 1)}:
            if moment >= end or column.is_complete(0, moment):
                assert rule.holds([column.of(0)], moment) == reference.holds(leaf, person, moment)
        if coming:
            assert column.is_complete(0, end)
        # However they came: the same is kept, and of what is past no more than one.
        settled = [ListRoute("", state) for _ in routes]
        for route in settled:
            for fact in r.sample(coming, len(coming)):
                route.insert(0, route.event(fact.timestamp_us, fact.message_id, fact.properties), end)
        assert settled[0].column.of(0) == settled[1].column.of(0)
        assert sum(event[0] <= end for event in settled[0].column.of(0)) <= 1


@settings(max_examples=40, deadline=None)
@given(r=seeds)
def test_the_one_event_is_found_in_history_too(connection: duckdb.DuckDBPyConnection, r: Random) -> None:
    """A new audience is filled from history, some of which comes live as well, and goes on through a snapshot."""
    leaf, facts = condition_on(r, r.choice(CHOOSING), {})
    definition, reference = Definition("dynamic", leaf), Reference(facts)
    clock = START + r.randint(0, 5) * SECOND_US
    engine = Engine("w", 1, clock)
    (key,) = engine.set_audience("chosen", definition)
    engine.fold(map(resolved_of, r.choices(facts, k=len(facts) // 2)), now_us=clock)
    connection.register("events", table_of(facts))
    for history_of in (PROFILES, key):
        engine.fold_history(history_of, queries.condition_history(connection, history_of, clock))
    engine.start_audience("chosen")
    engine.advance(clock)
    assert engine.members("chosen") == reference.members(definition, clock)
    restored = Engine("w", 1, clock)
    restored.set_audience("chosen", definition)
    restored.start_audience("chosen")
    assert restored.import_partition(0, engine.export_partition(0)) == frozenset()
    restored.start_partition(0)
    for later in range(clock, START + 7 * SECOND_US, SECOND_US):
        for one in (engine, restored):
            one.advance(later)
            assert one.members("chosen") == reference.members(definition, later)
