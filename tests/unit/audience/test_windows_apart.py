"""Counts in different windows that nobody can have together are refused by the places of both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.sense import parse_given
from headrace_audience.language.text.reading import TextError, from_text

from headrace.domain.definitions import DefinitionError

A = {"event": "A"}
WEEK, MONTH = {**A, "within": "7d"}, {**A, "within": "30d"}
NONE: dict[str, Any] = {"count": {"eq": 0}}
BIG = {"property": "value", "gt": 5}
YEAR = {"between": ["2026-01-01", "2026-12-31"]}


def both(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"all": list(parts)}


IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    (both(WEEK, {"not": MONTH}), "where.all[1].not", "where.all[0]: at least 1 there, none here"),
    (both({"not": MONTH}, WEEK), "where.all[1]", "where.all[0].not: none there, at least 1 here"),
    (both(WEEK, {**MONTH, **NONE}), "where.all[1]", "where.all[0]"),
    (both({**WEEK, "count": {"gte": 5}}, {**MONTH, "count": {"lte": 2}}), "where.all[1]", "at most 2 here"),
    (both({**MONTH, **NONE}, A, {"any": [WEEK]}, WEEK), "where.all[3]", "where.all[0]"),
    (both(A, {"not": A}), "where.all[1].not", "where.all[0]"),
    (both({**A, "within": "7cd"}, {"not": {**A, "within": "30cd"}}), "where.all[1].not", "where.all[0]"),
    (both({**A, **YEAR}, {**A, **NONE, "since": "2025-06-01"}), "where.all[1]", "where.all[0]"),
    (both({**MONTH, "older_than": "7d"}, {**MONTH, **NONE}), "where.all[1]", "where.all[0]"),
    (both({**A, **YEAR}, {**A, **NONE}), "where.all[1]", "where.all[0]"),
    (both({**WEEK, "where": [BIG]}, {**MONTH, **NONE}), "where.all[1]", "where.all[0]"),
    (both(WEEK, {**MONTH, "event": ["B", "A"], **NONE}), "where.all[1]", "where.all[0]"),
    (both(WEEK, {"not": {"any": [{"trait": "t", "eq": 1}, MONTH]}}), "where.all[1].not.any[1]", "where.all[0]"),
    (both(WEEK, both({"trait": "t", "eq": 1}, {"not": MONTH})), "where.all[1].all[1].not", "where.all[0]"),
    (both(WEEK, {"stopped": "A", "active_within": "30d", "inactive_for": "7d"}), "where.all[1]", "where.all[0]"),
    (both({"last_time": "A", **YEAR}, {**A, "since": "2027-01-01"}), "where.all[1]", "where.all[0]"),
    (both({"not": {"last_time": "A", "within": "30d"}}, WEEK), "where.all[1]", "where.all[0].not"),
    (both({"first_time": "A", "within": "7d"}, {**MONTH, **NONE}), "where.all[1]", "where.all[0]"),
    ({"any": [{"trait": "t", "eq": 1}, both(WEEK, {"not": MONTH})]}, "where.any[1].all[1].not", "where.any[1].all[0]"),
]


@pytest.mark.parametrize(("where", "place", "said"), IMPOSSIBLE)
def test_counts_that_exclude_each_other_are_refused_when_given_and_read_when_stored(
    where: dict[str, Any], place: str, said: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        parse_given(json.dumps({"where": where}))
    assert refused.value.path == place
    assert f"cannot hold together with {said}" in str(refused.value) or said in str(refused.value)
    parse_definition({"where": where})


@pytest.mark.parametrize(
    "where",
    [
        both(MONTH, {"not": WEEK}),
        both({**MONTH, "count": {"gte": 5}}, {**WEEK, "count": {"lte": 2}}),
        both({**WEEK, "count": {"gte": 2}}, {**MONTH, "count": {"lte": 2}}),
        both(WEEK, {**MONTH, "where": [BIG], **NONE}),
        both({**WEEK, "event": ["A", "B"]}, {**MONTH, **NONE}),
        both({**A, "within": "7cd"}, {"not": MONTH}),
        both(MONTH, {**A, **YEAR, **NONE}),
        both({**A, **YEAR}, {**A, **NONE, "since": "2026-06-01"}),
        both({**A, **YEAR}, {**A, **NONE, "between": ["2026-01-01", "2026-06-01"]}),
        both(MONTH, {**MONTH, "older_than": "7d", **NONE}),
        {"any": [WEEK, {"not": MONTH}]},
        {"not": both(WEEK, {"not": MONTH})},
        both({"any": [WEEK, {"trait": "t", "eq": 1}]}, {"not": MONTH}),
        both(WEEK, {"not": {"last_time": "A", "where": [BIG], "within": "30d"}}),
        both(WEEK, {"not": {"last_time": "A", "within": "30d", "older_than": "7d"}}),
        both(
            {**WEEK, "where": [{"property": "p", "eq": 1}]},
            {**MONTH, "where": [{"property": "p", "eq": True}], **NONE},
        ),
    ],
)
def test_counts_that_somebody_can_have_are_taken(where: dict[str, Any]) -> None:
    parse_given({"where": where})


def test_members_of_groups_are_looked_at() -> None:
    with pytest.raises(DefinitionError) as refused:
        parse_given({"of": "groups", "where": {"members": "any", "where": both(WEEK, {"not": MONTH})}})
    assert refused.value.path == "where.where.all[1].not"


def test_the_text_form_says_the_line_and_the_column() -> None:
    with pytest.raises(TextError, match=r"^line 2, column 9: not: cannot hold together with"):
        from_text("performed A in last 7d\nand not performed A in last 30d", parse_given)
