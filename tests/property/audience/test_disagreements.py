"""Examples on which evaluators once disagreed: all of them say what is right, however the events come."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from headrace_audience.batch import queries
from headrace_audience.offline.evaluate import evaluate
from headrace_audience.offline.facts import table_of

from headrace.domain.times import format_time_us, parse_time_us
from tests.property.audience.test_reassigned_agree import check
from tests.support import audience_cases
from tests.support.audience_cases import Case, answer, expected
from tests.support.audience_lives import Delivery, Life

FILES = sorted(audience_cases.FOLDER.glob("*.json"))
cases = pytest.mark.parametrize("case", list(map(audience_cases.read, FILES)), ids=[path.stem for path in FILES])


def is_life(case: Case) -> bool:
    """Whether identity changes its mind in it."""
    return any("resolve" in step for step in case.steps)


@cases
def test_the_reference_says_what_is_right(case: Case, tmp_path: Path) -> None:
    facts = case.facts
    if is_life(case):
        facts = lived(case, tmp_path).facts()
    assert expected(case.asked, facts, case.at_us) == case.expect


@cases
def test_sql_says_what_is_right(case: Case, tmp_path: Path) -> None:
    profiles = sorted(case.expect)
    if case.asked.last.of == "groups":
        assert groups_found(case, "batch") == case.expect
        return
    if is_life(case):
        found = lived(case, tmp_path).by_batch(case.asked.last, case.at_us, profiles)
    else:
        with duckdb.connect() as connection:
            connection.register("events", table_of(case.facts))
            found = queries.outlook(connection, case.asked.last, case.at_us, case.asked.meanings, profiles=profiles)
            members = queries.evaluate(connection, case.asked.last, case.at_us, case.asked.meanings)
        assert members == [profile for profile in profiles if case.expect[profile]["member"]]
    assert {o.profile: answer(o.member, o.since_us, o.changes_at_us) for o in found} == case.expect


@cases
def test_the_engine_says_what_is_right(case: Case, tmp_path: Path) -> None:
    if case.asked.last.of == "groups":
        assert groups_found(case, "incremental") == case.expect
        return
    members = {profile: said["changes_at"] for profile, said in case.expect.items() if said["member"]}
    if is_life(case):
        check(lived(case, tmp_path))
        return
    found = evaluate(case.asked.last, case.facts, case.at_us, audiences=case.asked.meanings)["members"]
    assert {member["profile"]: member["leaves_at"] for member in found} == members
    definitions = case.asked.definitions
    if len(definitions) < len(case.asked.meanings):
        return  # a list of members cannot be delivered
    steps = case.steps or [
        {"clock": format_time_us(case.at_us)},
        *({"arrive": [fact.message_id]} for fact in case.facts),
        {"clock": format_time_us(case.at_us)},
    ]
    delivery = Delivery(definitions, case.facts, parse_time_us(steps[0]["clock"]))
    for step in steps[1:]:
        delivery.do(step)
    engine, audience_id = delivery.engine, list(definitions)[-1]
    changes = {profile: engine.next_flip_us(audience_id, profile) for profile in case.expect}
    assert {
        profile: (profile in delivery.members[audience_id], None if us is None else format_time_us(us))
        for profile, us in changes.items()
    } == {profile: (said["member"], said["changes_at"]) for profile, said in case.expect.items()}


def groups_found(case: Case, engine: str) -> dict[str, dict[str, bool]]:
    found = evaluate(case.asked.last, case.facts, case.at_us, engines=(engine,), audiences=case.asked.meanings)
    members = {member["group"] for member in found["members"]}
    return {group_id: {"member": group_id in members} for group_id in case.expect}


def lived(case: Case, folder: Path) -> Life:
    life = Life(case.asked.definitions, case.facts, parse_time_us(case.steps[0]["clock"]), str(folder))
    for step in case.steps[1:]:
        life.do(step)
    return life
