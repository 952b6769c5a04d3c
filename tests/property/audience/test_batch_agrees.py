"""The batch evaluator against the reference and the engine, on random definitions and histories."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import duckdb
import pytest
from headrace_audience.batch import queries
from headrace_audience.engine.engine import PROFILES, Engine
from headrace_audience.language.computed import bind
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact, resolved_of, table_of
from headrace_audience.offline.reference import Reference
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.domain.computed_traits.definition import parse_definition as parse_computed
from headrace.domain.times import SECOND_US, parse_time_us
from tests.support import audience_histories as random
from tests.support.audience_cases import kept
from tests.support.examples import examples

PARTITIONS = 4
QUICK = settings(
    max_examples=examples(20),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
choices = st.randoms(use_true_random=False)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        yield connection


@QUICK
@given(r=choices)
@random.anywhen
def test_batch_gives_the_members_the_sizes_and_the_edges_of_the_reference(
    connection: duckdb.DuckDBPyConnection, r: Random
) -> None:
    check_batch(connection, r, random.asked(r), random.history(r))


@QUICK
@given(r=choices)
@random.anywhen
def test_each_condition_is_exact_when_everything_happens_at_the_same_time(
    connection: duckdb.DuckDBPyConnection, r: Random
) -> None:
    with random.crowded():
        check_batch(connection, r, random.asked_one(r), random.history(r, 12))


def check_batch(connection: duckdb.DuckDBPyConnection, r: Random, asked: random.Asked, history: list[Fact]) -> None:
    audiences, definition = asked.meanings, asked.last
    facts = history + (random.some(r, tuple(history), 0, 4) if history else [])
    connection.register("events", table_of(facts))
    reference = Reference(facts, audiences)
    at_us = random.moment(r)
    with kept(asked, history, at_us):
        members = queries.evaluate(connection, definition, at_us, audiences)
        assert members == reference.members(definition, at_us)
        preview = queries.preview(connection, definition, at_us, audiences, sample=1)
        assert preview == queries.Preview(len(members), len(reference.profiles), members[:1])
        outlook = queries.outlook(connection, definition, at_us, audiences, profiles=reference.profiles)
        assert outlook == [
            queries.Outlook(
                profile,
                profile in members,
                reference.since(definition, profile, at_us),
                reference.next_change(definition, profile, at_us),
            )
            for profile in reference.profiles
        ]


@QUICK
@given(r=choices)
@random.anywhen
def test_history_beside_live_traffic_gives_what_living_through_it_gives(
    connection: duckdb.DuckDBPyConnection, r: Random
) -> None:
    """Audiences come after the events; their history overlaps with what is folded live meanwhile."""
    live_beside(connection, r, random.asked(r, nobody=False), random.history(r))


@QUICK
@given(r=choices)
@random.anywhen
def test_the_history_of_each_condition_beside_live_traffic(connection: duckdb.DuckDBPyConnection, r: Random) -> None:
    with random.crowded():
        live_beside(connection, r, random.asked_one(r), random.history(r, 12))


def live_beside(connection: duckdb.DuckDBPyConnection, r: Random, asked: random.Asked, history: list[Fact]) -> None:
    audiences = asked.definitions
    r.shuffle(history)
    clock = random.moment(r)
    engine = Engine("w", PARTITIONS, clock)
    cut = r.randint(0, len(history))
    known = r.randint(0, cut)
    # What came before the replica started is in the log only; then some events came while there was no audience.
    engine.fold(map(resolved_of, history[known:cut]))
    flips = engine.advance(clock)
    assert flips == []
    needed = {key for a in audiences for key in engine.set_audience(a, audiences[a])}
    later = history[cut:]
    engine.fold(map(resolved_of, later[::2]), now_us=clock)
    connection.register("events", table_of(history[:cut] + later[::3]))
    keys = [PROFILES, *sorted(needed)]
    r.shuffle(keys)
    for key in keys:
        table = queries.condition_history(connection, key, engine.clock_us)
        engine.fold_history(key, table)
        if r.randint(0, 3) == 3:
            engine.fold_history(key, table, partitions=range(PARTITIONS))
    engine.fold(map(resolved_of, later))
    for audience_id in audiences:
        engine.start_audience(audience_id)
    for _ in range(3):
        reference = Reference(history, audiences)
        flips = engine.advance(clock)
        for audience_id, definition in audiences.items():
            assert engine.members(audience_id) == reference.members(definition, clock)
            for profile in reference.profiles:
                assert engine.next_flip_us(audience_id, profile) == reference.next_change(definition, profile, clock)
        clock = max(clock, random.moment(r))


@QUICK
@given(r=choices)
@random.anywhen
def test_a_partition_catches_up_with_an_audience_that_its_snapshot_does_not_know(
    connection: duckdb.DuckDBPyConnection, r: Random
) -> None:
    audiences, history = random.audiences(r), random.history(r)
    clock = random.moment(r)
    first = Engine("w", PARTITIONS, clock)
    first.set_audience("one", audiences["one"])
    first.start_audience("one")
    first.fold(map(resolved_of, history))
    first.advance(clock)
    connection.register("events", table_of(history))
    second = Engine("w", PARTITIONS, clock - SECOND_US)
    for audience_id, definition in audiences.items():
        second.set_audience(audience_id, definition)
        second.start_audience(audience_id)
    for partition in range(PARTITIONS):
        for key in second.import_partition(partition, first.export_partition(partition)):
            table = queries.condition_history(connection, key, second.clock_us)
            second.fold_history(key, table, partitions=[partition])
        second.start_partition(partition)
    check(second, audiences, history, clock)


def check(engine: Engine, audiences: dict[str, Definition], history: list[Fact], clock: int) -> None:
    engine.advance(clock)
    reference = Reference(history, audiences)
    for audience_id, definition in audiences.items():
        assert engine.members(audience_id) == reference.members(definition, clock)


@pytest.mark.parametrize("year", [1912, 1969, 2119, 2150])
def test_calendar_days_of_any_year_end_when_the_reference_says(year: int) -> None:
    where = {
        "all": [
            {"event": "A", "within": "40cd", "older_than": "2cd"},
            {"not": {"stopped": "A", "active_within": "30cd", "inactive_for": "10cd"}},
        ]
    }
    definition = parse_definition({"where": where, "time_zone": "America/New_York"})
    facts = [
        Fact(profile, parse_time_us(f"{year}-{day}"), f"{profile}{day}", name="A", identifiers=(("user_id", profile),))
        for profile, days in {"p": ("03-01T05:30:00Z", "11-20T04:59:59Z"), "q": ("12-30T12:00:00Z",)}.items()
        for day in days
    ]
    reference = Reference(facts)
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        for at in ("03-20T00:00:00Z", "12-29T05:00:00Z"):
            at_us = parse_time_us(f"{year}-{at}")
            for found in queries.outlook(connection, definition, at_us, profiles=["p", "q"]):
                assert found.member == reference.holds(definition.where, found.profile, at_us)
                assert found.since_us == reference.since(definition, found.profile, at_us)
                assert found.changes_at_us == reference.next_change(definition, found.profile, at_us)


def of_number(number: int) -> list[dict[str, Any]]:
    """One condition of each kind, which others of other numbers share no name with."""
    name = f"n{number}"
    return [
        {"trait": name, "eq": number},
        {"consent": name, "eq": "granted"},
        {"first_touch": "campaign.source", "eq": name},
        {"identifier": name, "exists": True},
        {"event": name, "within": f"{number + 1}h"},
        {"event": "A", "sum": {"of": name, "gte": number}},
        {"last_time": "A", "where": [{"property": name, "gte": number}]},
        {"computed": name, "eq": number},
    ]


def test_the_number_of_conditions_has_no_limit_of_its_own() -> None:
    """Audiences of audiences have more conditions than one definition may have."""
    numbers = range(1, 81)
    computed = {f"n{n}": parse_computed({"event": "A", "compute": {"first": f"n{n}"}}) for n in numbers}
    parts = {f"part{n}": bind(parse_definition({"where": {"any": of_number(n)}}), computed) for n in numbers}
    at_us = random.START
    facts = [
        Fact("trait", at_us, "1", kind="identify", traits={"n3": 3}),
        Fact("consent", at_us, "2", kind="identify", consents={"n40": True}),
        Fact("touch", at_us, "3", kind="page", context={"campaign": {"source": "n50"}}),
        Fact("identifier", at_us, "4", kind="page", identifiers=(("n60", "v"),)),
        Fact("event", at_us - 70 * 3600 * SECOND_US, "5", name="n70"),
        Fact("too old", at_us - 71 * 3600 * SECOND_US, "6", name="n70"),
        Fact("sum", at_us, "7", name="A", properties={"n78": 79}),
        Fact("first", at_us, "8", name="A", properties={"n79": 79}),
        Fact("nothing", at_us, "9", name="A", properties={"n77": 76}),
        Fact("nobody", at_us, "10", kind="identify", traits={"n76": 75}, consents={"n75": False}),
    ]
    definition = parse_definition({"where": {"any": [{"audience": part} for part in parts]}})
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        members = queries.evaluate(connection, definition, at_us, parts)
    assert members == Reference(facts, parts).members(definition, at_us)
    assert {"trait", "consent", "touch", "identifier", "event", "sum", "first"} <= set(members)
    assert not {"too old", "nobody"} & set(members)
