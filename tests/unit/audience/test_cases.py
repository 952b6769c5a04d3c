"""The worked cases of tests/cases/audience.json, by all three evaluators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.evaluate import ENGINES, evaluate
from headrace_audience.offline.facts import facts_of_people

from headrace.domain.definitions import DefinitionError
from headrace.domain.times import parse_time_us

CASES = json.loads((Path(__file__).parents[2] / "cases" / "audience.json").read_text())["cases"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any], engine: str) -> None:
    at_us = parse_time_us(case["at"])
    if "expect_error" in case:
        with pytest.raises(DefinitionError) as raised:
            parse_definition(case["definition"])
        assert case["expect_error"] in str(raised.value)
        return
    definition = parse_definition(case["definition"])
    facts = list(facts_of_people(case["people"], at_us))
    answer = evaluate(definition, facts, at_us, engines=(engine,))
    members = {member["profile"]: member for member in answer["members"]}
    assert sorted(members) == sorted(case["expect_members"])
    for profile, member in members.items():
        assert member["identifiers"] == [["user_id", profile]]
    for profile, moment in case.get("leaves_at", {}).items():
        assert members[profile]["leaves_at"] == moment
    for profile, moment in case.get("enters_at", {}).items():
        # Nobody is in just before, and the person is in at exactly that moment.
        entry = parse_time_us(moment)
        before = evaluate(definition, facts, entry - 1, engines=(engine,))
        then = evaluate(definition, facts, entry, engines=(engine,))
        assert profile not in [m["profile"] for m in before["members"]]
        assert profile in [m["profile"] for m in then["members"]]
        assert next(m["since"] for m in then["members"] if m["profile"] == profile) == moment
        asked = {"explain_profile": profile, "source": case["definition"]}
        explained = evaluate(definition, facts, at_us, engines=(engine,), **asked)["explanation"]
        assert (explained["member"], explained["changes_at"]) == (False, moment)


def test_the_evaluators_agree_on_every_supported_case() -> None:
    for case in CASES:
        if "expect_error" in case:
            continue
        at_us = parse_time_us(case["at"])
        facts = list(facts_of_people(case["people"], at_us))
        answer = evaluate(parse_definition(case["definition"]), facts, at_us, engines=ENGINES)
        assert answer["mismatches"] == []
