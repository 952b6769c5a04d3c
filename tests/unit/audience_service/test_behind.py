"""Continuous audiences of groups: when they may be behind what they read, and who is in them."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_audience.definitions.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling.behind import Behind, Rest
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import ACTIVE, ARCHIVED, FILLING, PAUSED

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US
from tests.support.resolved import event

NOW = 1_700_000_000_000_000
PRO = {"of": "groups", "where": {"trait": "plan", "eq": "pro"}}


def audience(audience_id: str, definition: dict[str, Any], state: str = ACTIVE, generation: int = 1) -> Audience:
    return Audience(
        "acme", audience_id, state, parse_definition(definition), generation, "fill", NOW, 0, frozenset(), open=True
    )


def evaluation_of(*audiences: Audience) -> Evaluation:
    """An evaluation whose audiences are not behind."""
    evaluation = Evaluation("acme", 4, NOW)
    for partition in range(4):
        evaluation.add_partition(partition, [])
    evaluation.follow(audiences, NOW)
    for one in audiences:
        evaluation.behind.started(one.audience_id)
    return evaluation


def behind(evaluation: Evaluation, now_us: int = NOW) -> list[str]:
    return [a.audience_id for a in evaluation.audiences.values() if evaluation.behind.is_behind(a, now_us)]


def test_what_happens_in_the_workspace_makes_continuous_groups_fall_behind() -> None:
    hourly = {**PRO, "refresh": "1h"}
    evaluation = evaluation_of(
        audience("pro", PRO), audience("hourly", hourly), audience("people", {"where": {"event": "A"}})
    )
    assert behind(evaluation) == []
    evaluation.touch()
    assert behind(evaluation) == ["pro"]
    evaluation.behind.started("pro")
    assert behind(evaluation) == []
    evaluation.drop_partition(1)
    evaluation.add_partition(1, [])
    assert behind(evaluation) == ["pro"], "its last owner may have known more"


def test_a_refresh_that_others_started_may_have_read_too_early() -> None:
    one = Behind()
    one.touch([audience("pro", PRO, generation=3)])
    assert [one.is_behind(audience("pro", PRO, generation=n), NOW) for n in (3, 4, 5)] == [True, True, False]


def test_time_alone_makes_groups_fall_behind() -> None:
    evaluation = evaluation_of(audience("pro", PRO))
    order = evaluation.order()
    assert order is not None
    evaluation.batch_computed("pro", 1, order.batch["pro"][1], ["acme inc"], NOW + 10)
    assert [behind(evaluation, NOW + late) for late in (9, 10)] == [[], ["pro"]]
    assert [(f.profile_id, f.member) for f in evaluation.pending.take(9)] == [("acme inc", True)]


def test_after_computing_they_rest() -> None:
    behind = Behind()
    pro = audience("pro", PRO)
    behind.touch([pro])
    behind.rest(NOW, 2.0)
    later = [NOW + seconds * SECOND_US for seconds in (19, 20, 30)]
    assert [behind.is_due(pro, moment, 0) for moment in later] == [False, True, True]
    assert [behind.is_due(pro, moment, 30 * SECOND_US) for moment in later] == [False, False, True]


@pytest.mark.parametrize("state", [PAUSED, FILLING, ARCHIVED])
def test_groups_fall_behind_when_what_they_name_changes(state: str) -> None:
    people = {"where": {"all": [{"event": "A"}, {"audience": "static"}]}}
    static = audience("static", {"kind": "static", "where": {"event": "A"}})
    reader = audience("reader", {"of": "groups", "where": {"members": "any", "where": {"audience": "people"}}})
    other = audience("other", PRO)
    evaluation = evaluation_of(static, audience("people", people), reader, other)
    assert evaluation.order() is not None and set(evaluation.order().batch) == {"static", "other"}, "one waits"  # type: ignore[union-attr]  # it was there
    evaluation.set_audience(audience("static", {"kind": "static", "where": {"event": "A"}}, state, 2), NOW)
    assert behind(evaluation) == ["reader"]


def test_groups_fall_behind_when_the_stored_members_of_what_they_name_change() -> None:
    static = audience("static", {"kind": "static", "where": {"event": "A"}})
    reader = audience("reader", {"of": "groups", "where": {"members": "any", "where": {"audience": "static"}}})
    evaluation = evaluation_of(static, reader)
    order = evaluation.order()
    assert order is not None and "reader" not in order.batch
    evaluation.batch_computed("static", 1, order.batch["static"][1], ["p1"])
    assert behind(evaluation) == [], "not before they are written: they would not be read"
    evaluation.written(evaluation.pending.take(9))
    assert behind(evaluation) == ["reader"]


def test_members_of_groups_are_known_by_partition() -> None:
    evaluation = evaluation_of(audience("pro", PRO))
    groups = [f"g{n}" for n in range(9)]
    evaluation.set_members("pro", groups, range(4), NOW)
    gone = [g for g in groups if partition_of(g, 4) == 2]
    assert gone and len(gone) < 9
    evaluation.drop_partition(2)
    evaluation.set_members("pro", ["new"], [partition_of("new", 4)], NOW)
    order = evaluation.order()
    assert order is not None
    evaluation.batch_computed("pro", 1, order.batch["pro"][1], [])
    left = {f.profile_id for f in evaluation.pending.take(99)}
    own = {g for g in groups if partition_of(g, 4) not in (2, partition_of("new", 4))}
    assert left == own | {"new"}


def test_all_workspaces_and_partitions_of_a_replica_rest_together() -> None:
    rest = Rest()
    one, other = Behind(rest), Behind(rest)
    pro = audience("pro", PRO)
    for each in (one, other):
        each.touch([pro])
    one.rest(NOW, 1.0)
    assert not other.is_due(pro, NOW + 9 * SECOND_US, 0)
    other.rest(NOW, 2.0)
    assert [one.is_due(pro, NOW + seconds * SECOND_US, 0) for seconds in (29, 30)] == [False, True]


READING: dict[str, Any] = {
    "of": "groups",
    "where": {
        "any": [
            {"trait": "tier", "eq": "gold"},
            {"members": "any", "where": {"all": [{"event": "Login"}, {"trait": "plan", "eq": "pro"}]}},
            {"members": "none", "where": {"any": [{"consent": "ads", "eq": "granted"}, {"audience": "buyers"}]}},
            {"members": "all", "where": {"sequence": [{"event": "Opened"}, {"event": "Closed"}]}},
            {"members": "any", "where": {"identifier": "email", "exists": True}},
        ]
    },
}


def of_group(profile_id: str, group_id: str, *, at_us: int = NOW, **fields: Any) -> ResolvedEvent:
    found = event(profile_id, at_us=at_us, **fields)
    found.event.group_id = group_id
    return found


def test_events_that_no_condition_reads_make_no_groups_fall_behind() -> None:
    buyers = {"where": {"any": [{"event": "Purchased"}, {"first_touch": "country", "eq": "DE"}]}}
    hidden = {"where": {"event": "Hidden"}}
    evaluation = evaluation_of(
        audience("pro", READING), audience("buyers", buyers), audience("static", {"kind": "static", **hidden})
    )

    def falls_behind(one: ResolvedEvent) -> bool:
        evaluation.happened([event("p1", "Other"), one])
        is_behind = behind(evaluation) == ["pro"]
        evaluation.behind.started("pro")
        return is_behind

    for name in ("Login", "Opened", "Closed", "Purchased"):
        assert falls_behind(event("p1", name)), name
    assert falls_behind(event("p1", kind="identify", traits={"plan": "pro"}))
    assert falls_behind(event("p1", "Other", context={"consent": {"ads": True}}))
    assert falls_behind(event("p1", "Other", context={"location": {"country": "DE"}}))
    reachable = event("p1", "Other")
    reachable.decision.identifiers.add(namespace="email", value="a@example.org")
    assert falls_behind(reachable)
    for one in (
        event("p1", "Other"),
        event("p1", "Hidden"),
        event("p1", kind="identify", traits={"tier": "gold"}),
        event("p1", "Other", context={"consent": {"mail": True}}),
    ):
        assert not falls_behind(one), one


def test_who_is_known_to_belong_to_a_group_does_not_make_it_fall_behind() -> None:
    evaluation = evaluation_of(audience("pro", PRO))

    def falls_behind(one: ResolvedEvent) -> bool:
        evaluation.happened([one])
        is_behind = behind(evaluation) == ["pro"]
        evaluation.behind.started("pro")
        return is_behind

    assert falls_behind(of_group("p1", "acme"))
    assert not falls_behind(of_group("p1", "acme", at_us=NOW - 1))
    assert not falls_behind(of_group("p1", "acme", kind="group"))
    assert falls_behind(of_group("p1", "acme", kind="group", traits={"plan": "pro"}))
    assert falls_behind(of_group("p2", "acme"))
    assert falls_behind(of_group("p1", "globex"))
    # What is not yet may come to be earlier.
    assert [falls_behind(of_group("p3", "acme", at_us=NOW + more)) for more in (9, 0, 0)] == [True, True, False]
    evaluation.touch()
    evaluation.behind.started("pro")
    assert falls_behind(of_group("p1", "acme")), "who is who may have changed"


def test_other_definitions_read_other_events() -> None:
    evaluation = evaluation_of(audience("pro", READING), audience("buyers", {"where": {"event": "Purchased"}}))
    evaluation.happened([event("p1", "Later")])
    assert behind(evaluation) == []
    later = audience("buyers", {"where": {"event": "Later"}}, generation=2)
    evaluation.follow([later, audience("pro", READING)], NOW)
    evaluation.behind.started("pro")
    evaluation.happened([event("p1", "Later")])
    assert behind(evaluation) == ["pro"]
