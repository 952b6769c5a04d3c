"""The worked cases of other systems, through the offline replay that the service shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headrace_identity.resolving.offline import WORKSPACE, replay_lines

from headrace.domain.ids import profile_id

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "cases/identity.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    rules = json.dumps(case["rules"]) if "rules" in case else None
    result = replay_lines(rules, map(json.dumps, case["events"]))

    expected = case["expect"]
    partition = sorted(sorted(map(list, profile["identifiers"])) for profile in result["profiles"])
    assert partition == sorted(sorted(profile) for profile in expected["profiles"])
    ends_on = {m: profile["id"] for profile in result["profiles"] for m in profile["message_ids"]}
    for message, creator in expected.get("profile_of", {}).items():
        assert ends_on[message] == profile_id(WORKSPACE, creator), message
    if "traits" in expected:
        (traits,) = [p["traits"] for p in result["profiles"] if p["traits"]]
        assert expected["traits"].items() <= traits.items()  # the cases leave out email and phone


def test_every_case_has_an_id_of_its_own() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) >= 29
