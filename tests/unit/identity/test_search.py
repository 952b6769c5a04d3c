"""What people are found by: terms of traits, beginnings of identifiers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_identity.people.search import (
    MAX_TEXT,
    TraitQuery,
    beginnings,
    first_identifier,
    first_term,
    text_of,
    trait_terms,
)
from headrace_identity.resolving.graph import Profile, TraitValue


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Pune", "pune"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("", ""),
        (3, "3"),
        (3.0, "3"),
        (19.9, "19.9"),
        (-2, "-2"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ({"a": 1}, None),
        ([1], None),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        ("x" * (MAX_TEXT + 1), None),
        ("\\" * MAX_TEXT, "\\" * MAX_TEXT),
    ],
)
def test_values_as_text(value: Any, text: str | None) -> None:
    assert text_of(json.dumps(value).encode()) == text


def _traits(**values: Any) -> dict[str, TraitValue]:
    return {name: TraitValue(json.dumps(value).encode(), 1, "m", "web") for name, value in values.items()}


@pytest.mark.parametrize(
    ("value", "prefix", "found"),
    [("PRO", False, True), ("pr", False, False), ("pr", True, True), ("ro", True, False), ("pro!", True, False)],
)
def test_a_trait_query_and_its_bounds_agree(value: str, prefix: bool, found: bool) -> None:
    query = TraitQuery.of("plan", value, prefix=prefix)
    traits = _traits(plan="Pro", other="pro")
    start, end = query.bounds
    assert query.finds(traits) is found
    assert any(start <= term < end for term in trait_terms(traits)) is found


@pytest.mark.parametrize(
    ("namespace", "typed", "country", "expected"),
    [
        ("email", " Ann@", None, ["ann@"]),
        ("user_id", " U1 ", None, ["U1"]),
        ("phone", "+91 (98) 76-5", None, ["+91987" + "65"]),
        ("phone", "0091 98", "IN", ["+9198"]),
        ("phone", "98", None, ["+98"]),
        ("phone", "098", "IN", ["+098", "+9198"]),
        ("phone", "91", "IN", ["+91"]),
        ("phone", "ext", "IN", ["ext"]),
        ("phone", "-", "IN", []),
    ],
)
def test_how_an_identifier_may_begin(namespace: str, typed: str, country: str | None, expected: list[str]) -> None:
    assert beginnings(namespace, typed, country) == expected


def test_somebody_is_shown_at_the_first_place() -> None:
    identifiers = [("email", "b@x"), ("email", "a@x"), ("user_id", "a"), ("anonymous_id", "abc")]
    assert first_identifier(identifiers, "", "a", None) == ("anonymous_id", "abc")
    assert first_identifier(identifiers, "email", "", None) is None
    assert first_identifier(identifiers, "email", "B", None) == ("email", "b@x")
    assert first_identifier(identifiers, "email", "c", None) is None
    query = TraitQuery.of("plan", "p", prefix=True)
    parts = [Profile("p2", 1, ["p2"], traits=_traits(plan="pro")), Profile("p1", 1, ["p1"], traits=_traits(plan="PRO"))]
    assert first_term(query, parts) == ("plan\x1fpro", "p1")
    assert first_term(TraitQuery.of("plan", "q", prefix=True), parts) is None
