"""The rules over lists of events against the reference, at every moment, on short and crowded histories.

Random definitions rarely make a sequence come true; here histories are so short and so alike that they often do.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import duckdb
import pytest
from headrace_audience.batch import queries
from headrace_audience.engine.conditions import ListState, state_of
from headrace_audience.engine.list_columns import Event, ListRoute
from headrace_audience.engine.list_slots import rule_of
from headrace_audience.engine.people import FOREVER, NEVER
from headrace_audience.language.definition import Definition, Leaf
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact, table_of
from headrace_audience.offline.reference import Reference
from headrace_audience.offline.reference_events import matches
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.times import SECOND_US
from tests.support import audience_histories as random

choices = st.randoms(use_true_random=False)
Maker = Callable[[Random], dict[str, object]]


def step(r: Random, *, first: bool, may_be_negated: bool) -> dict[str, object]:
    found: dict[str, object] = {"event": r.choice(("A", "B", ["A", "B"]))}
    if not first and r.randint(0, 1):
        found["within"] = f"{r.randint(1, 3)}s"
    if not first and may_be_negated and r.randint(0, 1):
        found["negated"] = True
    if not first and r.randint(0, 3) == 3:
        found["same"] = "x"
    return found


def sequence(r: Random) -> dict[str, object]:
    steps: list[dict[str, object]] = []
    for number in range(r.randint(2, 4)):
        steps.append(step(r, first=number == 0, may_be_negated=bool(steps) and not steps[-1].get("negated")))
    windows: tuple[dict[str, object], ...] = (
        {},
        {},
        {"within": "5s"},
        {"within": "6s", "older_than": "2s"},
        {"since": "2026-01-01T00:00:02Z"},
    )
    return {"sequence": steps, **r.choice(windows)}


def regularly(r: Random) -> dict[str, object]:
    return {"regularly": "A", "period": "2s", "periods": 3, "at_least": r.randint(1, 3), "count": random.count(r)}


def restarted(r: Random) -> dict[str, object]:
    return {"restarted": "A", "inactive_for": f"{r.randint(1, 3)}s", "active_within": f"{r.randint(1, 3)}s"}


def aggregate(r: Random) -> dict[str, object]:
    function = r.choice(("sum", "avg", "min", "max", "distinct"))
    windows: tuple[dict[str, object], ...] = (
        {},
        {"within": "3s"},
        {"within": "5s", "older_than": "2s"},
        {"between": ["2026-01-01", "2026-01-01T00:00:04Z"]},
    )
    return {"event": "A", function: {"of": "x", **random.number_test(r, 3)}, **r.choice(windows)}


def last_time(r: Random) -> dict[str, object]:
    windows: tuple[dict[str, object], ...] = ({}, {"within": "3s"}, {"within": "5s", "older_than": "2s"})
    return {"last_time": "A", "where": [{"property": "x", "eq": 1}], **r.choice(windows)}


def dated(r: Random) -> dict[str, object]:
    near = [
        {"property": "due", r.choice(("in_last", "in_next")): f"{r.randint(1, 3)}s"} for _ in range(r.randint(1, 2))
    ]
    windows: tuple[dict[str, object], ...] = ({}, {"within": "3s"}, {"within": "5s", "older_than": "2s"})
    return {"event": "A", "where": near, "count": random.count(r), **r.choice(windows)}


def history(r: Random) -> list[Fact]:
    return [
        Fact(
            "p",
            random.START + r.randint(0, 6) * SECOND_US,
            f"{r.randint(0, 9)}-{number}",
            name=r.choice(("A", "B")),
            properties={
                "x": r.choice((1, 1, 1.0, 2, "1", True, None, None)),
                "due": r.choice((f"2026-01-01T00:00:0{r.randint(0, 6)}Z", None)),
            },
        )
        for number in range(r.randint(1, 6))
    ]


def lists_of(leaf: Leaf, facts: list[Fact]) -> list[list[Event]]:
    """What the engine would keep, were nothing ever cut."""
    lists = []
    for state in state_of(leaf):
        assert isinstance(state, ListState)
        route = ListRoute("", state)
        found = [
            route.event(fact.timestamp_us, fact.message_id, fact.properties)
            for fact in facts
            if matches(fact, state.names, state.where) and route.in_range(fact.timestamp_us)
        ]
        lists.append(sorted(found, key=lambda event: event[:2]))
    return lists


MAKERS: tuple[Maker, ...] = (sequence, regularly, restarted, aggregate, last_time, dated)


@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=60, deadline=None)
@given(r=choices)
def test_a_rule_says_at_every_moment_what_the_reference_says(make: Maker, r: Random) -> None:
    leaf = parse_definition({"where": make(r)}).where
    facts = history(r)
    rule, lists, reference = rule_of(leaf), lists_of(leaf, facts), Reference(facts)  # type: ignore[arg-type]  # a leaf
    moments = sorted({m + d for m in reference.edges(leaf, "p") for d in (-1, 0, 1)})
    truths = [rule.holds(lists, moment) for moment in moments]
    assert truths == [reference.holds(leaf, "p", moment) for moment in moments]
    # An edge is named for each change, and the next one is the first of them.
    edges = sorted(set(rule.edges(lists)))
    assert {m for m, truth, before in zip(moments[1:], truths[1:], truths, strict=False) if truth != before} <= set(
        edges
    )
    for place, moment in enumerate(moments):
        before = rule.looks_back_to(moment)
        if all(event[0] <= before for events in lists for event in events):
            assert set(truths[place:]) == {rule.holds([()] * len(lists), 0)}
        assert rule.last_edge(lists, moment) == max((edge for edge in edges if edge <= moment), default=NEVER)
        assert rule.next_edge(lists, moment) == next((edge for edge in edges if edge > moment), FOREVER)


@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=40, deadline=None)
@given(r=choices)
def test_sql_says_what_the_reference_says(make: Maker, r: Random) -> None:
    definition = parse_definition({"where": make(r)})
    facts = history(r)
    reference = Reference(facts)
    at_us = random.START + r.randint(0, 9) * SECOND_US + r.choice((-1, 0, 0))
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("events", table_of(facts))
        members = queries.evaluate(connection, definition, at_us)
        assert members == reference.members(definition, at_us)
        assert queries.outlook(connection, definition, at_us, profiles=["p"]) == [
            _outlook(reference, definition, at_us)
        ]


def _outlook(reference: Reference, definition: Definition, at_us: int) -> queries.Outlook:
    holds = reference.holds(definition.where, "p", at_us)
    since, change = reference.since(definition, "p", at_us), reference.next_change(definition, "p", at_us)
    return queries.Outlook("p", holds, since, change)
