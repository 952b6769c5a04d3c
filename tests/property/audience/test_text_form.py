"""The text form of definitions: what is printed is read again, and wrong texts are refused by their place."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.printing import KEYWORDS, to_text
from headrace_audience.language.text.reading import TextError, from_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.domain.definitions import DefinitionError
from tests.support import audience_histories as random

choices = st.randoms(use_true_random=False)
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), st.sampled_from(sorted(KEYWORDS))
)


def definition(r: Random) -> dict[str, Any]:
    options = {"kind": r.choice(("dynamic", "static")), "time_zone": r.choice(random.ZONES)}
    options["refresh"] = "continuous" if options["kind"] == "static" else r.choice(("continuous", "6h", "1d"))
    chosen = {key: value for key, value in options.items() if r.randint(0, 2) == 2}
    if r.randint(0, 4) == 4:
        if chosen.get("kind") != "static" and chosen.get("refresh") == "continuous":
            del chosen["refresh"]  # dynamic audiences of groups are refreshed at intervals
        return {**chosen, "of": "groups", "where": random.of_groups(r, ("one",))}
    return {**chosen, "where": random.condition(r, ("one", "lapsed-buyers"), depth=3)}


@settings(max_examples=120, deadline=None)
@given(r=choices)
def test_what_is_printed_is_read_again(r: Random) -> None:
    found = definition(r)
    assert from_text(to_text(found)) == found


@given(name=names, value=names)
def test_any_name_and_any_text(name: str, value: str) -> None:
    where = {"event": [name], "where": [{"property": "a.b", "contains": value}]}
    try:
        parse_definition({"where": where})
    except DefinitionError:
        return
    assert from_text(to_text({"where": where})) == {"where": where}


@settings(max_examples=120)
@given(r=choices, junk=st.text(max_size=6), place=st.integers(0, 200), cut=st.integers(0, 20))
@example(r=Random(1), junk="\x00", place=0, cut=0)
def test_any_text_is_read_or_refused_by_its_place(r: Random, junk: str, place: int, cut: int) -> None:
    text = to_text(definition(r))
    broken = text[:place] + junk + text[place + cut :]
    try:
        parse_definition(from_text(broken))
    except TextError as error:
        lines = broken.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            'performed "Product viewed" in last',
            "line 1, column 35: the text ends here; expected a duration such as 30d",
        ),
        ("performed A in last 30", "line 1, column 21: '30' is not expected here; expected a duration such as 30d"),
        ("performed A and\n  trait plan", "line 2, column 13: the text ends here; expected"),
        ("performed A with", "line 1, column 17: the text ends here; expected kind, of, refresh, time"),
        ("trait x in (a; b)", 'line 1, column 14: \';\' is not expected here; expected ")", ","'),
        (
            "performed Product viewed",
            "line 1, column 19: 'viewed' is not expected here; expected and, between, count, in, or, since, sum(...),"
            " avg(...), min(...), max(...) or distinct(...), the end, where, with; a name of several words stands in",
        ),
        ("trait a = null", "line 1, column 11: null is no value to compare with"),
        ("trait country in ()", "line 1, column 19: ')' is not expected here; expected"),
        ("performed A\nand performed B in last 0d", "line 2, column 25: within: must be longer than nothing"),
        ("stopped A active within 1d inactive for 2d", "line 1, column 41: inactive_for: inactive_for must be shorter"),
        ('performed A where (x matches "(")', "line 1, column 30: matches: is no RE2 regular expression"),
        (
            "performed A where (a = 1, b = 2) in last 1d until 2d ago",
            "line 1, column 51: older_than: older_than must",
        ),
        ("performed A between 2026-02-01 and 2026-01-01", "line 1, column 21: between: the second time is before"),
        ("performed A between 2026-01-01 and 2026-13-01", "line 1, column 36: between[1]: must be a time"),
        ("performed A count in (1, 2,\n 3.5)", "line 2, column 2: in[2]: must be a whole number"),
        ("performed A count >= 1e3", "line 1, column 22: gte: must be a whole number"),
        ("performed A sum(x) > true", "line 1, column 22: gt: must be a number"),
        ("performed A\n sum(a..b) > 1", "line 2, column 6: of: must be keys with single dots"),
        ("sequence (A then not B where (p contains true, q > x) then C)", "line 1, column 52: gt: must be a number"),
        ("sequence (A then\nB within 0h) in last 1d", "line 2, column 10: within: must be longer than nothing"),
        ("sequence (not A then B)", "line 1, column 11: negated: the first step has no 'negated'"),
        ("regularly A in at least 5 of 4 periods of 1d", "line 1, column 25: at_least: at_least must not be greater"),
        ("first touch devise = mobile", "line 1, column 13: first_touch: 'devise' is none of"),
        ("consent ads = given", 'line 1, column 15: eq: must be "granted" or "denied"'),
        ("trait a between 2 and 1", "line 1, column 17: between: the second number is less"),
        ("trait a > 1 ignoring case", "line 1, column 13: ignore_case: goes only with"),
        ("any member (trait a = 1)", 'line 1, column 1: "members" goes only with'),
        ("trait a = 1 and any (trait b = 2, (trait c in last 0d))", "line 1, column 52: in_last: must be longer"),
        ('trait a = 1 with time zone "Mars"', "line 1, column 28: time_zone: must be a time zone"),
        ("trait a = 1 with kind frozen", 'line 1, column 23: kind: must be "dynamic" or "static"'),
        ("trait a = 1 with kind static, kind static", "line 1, column 36: kind stands twice"),
        ('trait a = "\\q"', "line 1, column 11: is no text as JSON writes it"),
        ("", "line 1, column 1: the text ends here; expected"),
        ("(" * 200, "line 1, column 101: is nested more than 50 deep"),
        ("not " * 60 + "trait a exists", "is nested more than 50 deep"),
        ("not " * 5_000 + "trait a exists", "line 1, column 401: is nested more than 50 deep"),
        ("not\n#\n" * 5_000 + "trait a exists", "line 201, column 1: is nested more than 50 deep"),
        ("not" * 5_000 + " trait a exists", "line 1, column 1: "),
    ],
)
def test_errors_say_where_and_what_was_expected(text: str, error: str) -> None:
    with pytest.raises(TextError) as raised:
        from_text(text)
    assert error in str(raised.value)
