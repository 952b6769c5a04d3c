"""Offline evaluation and the facts that it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.evaluate import ENGINES, evaluate
from headrace_audience.offline.facts import (
    Fact,
    FactError,
    facts_of_lines,
    facts_of_people,
    facts_of_resolved,
    resolved_of,
    table_of,
)

from headrace.domain.definitions import DefinitionError
from tests.support.audience_histories import START

DAY = 86_400_000_000


def line(**more: Any) -> str:
    return json.dumps({"type": "track", "timestamp": "2026-01-01T00:00:00Z", **more})


LINES = [
    line(profile="p", event="A", userId="u1", messageId="m1", properties={"x": 1}),
    "",
    line(profile="p", type="identify", traits={"plan": "pro"}, context={"traits": {"plan": "old", "city": "Ulm"}}),
    line(profile="q", type="group", traits={"plan": "company"}, identifiers={"email": "q@example.org"}),
    line(profile="q", type="page", name="A"),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_lines_are_evaluated_by_every_engine(engine: str) -> None:
    facts = list(facts_of_lines(LINES))
    where = {"any": [{"event": "A", "within": "7d"}, {"trait": "plan", "eq": "company"}]}
    answer = evaluate(parse_definition({"where": where}), facts, START + DAY, engines=(engine,))
    assert answer == {
        "at": "2026-01-02T00:00:00Z",
        "engine": engine,
        "members": [
            {
                "profile": "p",
                "identifiers": [["user_id", "u1"]],
                "since": "2026-01-01T00:00:00Z",
                "leaves_at": "2026-01-08T00:00:00Z",
            }
        ],
        "mismatches": [],
    }


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("{", "line 1 is no valid JSON"),
        ("[]", "line 1 must be a JSON object"),
        ('{"type": "track"}', 'names no "profile"'),
        (line(profile="p", type="click"), "type must be one of"),
        ('{"profile": "p", "timestamp": "noon"}', "line 1.timestamp must be a time"),
        (line(profile="p", properties=[1]), "line 1.properties must be a JSON object"),
        (line(profile="p", type="identify", traits="pro"), "line 1.traits must be a JSON object"),
        (line(profile="p", context={"traits": 3}), "line 1.context.traits must be a JSON object"),
        (line(profile="p", identifiers=[]), "line 1.identifiers must be a JSON object"),
    ],
)
def test_wrong_lines_are_named(wrong: str, reason: str) -> None:
    with pytest.raises(FactError, match=reason.replace("[", r"\[")):
        list(facts_of_lines([wrong]))


def test_wrong_people_are_named() -> None:
    with pytest.raises(FactError, match=r"people\['p'\]\[0\] must be an object"):
        list(facts_of_people({"p": ["A"]}, START))
    with pytest.raises(FactError, match=r"people\['p'\].events must be a list"):
        list(facts_of_people({"p": {"events": {}}}, START))
    with pytest.raises(FactError, match=r"people\['p'\].traits must be a JSON object"):
        list(facts_of_people({"p": {"traits": []}}, START))
    with pytest.raises(FactError, match=r"people\['p'\]\[0\].properties must be a JSON object"):
        list(facts_of_people({"p": [{"event": "A", "timestamp": "2026-01-01", "properties": [1]}]}, START))
    for no_person in ("A", {"event": "A", "timestamp": "2026-01-01"}):
        with pytest.raises(FactError, match=r"people\['p'\] must be a list"):
            list(facts_of_people({"p": no_person}, START))


def test_resolved_events_are_the_same_facts_under_the_survivor() -> None:
    facts = list(facts_of_lines(LINES))
    resolved = [resolved_of(fact) for fact in facts]
    assert list(facts_of_resolved(resolved)) == facts
    nobody = resolved_of(Fact("", START, "m"))
    assert {fact.profile for fact in facts_of_resolved([*resolved, nobody], {"p": "r", "r": "q"})} == {"q"}
    assert table_of(facts).num_rows == len(facts)


def test_references_mean_definitions_or_members() -> None:
    facts = [Fact("p", START, "1", name="A"), Fact("q", START, "2", name="B")]
    where = {"all": [{"audience": "one"}, {"not": {"audience": "two"}}, {"not": {"audience": "unknown"}}]}
    one = parse_definition({"where": {"event": ["A", "B"]}})
    for engine in ENGINES:
        answer = evaluate(
            parse_definition({"where": where}),
            facts,
            START,
            engines=(engine,),
            audiences={"one": one, "two": ["q", "a stranger"]},
        )
        assert [member["profile"] for member in answer["members"]] == ["p"]
    with pytest.raises(DefinitionError, match="circle"):
        loop = parse_definition({"where": {"audience": "loop"}})
        evaluate(loop, facts, START, audiences={"loop": loop})


def test_an_explanation_says_what_counts_and_when_it_changes() -> None:
    facts = [
        Fact("p", START, "1", name="A"),
        Fact("p", START + DAY, "2", name="A"),
        Fact("p", START, "3", "identify", traits={"plan": "free"}),
    ]
    where = {"all": [{"event": "A", "within": "7d", "count": {"gte": 2}}, {"not": {"trait": "plan", "eq": "pro"}}]}
    raw = {"where": where}
    answer = evaluate(parse_definition(raw), facts, START + 2 * DAY, explain_profile="p", source=raw)
    explanation = answer["explanation"]
    assert (explanation["member"], explanation["changes_at"]) == (True, "2026-01-08T00:00:00Z")
    counted, negation = explanation["condition"]["parts"]
    assert (counted["kind"], counted["holds"], counted["counted"]) == ("event", True, 2)
    assert [event["message_id"] for event in counted["events"]] == ["2", "1"]
    assert negation["parts"][0]["set_by"]["message_id"] == "3"
    assert (negation["parts"][0]["value"], negation["parts"][0]["holds"]) == ("free", False)
    with pytest.raises(ValueError, match="no profile 'x'"):
        evaluate(parse_definition({"where": where}), facts, START, explain_profile="x")
    with pytest.raises(ValueError, match="engine must be one of"):
        evaluate(parse_definition({"where": where}), facts, START, engines=("guess",))
