"""Comparisons that nobody passes are refused by their place; those that everybody passes are told of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.language.definition import check_references
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.sense import parse_given, passed_by_all
from headrace_audience.language.text.reading import TextError, from_text

from headrace.domain.definitions import DefinitionError

A = {"event": "A"}


def of_p(*of: dict[str, Any]) -> dict[str, Any]:
    return {"event": "A", "where": [{"property": "p", **one} for one in of]}


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({**A, "count": {"lt": 0}}, "where.count.lt"),
    ({"all": [A, {"not": {**A, "count": {"lt": 0}}}]}, "where.all[1].not.count.lt"),
    (
        {"regularly": "A", "period": "1d", "periods": 3, "at_least": 1, "count": {"lt": 0}},
        "where.count.lt",
    ),
    *(
        ({**A, "distinct": {"of": "p", op: value}}, f"where.distinct.{op}")
        for op, value in (
            ("lt", 0),
            ("lte", -1),
            ("eq", -1),
            ("eq", 1.5),
            ("between", [-3, -1]),
            ("between", [1.2, 1.8]),
        )
    ),
    ({"restarted": "A", "inactive_for": "22000d", "active_within": "22000d"}, "where.inactive_for"),
    ({"restarted": "A", "inactive_for": "22000cd", "active_within": "22000cd"}, "where.inactive_for"),
    (of_p({"gt": 5}, {"lt": 5}), "where.where[1].lt"),
    (of_p({"gte": 5}, {"neq": 6}, {"eq": 4}), "where.where[2].eq"),
    (of_p({"between": [1, 2]}, {"between": [3, 4]}), "where.where[1].between"),
    (of_p({"eq": "a"}, {"eq": "b"}), "where.where[1].eq"),
    (of_p({"in": ["a", "c"]}, {"eq": "b"}), "where.where[1].eq"),
    (of_p({"eq": "b"}, {"in": ["a", "c"]}), "where.where[1].in"),
    (of_p({"in": [1, 2]}, {"in": [3, 4]}), "where.where[1].in"),
    (of_p({"in": [1, 2]}, {"gt": 2}), "where.where[1].gt"),
    (of_p({"in": ["a", "b"]}, {"not_in": ["b", "a"]}), "where.where[1].not_in"),
    (of_p({"eq": "a"}, {"neq": "A", "ignore_case": True}), "where.where[1].neq"),
    (of_p({"eq": "ab"}, {"starts_with": "b"}), "where.where[1].starts_with"),
    (of_p({"after": "2026-02-01"}, {"before": "2026-01-01"}), "where.where[1].before"),
    (of_p({"before": "2026-01-01"}, {"after": "2026-01-01"}), "where.where[1].after"),
    (of_p({"eq": "2026-01-05"}, {"before": "2026-01-01"}), "where.where[1].before"),
    (
        {"all": [{"trait": "plan", "in": ["a"]}, A, {"trait": "plan", "eq": "b"}]},
        "where.all[2].eq",
    ),
    ({"all": [{"consent": "ads", "eq": "granted"}, {"consent": "ads", "eq": "denied"}]}, "where.all[1].eq"),
    ({"all": [{"consent": "ads", "exists": False}, {"consent": "ads", "eq": "denied"}]}, "where.all[1].eq"),
    (of_p({"exists": False}, {"eq": "b"}), "where.where[1].eq"),
    (of_p({"contains": "b"}, {"exists": False}), "where.where[1].exists"),
    (
        {"sequence": [A, of_p({"gt": 2}, {"lt": 1})]},
        "where.sequence[1].where[1].lt",
    ),
    ({"all": [{"trait": "age", "gt": 30}, A, {"trait": "age", "lt": 20}]}, "where.all[2].lt"),
    ({"all": [{"not": {"trait": "age", "gt": 20}}, {"trait": "age", "gt": 30}]}, "where.all[0].not.gt"),
    ({"all": [{"trait": "age", "between": [5, 6]}, {"not": {"trait": "age", "gte": 5}}]}, "where.all[1].not.gte"),
    (
        {"all": [{"consent": "ads", "eq": "granted"}, {"not": {"consent": "ads", "eq": "granted"}}]},
        "where.all[1].not.eq",
    ),
]


@pytest.mark.parametrize(("where", "place"), IMPOSSIBLE)
def test_what_nobody_passes_is_refused_when_it_is_given_and_read_when_it_is_stored(
    where: dict[str, Any], place: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        parse_given(json.dumps({"where": where}))
    assert refused.value.path == place
    parse_definition({"where": where})


@pytest.mark.parametrize(
    "where",
    [
        {**A, "count": {"lt": 1}},
        {**A, "count": {"eq": 0}},
        {"restarted": "A", "inactive_for": "18300d", "active_within": "18300d"},
        {**A, "distinct": {"of": "p", "lt": 0.5}},
        {**A, "distinct": {"of": "p", "between": [-1, 0]}},
        {**A, "distinct": {"of": "p", "between": [1.5, 2]}},
        {**A, "sum": {"of": "p", "lt": 0}},
        of_p({"gte": 5}, {"lte": 5}),
        of_p({"eq": "5"}, {"eq": 5}),
        of_p({"eq": "a", "ignore_case": True}, {"eq": "A"}),
        of_p({"neq": "a"}, {"exists": False}),
        of_p({"in": ["a", "b"]}, {"in": ["b", "c"]}),
        of_p({"in": ["a", "b"]}, {"neq": "a"}),
        of_p({"in": [1, 9]}, {"gt": 5}),
        of_p({"eq": "A"}, {"in": ["a"], "ignore_case": True}),
        of_p({"after": "2026-01-01"}, {"before": "2026-01-02"}),
        of_p({"eq": "2026-01-01"}, {"after": "2025-12-31"}),
        {"all": [{"trait": "end", "in_last": "1d"}, {"trait": "end", "eq": "2026-01-01"}]},
        {"all": [{"consent": "ads", "eq": "granted"}, {"consent": "mail", "eq": "denied"}]},
        of_p({"gt": 5}, {"contains": "a"}),
        of_p({"after": "2026-01-01"}, {"lt": 5}),
        {"any": [{"trait": "age", "gt": 30}, {"trait": "age", "lt": 20}]},
        {"all": [{"trait": "age", "gt": 20}, {"not": {"trait": "age", "gt": 30}}]},
        {"all": [{"trait": "a", "gt": 30}, {"not": {"trait": "b", "gt": 30}}]},
        {"all": [{"trait": "a", "in": [1, 2]}, {"not": {"trait": "a", "eq": 1}}]},
        {"all": [{"trait": "tags", "contains": "a"}, {"trait": "tags", "contains": "b"}]},
        {"event": "A", "where": [{"property": "x", "in": [0, "pro"]}, {"property": "x", "gt": 1}]},
    ],
)
def test_what_somebody_may_pass_is_taken(where: dict[str, Any]) -> None:
    assert passed_by_all({"where": where}) == []
    parse_given({"where": where})


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ({"any": [A, {**A, "count": {"gte": 0}}]}, "where.any[1].count"),
        ({**A, "distinct": {"of": "p", "gt": -1}}, "where.distinct"),
        ({**A, "distinct": {"of": "p", "neq": 0.5}}, "where.distinct"),
    ],
)
def test_what_everybody_passes_is_told_of(where: dict[str, Any], place: str) -> None:
    parse_given({"where": where})
    (said,) = passed_by_all({"where": where})
    assert said.startswith(f"{place}: every number is right here")


def test_members_of_groups_are_looked_at() -> None:
    where = {"members": "any", "where": {"any": [A, {**A, "count": {"lt": 0}}]}}
    with pytest.raises(DefinitionError) as refused:
        parse_given({"of": "groups", "where": where})
    assert refused.value.path == "where.where.any[1].count.lt"


def test_the_text_form_says_the_line_and_the_column() -> None:
    with pytest.raises(TextError, match=r"^line 2, column 21: lt: no number of events"):
        from_text("performed A or\nperformed B count < 0", parse_given)


def test_circles_and_wrong_kinds_are_placed_where_the_audience_is_named() -> None:
    def of(where: dict[str, Any], kind: str = "people") -> Any:
        return parse_definition({"of": kind, "where": where})

    circle = {
        "a": of({"any": [A, {"not": {"audience": "b"}}]}),
        "b": of({"audience": "c"}),
        "c": of({"all": [{"audience": "a"}]}),
    }
    for about, place in (
        ("a", "where.any[1].not.audience"), ("b", "where.audience"), ("c", "where.all[0].audience"),
        (None, "where.any[1].not.audience"),
    ):  # fmt: skip
        with pytest.raises(DefinitionError, match="in a circle: a -> b -> c -> a") as refused:
            check_references(circle, about)
        assert refused.value.path == place

    mixed = {
        "people": of(A),
        "groups": of({"all": [{"members": "all", "where": {"any": [A, {"audience": "companies"}]}}]}, "groups"),
        "companies": of({"trait": "plan", "eq": "pro"}, "groups"),
    }
    with pytest.raises(DefinitionError, match="'companies' is of groups; here one of people is needed") as refused:
        check_references(mixed)
    assert refused.value.path == "where.all[0].where.any[1].audience"


@pytest.mark.parametrize(
    ("where", "is_window"),
    [
        ({**A, "within": "9999w"}, True),
        ({**A, "within": "99999cd"}, True),
        ({"trait": "end", "in_last": "9999w"}, False),
        ({"stopped": "A", "active_within": "9999w", "inactive_for": "1d"}, False),
        ({"stopped": "A", "active_within": "99999cd", "inactive_for": "1cd"}, False),
        ({"regularly": "A", "period": "9999w", "periods": 2, "at_least": 1}, False),
        ({"sequence": [A, {**A, "within": "9999w"}]}, False),
    ],
)
def test_that_all_events_count_without_it_is_said_of_windows_only(where: dict[str, Any], is_window: bool) -> None:
    with pytest.raises(DefinitionError, match=r"100 years|36600 days") as refused:
        parse_given({"where": where})
    assert ("without a window all events count" in str(refused.value)) is is_window
