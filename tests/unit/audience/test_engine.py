"""What the engine promises beside agreeing with the reference: audiences, partitions, causes, growth."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from headrace_audience.engine import conditions
from headrace_audience.engine.engine import Engine, Flip, SnapshotError
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact, resolved_of
from headrace_audience.offline.reference import Reference

from headrace.domain.definitions import DefinitionError
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, SECOND_US
from tests.support.audience_histories import START

PARTITIONS = 4


def definition(where: dict[str, Any], kind: str = "dynamic") -> Any:
    return parse_definition({"kind": kind, "where": where})


def engine_with(**audiences: dict[str, Any]) -> Engine:
    engine = Engine("w", PARTITIONS, START, capacity=1)
    for audience_id, where in audiences.items():
        engine.set_audience(audience_id, definition(where))
        engine.start_audience(audience_id)
    assert engine.advance(START) == []
    return engine


def event(profile: str, second: float, name: str = "A", message_id: str = "", **properties: Any) -> Any:
    at = START + int(second * SECOND_US)
    resolved = resolved_of(Fact(profile, at, message_id or f"{profile}-{second}-{name}", "track", name, properties))
    resolved.traceparent = f"trace-{second}"
    return resolved


def at(second: float) -> int:
    return START + int(second * SECOND_US)


def test_an_event_enters_and_time_leaves_at_the_exact_edge() -> None:
    engine = engine_with(a={"event": "A", "within": "7d"})
    engine.fold([event("p", 1.5)], now_us=at(2))
    assert engine.advance(at(2)) == [Flip("a", "p", True, at(1.5), "event", "p-1.5-A", "trace-1.5")]
    assert engine.next_flip_us("a", "p") == at(1.5) + 7 * DAY_US
    assert engine.next_moment_us() == at(1.5) + 7 * DAY_US
    assert engine.advance(at(1.5) + 7 * DAY_US - 1) == []
    assert engine.advance(at(1.5) + 7 * DAY_US + 1234) == [Flip("a", "p", False, at(1.5) + 7 * DAY_US, "time")]
    assert engine.next_moment_us() is None


def test_a_late_event_corrects_from_the_moment_since_which_it_holds() -> None:
    engine = engine_with(a={"event": "A", "within": "60s", "count": {"gte": 2}})
    engine.fold([event("p", 10)])
    engine.advance(at(20))
    engine.fold([event("p", 5)])
    assert engine.advance(at(30)) == [Flip("a", "p", True, at(10), "event", "p-5-A", "trace-5")]


def test_a_future_event_counts_from_its_time_on() -> None:
    engine = engine_with(a={"event": "A", "within": "60s"})
    engine.fold([event("p", 50)])
    assert engine.advance(at(49)) == []
    assert engine.next_flip_us("a", "p") == at(50)
    assert engine.advance(at(51)) == [Flip("a", "p", True, at(50), "event", "p-50-A", "trace-50")]


def test_the_clock_never_goes_back() -> None:
    engine = engine_with(a={"event": "A", "within": "10s"})
    engine.fold([event("p", 5)], now_us=at(14))
    assert len(engine.advance(at(3))) == 1
    assert engine.clock_us == at(14)


def test_the_same_message_counts_once_even_with_its_equals_in_time() -> None:
    engine = engine_with(a={"event": "A", "count": {"gte": 3}}, b={"event": "A", "count": {"gte": 12}})
    twice = [event("p", 1, message_id="m1"), event("p", 1, message_id="m2")] * 6
    for _ in range(3):
        engine.fold(twice, now_us=at(2))
        assert engine.advance(at(2)) == []
    engine.fold([event("p", 1, message_id="m3")])
    assert [flip.audience_id for flip in engine.advance(at(3))] == ["a"]
    engine.fold([event("p", 0, message_id=f"n{i}") for i in range(9)])
    assert [flip.audience_id for flip in engine.advance(at(3))] == ["b"]


def test_many_profiles_and_batches_agree_with_the_reference() -> None:
    """Enough of them that every array grows."""
    choose = Random(1)
    wheres: dict[str, dict[str, Any]] = {
        "one": {"event": "A", "within": "300s"},
        "two": {"event": "A", "within": "300s", "count": {"gte": 2}},
        "odd": {"event": "B", "count": {"in": [1, 3]}},
        "trait": {"trait": "plan", "eq": "pro"},
        "known": {"identifier": "email", "exists": False},
        "old": {"event": "A", "within": "300s", "older_than": "100s"},
        "not": {"not": {"audience": "one"}},
    }
    engine = engine_with(**wheres)
    facts: list[Fact] = []
    for number in range(3_000):
        kind = choose.choice(("track", "track", "identify"))
        facts.append(
            Fact(
                profile=f"p{choose.randrange(400)}",
                timestamp_us=at(choose.randrange(600)),
                message_id=str(number),
                kind=kind,
                name=choose.choice("AB"),
                traits={"plan": choose.choice(("pro", "free", None))} if kind == "identify" else {},
                identifiers=(("email", "e"),) if choose.randrange(5) == 0 else (),
            )
        )
    definitions = {audience_id: definition(where) for audience_id, where in wheres.items()}
    for moment in range(100, 1000, 150):
        part = facts[(moment - 100) * 4 : (moment + 50) * 4]
        engine.fold(map(resolved_of, part))
        engine.advance(at(moment))
        reference = Reference(facts[: (moment + 50) * 4], definitions)
        for audience_id, wanted in definitions.items():
            assert engine.members(audience_id) == reference.members(wanted, at(moment)), (audience_id, moment)
            assert engine.size(audience_id) == len(engine.members(audience_id))


def test_an_audience_reports_nothing_before_it_is_started_and_then_everything() -> None:
    engine = engine_with()
    engine.fold([event("p", 1)])
    engine.advance(at(2))
    (key,) = engine.set_audience("a", definition({"event": "A"}))
    engine.fold([event("p", 1), event("q", 1)], conditions=[key])
    assert engine.advance(at(3)) == []
    engine.start_audience("a")
    flips = engine.advance(at(4))
    assert [(f.profile_id, f.cause, f.effective_at_us) for f in flips] == [("p", "fill", at(1)), ("q", "fill", at(1))]
    assert engine.set_audience("b", definition({"event": "A", "within": "5s"})) == frozenset()


def test_a_changed_definition_reports_the_difference() -> None:
    engine = engine_with(a={"event": "A"}, b={"not": {"audience": "a"}})
    engine.fold([event("p", 1), event("q", 1, "B")])
    engine.advance(at(2))
    assert (engine.members("a"), engine.members("b")) == (["p"], ["q"])
    needed = engine.set_audience("a", definition({"event": "B"}))
    assert len(needed) == 1
    engine.fold([event("p", 2), event("q", 1, "B")], conditions=needed)
    assert engine.advance(at(3)) == []
    assert (engine.members("a"), engine.members("b")) == (["p"], ["q"])
    engine.start_audience("a", cause="definition")
    flips = engine.advance(at(4))
    assert {(f.audience_id, f.profile_id, f.member, f.cause) for f in flips} == {
        ("a", "p", False, "definition"),
        ("a", "q", True, "definition"),
        ("b", "p", True, "definition"),
        ("b", "q", False, "definition"),
    }


def test_a_removed_audience_has_no_members_for_the_others() -> None:
    engine = engine_with(a={"event": "A"}, b={"audience": "a"})
    engine.fold([event("p", 1)])
    engine.advance(at(2))
    engine.remove_audience("a")
    flips = engine.advance(at(3))
    assert [(f.audience_id, f.profile_id, f.member) for f in flips] == [("b", "p", False)]


def test_the_start_of_a_large_audience_goes_on_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens meanwhile is told at once; of whom was not looked at yet the start is the cause."""
    monkeypatch.setattr("headrace_audience.engine.engine.CHUNK", 4)
    engine = engine_with(a={"event": "A", "within": "60s"})
    people = [f"p{i:02}" for i in range(20)]
    engine.fold([event(p, 1) for p in people], now_us=at(2))
    engine.advance(at(2))
    assert engine.set_audience("new", definition({"event": "A", "within": "60s"})) == frozenset()
    engine.start_audience("new")
    first = engine.advance(at(3), most=1)
    assert [(f.profile_id, f.cause) for f in first] == [(p, "fill") for p in people[:4]]
    assert engine.is_sweeping and engine.starting == {"new"}

    # One who was looked at stays by an event, one who was not is in by his start, and one comes by an event.
    engine.fold([event(people[0], 50), event(people[19], 50), event("late", 50)], now_us=at(50))
    second = [f for f in engine.advance(at(50), most=1) if f.audience_id == "new"]
    assert {(f.profile_id, f.cause) for f in second} == {
        *((p, "fill") for p in [*people[4:8], people[19]]),
        ("late", "event"),
    }
    # Time goes on for those who were looked at, and nobody enters who is out by then.
    third = [f for f in engine.advance(at(61), most=1) if f.audience_id == "new"]
    assert {(f.profile_id, f.member, f.cause) for f in third} == {(p, False, "time") for p in people[1:8]}
    while engine.is_sweeping:
        assert [f for f in engine.advance(at(62), most=1) if f.audience_id == "new"] == []
    assert engine.starting == frozenset()
    assert engine.members("new") == engine.members("a") == ["late", people[0], people[19]]


def test_an_audience_that_is_started_again_in_the_middle_is_evaluated_for_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace_audience.engine.engine.CHUNK", 4)
    engine = engine_with(a={"event": "A"}, b={"event": "B"})
    people = [f"p{i:02}" for i in range(20)]
    engine.fold([event(p, 1, name) for p in people for name in ("A", "B")], now_us=at(2))
    engine.advance(at(2))
    engine.set_audience("inner", definition({"event": "A"}))
    engine.set_audience("outer", definition({"not": {"audience": "inner"}}))
    for audience_id in ("inner", "outer"):
        engine.start_audience(audience_id)
    told = engine.advance(at(3), most=1)
    engine.set_audience("inner", definition({"not": {"event": "B"}}))
    engine.start_audience("inner", cause="definition")
    engine.drop_partition(partition_of(people[-1], PARTITIONS))
    there = [p for p in people if partition_of(p, PARTITIONS) != partition_of(people[-1], PARTITIONS)]
    while True:
        told += engine.advance(at(4), most=1)
        if not engine.is_sweeping:
            break
    assert engine.members("inner") == [] and engine.members("outer") == there
    told = [f for f in told if f.profile_id in there]
    inner = {f.profile_id for f in told if f.audience_id == "inner" and f.member}
    assert {f.profile_id for f in told if f.audience_id == "inner" and not f.member} == inner
    assert {f.cause for f in told if f.audience_id == "inner" and not f.member} == {"definition"}
    assert [f.profile_id for f in told if f.audience_id == "outer"] == there


def test_circles_are_refused_and_change_nothing() -> None:
    engine = engine_with(a={"event": "A"}, b={"audience": "a"})
    with pytest.raises(DefinitionError, match="a -> b -> a"):
        engine.set_audience("a", definition({"audience": "b"}))
    engine.fold([event("p", 1)])
    assert len(engine.advance(at(2))) == 2


def test_static_members_are_what_they_were_set_to() -> None:
    engine = engine_with(b={"all": [{"event": "A"}, {"audience": "s"}]})
    assert engine.set_audience("s", definition({"event": "B"}, "static")) == frozenset()
    engine.start_audience("s")
    engine.fold([event("p", 1), event("q", 1), event("q", 1, "B")])
    assert engine.advance(at(2)) == []
    engine.set_membership("s", ["p"])
    flips = engine.advance(at(3))
    assert [(f.audience_id, f.profile_id, f.member) for f in flips] == [("b", "p", True)]
    engine.merge("p", "q")
    flips = engine.advance(at(4))
    assert {(f.audience_id, f.profile_id, f.member, f.merged_into) for f in flips} == {
        ("s", "p", False, "q"),
        ("b", "p", False, "q"),
    }


def test_only_the_difference_to_the_store_is_reported() -> None:
    engine = engine_with(a={"event": "A"})
    partition = partition_of("p", PARTITIONS)
    engine.hold_partition(partition)
    engine.fold([event("p", 1)])
    engine.set_membership("a", ["p"])
    assert engine.advance(at(2)) == []
    engine.start_partition(partition)
    assert engine.advance(at(3)) == []
    engine.set_membership("a", ["stale"])
    flips = engine.advance(at(4))
    assert [(f.profile_id, f.member) for f in flips] == [("stale", False)]


def test_a_dropped_partition_leaves_nothing() -> None:
    engine = engine_with(a={"event": "A", "within": "60s"}, b={"event": "A", "within": "60s", "older_than": "30s"})
    engine.fold([event("p", 1), event("p", 100)])
    engine.advance(at(2))
    partition = partition_of("p", PARTITIONS)
    engine.drop_partition(partition)
    assert engine.profiles_of(partition) == []
    assert engine.members("a") == []
    assert engine.next_moment_us() is None
    assert engine.advance(at(200)) == []
    engine.fold([event("r", 150)])
    assert [f.profile_id for f in engine.advance(at(200))] == ["r"] * 2


def test_a_snapshot_says_which_states_it_lacks() -> None:
    engine = engine_with(a={"event": "A"})
    engine.fold([event("p", 1)])
    engine.advance(at(2))
    partition = partition_of("p", PARTITIONS)
    before = engine.export_partition(partition)
    needed = engine.set_audience("b", definition({"event": "B"}))
    half = engine.export_partition(partition)
    for snapshot in (before, half):
        again = engine_with(a={"event": "A"}, b={"event": "B"})
        assert again.import_partition(partition, snapshot) == needed
        assert again.profiles_of(partition) == ["p"]


def test_what_is_no_snapshot_is_refused() -> None:
    engine = engine_with(a={"event": "A"})
    good = engine.export_partition(1)
    other = Engine("other", PARTITIONS, START).export_partition(1)
    for data in (b"", b"HRA0" + good[4:], good[:-3], b"HRA1garbage", other, engine.export_partition(2)):
        with pytest.raises(SnapshotError):
            engine.import_partition(1, data)


def test_events_of_nobody_and_of_merged_profiles_are_ignored() -> None:
    engine = engine_with(a={"event": "A"})
    engine.fold([event("p", 1)])
    engine.advance(at(2))
    engine.merge("p", "q")
    nobody = event("x", 1)
    nobody.profile_id = ""
    engine.fold([event("p", 2), nobody, event("q", 1, message_id="p-1-A")], cause="merge")
    flips = engine.advance(at(3))
    assert [(f.profile_id, f.member, f.cause, f.message_id) for f in flips] == [
        ("q", True, "merge", ""),
        ("p", False, "merge", ""),
    ]


def test_an_unusual_time_does_no_harm() -> None:
    engine = engine_with(a={"event": "A", "within": "7d"}, b={"not": {"event": "A", "count": {"gte": 2}}})
    for moment in (-(1 << 63), (1 << 63) - 1, -62_135_596_800_000_000, 253_402_300_799_999_999):
        strange = event("p", 1, message_id=str(moment))
        strange.event.timestamp_us = moment
        engine.fold([strange])
    engine.advance(at(2))
    assert engine.members("a") == []


def test_of_writes_at_the_same_time_the_greater_message_id_wins() -> None:
    def write(message_id: str, plan: Any) -> Any:
        return resolved_of(Fact("p", at(1), message_id, "identify", traits={"plan": plan}))

    for order in ("abc", "cba", "bca", "cab"):
        engine = engine_with(pro={"trait": "plan", "eq": "pro"}, none={"trait": "plan", "exists": False})
        plans = {"a": "free", "b": None, "c": "pro"}
        for message_id in order:
            engine.fold([write(message_id, plans[message_id])])
            engine.advance(at(2))
        assert (engine.members("pro"), engine.members("none")) == (["p"], [])


def test_a_trait_that_another_audience_reads_already_is_filled_for_a_new_one() -> None:
    engine = engine_with(pro={"trait": "plan", "eq": "pro"})
    newest = resolved_of(Fact("p", at(2), "m2", "identify", traits={"plan": "pro"}))
    oldest = resolved_of(Fact("p", at(1), "m1", "identify", traits={"plan": "free"}))
    engine.fold([newest, oldest])
    engine.advance(at(3))
    needed = engine.set_audience("free", definition({"trait": "plan", "neq": "pro"}))
    engine.fold([oldest, newest], conditions=needed)
    engine.start_audience("free")
    engine.advance(at(4))
    assert (engine.members("pro"), engine.members("free")) == (["p"], [])


def test_every_change_of_a_count_by_time_is_seen() -> None:
    engine = engine_with(a={"event": "A", "within": "100s", "count": {"in": [1, 2, 4]}})
    engine.fold([event("p", second) for second in (1, 2, 3, 4)])
    assert [flip.member for flip in engine.advance(at(5))] == [True]
    seen: list[tuple[float, bool]] = []
    while (moment := engine.next_moment_us()) is not None:
        seen += [((flip.effective_at_us - START) / SECOND_US, flip.member) for flip in engine.advance(moment)]
    assert seen == [(101.0, False), (102.0, True), (104.0, False)]


def test_an_event_of_one_audience_does_not_hide_the_edges_of_another() -> None:
    engine = engine_with(a={"event": "A", "within": "10s"}, b={"event": "B", "within": "100s"})
    engine.fold([event("p", 1)], now_us=at(2))
    engine.advance(at(2))
    engine.fold([event("p", 3, "B")], now_us=at(4))
    engine.advance(at(4))
    assert engine.next_moment_us() == at(11)
    assert [(f.audience_id, f.effective_at_us) for f in engine.advance(at(20))] == [("a", at(11))]


def test_touches_by_other_tables_are_lacking_in_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user agent means is looked up in tables that change: a state of earlier ones is not taken over."""
    where = {"all": [{"last_touch": "browser", "eq": "Chrome"}, {"trait": "plan", "eq": "pro"}]}
    engine = engine_with(a=where)
    engine.fold([event("p", 1)])
    engine.advance(at(2))
    partition = partition_of("p", PARTITIONS)
    snapshot = engine.export_partition(partition)
    assert engine_with(a=where).import_partition(partition, snapshot) == frozenset()
    monkeypatch.setattr(conditions, "TOUCH_RULES", "other")
    (touch,) = [key for key in conditions.states_of(definition(where)) if "last_touch" in key]
    assert engine_with(a=where).import_partition(partition, snapshot) == {touch}
