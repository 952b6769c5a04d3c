"""Audiences of groups: SQL against the reference, on random definitions and histories."""

from __future__ import annotations

from random import Random
from typing import Any

import duckdb
from headrace_audience.batch import queries
from headrace_audience.batch.group_changes import group_changes
from headrace_audience.language.definition import Definition
from headrace_audience.offline.evaluate import evaluate
from headrace_audience.offline.facts import Fact, mentions_of, table_of
from headrace_audience.offline.groups import GroupReference
from headrace_audience.offline.reference import Audiences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.domain.times import DAY_US, HOUR_US, SECOND_US
from tests.support import audience_histories as random
from tests.support.audience_cases import kept
from tests.support.examples import examples

choices = st.randoms(use_true_random=False)


def asked_of_groups(r: Random) -> random.Asked:
    """One of people, and two of groups of which the later may refer to the earlier."""
    zone = {"time_zone": r.choice(random.ZONES)}
    groups = {"of": "groups", **zone}
    found: dict[str, Any] = {
        "listed": random.some(r, random.GROUPS, 0, 2),
        "people": {"where": random.condition(r), **zone},
        "one": {**groups, "where": random.of_groups(r)},
        "two": {**groups, "where": random.of_groups(r, ("one", "listed", "nobody"))},
    }
    return random.Asked(found, random.computed_traits(r))


def audiences(r: Random) -> Audiences:
    return asked_of_groups(r).meanings


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(r=choices)
@random.anywhen
def test_sql_finds_the_groups_of_the_reference(r: Random) -> None:
    asked = asked_of_groups(r)
    first = random.Asked({name: raw for name, raw in asked.audiences.items() if name != "two"}, asked.computed)
    facts = random.history(r)
    facts += [nobodys(fact, r) for fact in facts if fact.group_id and r.randint(0, 2) == 2]
    at_us = random.moment(r)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("events", table_of(facts))
        connection.register("mentions", mentions_of(facts))
        for some in (first, asked):
            with kept(some, facts, at_us):
                check_groups(connection, some.last, facts, at_us, some.meanings)


def check_groups(
    connection: duckdb.DuckDBPyConnection, definition: Definition, facts: list[Fact], at_us: int, known: Audiences
) -> None:
    reference = GroupReference(facts, known)
    expected = reference.members(definition, at_us)
    assert queries.evaluate(connection, definition, at_us, known) == expected
    answer = evaluate(definition, facts, at_us, engines=("incremental", "batch"), audiences=known)
    assert [member["group"] for member in answer["members"]] == expected
    assert answer["mismatches"] == []
    found = queries.preview(connection, definition, at_us, known, sample=1)
    assert (found.size, found.profiles, found.sample) == (len(expected), len(reference.groups), expected[:1])


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(r=choices)
@random.anywhen
def test_sql_tells_the_facts_of_the_reference(r: Random) -> None:
    known = audiences(r)
    facts = random.history(r)
    reference = GroupReference(facts, known)
    at_us = random.moment(r)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("events", table_of(facts))
        connection.register("mentions", mentions_of(facts))
        for name in ("one", "two"):
            definition = known[name]
            assert isinstance(definition, Definition)
            assert queries.group_facts(connection, definition, "nobody's", at_us, known) is None
            for group_id in reference.groups:
                found = queries.group_facts(connection, definition, group_id, at_us, known)
                assert found == reference.facts(definition, group_id, at_us)


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(r=choices)
@random.anywhen
def test_until_the_next_moment_time_alone_moves_no_group(r: Random) -> None:
    known = audiences(r)
    facts = random.history(r)
    reference = GroupReference(facts, known)
    at_us = random.moment(r)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("events", table_of(facts))
        connection.register("mentions", mentions_of(facts))
        for name in ("one", "two"):
            definition = known[name]
            assert isinstance(definition, Definition)
            next_us = queries.next_moment(connection, definition, at_us, known)
            assert next_us is None or next_us > at_us
            moments = {at_us + r.choice((SECOND_US, HOUR_US, DAY_US, 9 * DAY_US)) * n for n in range(1, 9)}
            for moment in sorted(moments | ({next_us - 1} if next_us else set())):
                if next_us is None or moment < next_us:
                    assert reference.members(definition, moment) == reference.members(definition, at_us)
            for group_id in reference.groups[:1]:
                facts_now = reference.facts(definition, group_id, at_us)
                changes = group_changes(connection, definition, group_id, at_us, known, facts_now)
                change_us = changes.moments.get(definition.where)
                is_in = reference.holds(definition.where, group_id, at_us)
                if change_us is not None:
                    assert reference.holds(definition.where, group_id, change_us) is not is_in
                    moments.add(change_us - 1)
                for moment in sorted(moments):
                    if moment < change_us if change_us is not None else changes.complete:
                        assert reference.holds(definition.where, group_id, moment) is is_in


def nobodys(fact: Fact, r: Random) -> Fact:
    """An event of nobody that says something of the same group."""
    traits = {"plan": r.choice(random.VALUES)}
    time_us = fact.timestamp_us + r.randint(-1, 1)
    return Fact("", time_us, f"nobody-{fact.message_id}", "group", group_id=fact.group_id, group_traits=traits)
