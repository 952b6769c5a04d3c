"""Continuous audiences of groups: when they may be behind what they read, and who is in them."""

from __future__ import annotations

from typing import Any

import pytest
from headrace_audience.behind import Behind
from headrace_audience.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import ACTIVE, ARCHIVED, FILLING, PAUSED

from headrace.domain.ids import partition_of
from headrace.domain.times import SECOND_US

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
