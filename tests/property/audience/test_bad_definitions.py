"""Whatever stands in a definition, in whichever of its places: it is read or refused, by an error that can be sent."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from headrace_audience.language.sense import parse_given, passed_by_all
from headrace_audience.language.text.printing import to_text
from headrace_audience.language.text.reading import TextError, from_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.domain.definitions import DefinitionError
from tests.property.audience.test_text_form import choices, definition

WEIRD: list[Any] = [
    None, True, 0, -1, 2.5, 10**400, float("nan"), float("inf"), "", " ", "\0", "\ud800", "x" * 5_000, "5", "1d", "0d",
    "3660000d", "9" * 5_000 + "d", "99999999999999999999cd", "2026-02-30", [], [[]], [None], ["A", "A"], [2, 1],
    [float("nan"), 1], {}, {"gte": "1"}, {"gte": 10**30}, {"lt": 0}, {"of": "a..b", "gt": 1}, {"event": "A"},
    {"\ud800": 1}, {"not": {"not": {}}}, {"all": [{"any": []}]}, "A\n\x1b[2J",
]  # fmt: skip

JUNK = ["9" * 5_000, "1e999", "-0", "\0", '"\\ud800"', "not " * 200, "(" * 300, "\ufeff", '"', "\u2028"]


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inside] + [place for _, part in inside for place in places(part)]


@settings(max_examples=200)
@given(
    r=choices, where=st.integers(0, 1_000), weird=st.sampled_from(WEIRD), key=st.sampled_from(["", "count", "\ud800"])
)
@example(r=Random(1), where=0, weird=None, key="")
def test_anything_in_any_place_is_read_or_refused(r: Random, where: int, weird: Any, key: str) -> None:
    given_definition = definition(r)
    found = places(given_definition)
    container, at = found[where % len(found)]
    if key and isinstance(container, dict):
        container[key] = weird
    else:
        container[at] = weird
    try:
        parse_given(json.dumps(given_definition))
    except DefinitionError as error:
        str(error).encode()
        assert str(error).isprintable() and len(str(error)) < 2_100
        return
    passed_by_all(given_definition)
    # What is taken can be shown, and what is shown is taken.
    assert parse_given(from_text(to_text(given_definition))) == parse_given(given_definition)


@settings(max_examples=120, deadline=None)
@given(
    r=choices,
    place=st.integers(0, 200),
    junk=st.sampled_from(
        ["9" * 5_000, "1e999", "-0", "\0", '"\\ud800"', "not " * 200, "(" * 300, "\ufeff", '"', "\u2028"]
    ),
)
def test_junk_in_a_text_is_read_or_refused(r: Random, place: int, junk: str) -> None:
    text = to_text(definition(r))
    # Often in the place of a number, where a value is expected.
    numbers = [found.span() for found in re.finditer(r"(?<![\w.\"-])\d+(?![\w.\"-])", text)]
    start, end = numbers[place % len(numbers)] if numbers and place % 2 else (place, place)
    try:
        parse_given(from_text(f"{text[:start]} {junk} {text[end:]}", parse_given))
    except TextError as error:
        assert str(error).isprintable() and str(error).startswith("line ")
