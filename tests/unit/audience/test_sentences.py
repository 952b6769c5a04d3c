"""What an explanation says in plain words: golden cases for each kind of condition, and the fewest that must change."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from headrace_audience.batch.group_changes import GroupChanges
from headrace_audience.language import definition as language
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text
from headrace_audience.offline import sentences
from headrace_audience.offline.evaluate import evaluate
from headrace_audience.offline.facts import Fact, facts_of_people
from headrace_audience.offline.group_explain import explain_group
from headrace_audience.offline.groups import GroupReference

from headrace.domain.times import DAY_US, format_time_us, parse_time_us

AT = parse_time_us("2026-12-01T00:00:00Z")
ANN = {
    "traits": {"country": "DE", "age": 30, "address": {"city": "Ulm"}},
    "events": [
        {"event": "Purchased", "timestamp": "2026-11-03T10:15:00Z", "properties": {"value": 50}},
        {"event": "Purchased", "timestamp": "2026-11-20T10:15:00Z", "properties": {"value": 70.5, "due": "2026-12-02"}},
        {"event": "Viewed", "timestamp": "2026-11-25T10:15:00Z", "properties": {"category": "shoes"}},
    ],
}


def explained(text: str) -> dict[str, Any]:
    raw = from_text(text)
    facts = list(facts_of_people({"ann": ANN}, AT))
    definition = parse_definition(json.dumps(raw))
    answer = evaluate(definition, facts, AT, audiences={"hot": []}, explain_profile="ann", source=raw)
    found: dict[str, Any] = answer["explanation"]
    return found


GOLDEN: dict[str, str] = json.loads((Path(__file__).parents[2] / "golden" / "audience_sentences.json").read_text())
"""What is said of ann, by definition."""


@pytest.mark.parametrize("text", GOLDEN)
def test_what_is_said_of_a_condition(text: str) -> None:
    assert explained(text)["condition"]["sentence"] == GOLDEN[text]


COMPANY = (
    Fact("ann", AT - DAY_US, "m1", "group", group_id="acme", group_traits={"plan": "pro", "size": {"seats": 12}}),
    Fact("bob", AT - DAY_US, "m2", "group", group_id="acme"),
    Fact("bob", AT - DAY_US, "m3", "track", "Login"),
    Fact("", AT - DAY_US, "m4", "group", group_id="empty", group_traits={"plan": "free"}),
)
GROUP_GOLDEN: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "audience_group_sentences.json").read_text()
)
"""What is said of groups, by group and definition."""


@pytest.mark.parametrize(("group_id", "text"), [(g, text) for g, said in GROUP_GOLDEN.items() for text in said])
def test_what_is_said_of_a_group(group_id: str, text: str) -> None:
    raw = from_text(f"{text} with of groups")
    definition = parse_definition(json.dumps(raw))
    facts = GroupReference(COMPANY, {"hot": ["acme"]}).facts(definition, group_id, AT)
    found = explain_group(definition, facts, raw["where"], GroupChanges({}, complete=False))
    assert found["summary"] == GROUP_GOLDEN[group_id][text]
    assert found["member"] is found["summary"].startswith("In: ")


def test_every_kind_of_condition_has_a_sentence() -> None:
    """Whoever adds one adds what is said of it."""
    kinds = {language.All, language.Any_, language.Not}
    for union in (language.OfEvents, language.OfAttributes, language.Leaf):
        kinds |= {kind for kind in get_args(union) if isinstance(kind, type)}
    assert len(kinds) >= 16
    assert kinds == set(sentences._SENTENCES)


def test_the_fewest_conditions_that_would_have_to_change() -> None:
    wanted = 'trait country = "IN" and (performed A or performed B and performed C) and performed Purchased'
    found = explained(wanted)
    assert found["missing"] == [
        'must hold: trait country = "IN" (found: the trait country is "DE" (wanted: "IN")).',
        "must hold: performed A (found: never performed A).",
    ]
    assert found["summary"] == (
        'Out: The trait country is "DE" (wanted: "IN"). Never performed A. Never performed B. Never performed C.'
        ' To enter, a change of 2 conditions is enough: Must hold: trait country = "IN". Must hold: performed A.'
    )
    both = explained("not (performed Purchased and performed Viewed)")
    assert (both["member"], both["missing"]) == (
        False,
        ["must no longer hold: performed Purchased (found: 2 Purchased)."],
    )
    inside = explained("performed Purchased in last 30d or performed Viewed")
    assert len(inside["missing"]) == 2
    assert inside["summary"] == (
        "In: 2 Purchased in the last 30 days; no longer so from 2026-12-20T10:15:00Z on if no event comes. 1 Viewed."
        " To leave, a change of 2 conditions is enough: Must no longer hold: performed Purchased in last 30d."
        " Must no longer hold: performed Viewed. Time alone does not end it."
    )
    leaving = explained("performed Purchased in last 30d and not performed A")
    assert leaving["summary"].endswith("By time alone it leaves at 2026-12-20T10:15:00Z.")


def test_a_condition_that_is_named_twice_changes_once() -> None:
    found = explained("(performed A or performed B) and (performed B or performed C)")
    assert found["missing"] == ["must hold: performed B (found: never performed B)."]
    assert not found["fewer_possible"]


def test_where_no_change_is_enough_the_summary_says_so() -> None:
    found = explained("performed A and not performed A")
    assert found["missing"] == []
    assert found["summary"].endswith("To enter, no change of conditions is enough.")


def test_a_definition_that_is_too_large_to_try_all_says_so() -> None:
    text = " and ".join(f"(performed E{n} or performed E{(n + 1) % 60})" for n in range(60))
    found = explained(text)
    assert found["fewer_possible"]
    told = "To enter, a change of 30 conditions is enough, perhaps of fewer: Must hold: performed E1."
    assert told in found["summary"]


def test_a_long_summary_says_how_many_more_conditions_there_are() -> None:
    found = explained(" and ".join(f"performed A{n}" for n in range(20)))
    assert "And 15 more conditions." in found["summary"]
    assert len(found["missing"]) == 20


def test_explaining_offline_does_not_take_the_square_of_the_events() -> None:
    events = [{"event": "Viewed", "timestamp": format_time_us(AT - n * 60_000_000)} for n in range(6_000)]
    facts = list(facts_of_people({"ann": {"events": events}}, AT))
    raw = from_text("performed Viewed in last 7d count >= 5990")
    definition = parse_definition(json.dumps(raw))
    began = time.process_time()
    found = evaluate(definition, facts, AT, explain_profile="ann", source=raw)["explanation"]
    assert found["changes_at"] == format_time_us(AT - 5_989 * 60_000_000 + 7 * DAY_US)
    assert time.process_time() - began < 30, "the square takes minutes"
