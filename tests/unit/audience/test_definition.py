"""Wrong definitions: each is refused with the place of the fault and what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.engine.conditions import key_of, state_of_key, states_of
from headrace_audience.language.definition import check_references
from headrace_audience.language.parser import parse_definition

from headrace.domain.definitions import DefinitionError

WRONG: list[tuple[Any, str, str]] = [
    ("{", "", "no valid JSON"),
    ("[]", "", "must be an object"),
    ("{}", "", "needs 'where'"),
    ({"where": {}}, "where", "is empty"),
    ({"where": []}, "where", "must be an object"),
    ({"where": {"event": "A"}, "wehre": 1}, "wehre", "unknown key 'wehre'"),
    ({"where": {"event": "A"}, "kind": "weekly"}, "kind", "dynamic"),
    ({"where": {"event": "A"}, "refresh": "6"}, "refresh", "is no duration"),
    ({"where": {"event": "A"}, "refresh": 6}, "refresh", 'must be "continuous" or a duration'),
    ({"where": {"event": "A"}, "refresh": "59s"}, "refresh", 'must be "1m" to "366d"'),
    ({"where": {"event": "A"}, "refresh": "367d"}, "refresh", 'must be "1m" to "366d"'),
    ({"where": {"event": "A"}, "refresh": "3650000d"}, "refresh", 'must be "1m" to "366d"'),
    ({"where": {"event": "A"}, "refresh": "1d", "kind": "static"}, "refresh", "computed once"),
    ({"where": {"event": "A", "trait": "b"}}, "where", "has both"),
    ({"where": {"event": ""}}, "where.event", "not empty"),
    ({"where": {"event": "A" * 201}}, "where.event", "longer than 200"),
    ({"where": {"event": []}}, "where.event", "empty list"),
    ({"where": {"event": ["A", 3]}}, "where.event[1]", "text"),
    ({"where": {"event": "A", "within": "30"}}, "where.within", "no duration"),
    ({"where": {"event": "A", "within": "0d"}}, "where.within", "longer than nothing"),
    ({"where": {"event": "A", "within": "9999w"}}, "where.within", "100 years"),
    ({"where": {"event": "A", "within": "1d", "since": "2026-01-01"}}, "where", "do not go together"),
    ({"where": {"event": "A", "within": "1d", "older_than": "1d"}}, "where.older_than", "shorter"),
    ({"where": {"event": "A", "since": "yesterday"}}, "where.since", "must be a time"),
    ({"where": {"event": "A", "between": ["2026-02-01", "2026-01-01"]}}, "where.between", "before the first"),
    ({"where": {"event": "A", "count": 3}}, "where.count", 'such as {"gte": 2}'),
    ({"where": {"event": "A", "count": {"gte": -1}}}, "where.count.gte", "whole number"),
    ({"where": {"event": "A", "count": {"gte": 1.5}}}, "where.count.gte", "whole number"),
    ({"where": {"event": "A", "count": {"gte": True}}}, "where.count.gte", "whole number"),
    ({"where": {"event": "A", "count": {"gte": 10_001}}}, "where.count.gte", "at most"),
    ({"where": {"event": "A", "count": {"gte": 1, "lte": 2}}}, "where.count", "one comparison"),
    ({"where": {"event": "A", "where": [{"prop": "x", "eq": 1}]}}, "where.where[0]", "such as"),
    ({"where": {"event": "A", "where": [{"property": "a..b", "eq": 1}]}}, "where.where[0].property", "single dots"),
    ({"where": {"event": "A", "where": [{"property": 'a"b', "eq": 1}]}}, "where.where[0].property", "quotes"),
    ({"where": {"event": "A", "where": [{"property": "x", "eq": None}]}}, "where.where[0].eq", "exists"),
    ({"where": {"event": "A", "where": [{"property": "x", "matches": "("}]}}, "where.where[0].matches", "RE2"),
    (
        {"where": {"event": "A", "where": [{"property": "x", "in_last": "3d"}], "sum": {"of": "y", "gt": 1}}},
        "where.where",
        '"in_last" goes with a count of events',
    ),
    (
        {"where": {"last_time": "A", "where": [{"property": "x", "in_last": "3d"}]}},
        "where.where[0].in_last",
        "goes only with traits, and with a count of events",
    ),
    ({"where": {"trait": "x", "gt": "3"}}, "where.gt", "must be a number"),
    ({"where": {"trait": "x", "gt": 3, "lt": 5}}, "where", "has 'gt' and 'lt'"),
    ({"where": {"trait": "x", "gt": 3, "ignore_case": True}}, "where.ignore_case", "goes only with"),
    ({"where": {"trait": "x", "eq": "\ud800"}}, "where.eq", "surrogate"),
    ({"where": {"identifier": "email", "exists": "yes"}}, "where.exists", "true or false"),
    ({"where": {"all": [{"event": "A"}] * 600}}, "where.all[299]", "more than 300"),
    ({"where": {"event": "A", "where": [{"property": "x", "eq": 1}] * 500}}, "where", "more than 300"),
    ({"where": {"any": [{"sequence": [{"event": "A"}] * 10}] * 50}}, "where.any[27]", "more than 300"),
    ({"where": {"sequence": [{"event": "A"}, {"event": "B", "same": ""}]}}, "where.sequence[1].same", "not empty"),
    ({"where": {"sequence": [{"event": "A"}, {"event": "B", "same": None}]}}, "where.sequence[1].same", "a property"),
    (
        {"where": {"sequence": [{"event": "A", "negated": True}, {"event": "B"}]}},
        "where.sequence[0].negated",
        "there is no step before it",
    ),
    (
        {"where": {"sequence": [{"event": "A"}, {"event": "B", "negated": True, "within": "30d"}], "within": "1cd"}},
        "where.sequence[1].within",
        "must be shorter than where.within",
    ),
    ('{"where": ' + '{"not": ' * 60 + '{"event": "A"}' + "}" * 61, "where" + ".not" * 50, "50 deep"),
    ('{"where": {"trait": "x", "eq": 1e999}}', "where.eq", "finite"),
]


@pytest.mark.parametrize(("source", "path", "reason"), WRONG)
def test_wrong_definitions_are_refused_where_they_are_wrong(source: Any, path: str, reason: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse_definition(source)
    assert raised.value.path == path
    assert reason in raised.value.reason


def test_states_are_shared_and_their_keys_describe_them() -> None:
    definition = parse_definition(
        {
            "where": {
                "all": [
                    {"event": "A", "within": "90d"},
                    {"event": ["A", "A"], "within": "14d"},
                    {"event": "A", "within": "14d", "older_than": "7d"},
                    {"event": "A", "count": {"gte": 0}},
                    {"event": "B", "where": [{"property": "x.y", "in": [1, "a", True]}], "count": {"eq": 3}},
                    {"trait": "city", "eq": "Ulm", "ignore_case": True},
                    {"identifier": "email", "exists": False},
                    {"audience": "other"},
                ]
            }
        }
    )
    states = states_of(definition)
    assert len(states) == 5
    for key, state in states.items():
        assert state_of_key(key) == state
        assert key_of(state_of_key(key)) == key
        json.loads(key)


def test_audiences_come_after_those_that_they_name() -> None:
    named = {
        name: parse_definition({"where": {"any": [{"audience": other}, {"event": "A"}]}})
        for name, other in (("a", "b"), ("b", "c"), ("c", "unknown"))
    }
    assert check_references(named) == ["c", "b", "a"]
