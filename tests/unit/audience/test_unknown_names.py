"""Warnings of names that nobody has are true of all events, and say so when there was no time to look at all."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from headrace_audience.answers.unknown import warnings
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text
from headrace_audience.offline.facts import Fact, mentions_of, table_of

COMMON = 3_000
"""More events than are looked at for the nearest name."""


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Many events, of which the last one alone has names of its own."""
    facts = [Fact("p", n, f"m{n}", "track", "Purchased", {"value": 1}) for n in range(COMMON)]
    facts += [Fact("p", n, f"i{n}", "identify", traits={"plan": "gold"}) for n in range(COMMON)]
    facts.append(Fact("q", 1, "last", "track", "Purchased", {"coupon": "x", "{}": 1}))
    facts.append(Fact("q", 2, "vip", "identify", traits={"vip": True}))
    facts.append(Fact("q", 3, "deep", "track", "Deep", {"order": {"total": 1, "it's": {"a": 1}}, "list": [{"a": 1}]}))
    facts.append(Fact("q", 4, "city", "identify", traits={"address": {"city": "Pune"}}))
    facts.append(Fact("q", 5, "group", "group", group_id="g", group_traits={"tier": {"name": "gold"}, "seats": 3}))
    facts.append(Fact("", 6, "nobody", "group", group_id="h", group_traits={"region": "south"}))
    with duckdb.connect() as connection:
        connection.register("written", table_of(facts))
        connection.register("written_of_groups", mentions_of(facts))
        yield connection


def said(connection: duckdb.DuckDBPyConnection, text: str, within_s: float | None = None) -> list[str]:
    return warnings(connection, parse_definition(from_text(text)), within_s)


def test_what_one_event_of_very_many_has_is_known(connection: duckdb.DuckDBPyConnection) -> None:
    assert said(connection, 'performed Purchased where (coupon = "x") and trait vip = true') == []
    assert said(connection, "performed Purchased where (coupn = 1) or trait vpi = true or trait plam = 1") == [
        "'Purchased' has no property 'coupn'.",
        "Nobody has a trait 'plam'; did you mean 'plan'?",
        "Nobody has a trait 'vpi'.",
    ]


def test_keys_below_the_first_level_are_known_too(connection: duckdb.DuckDBPyConnection) -> None:
    """The first key that is missing is told, once."""
    right = 'performed Deep where (order.total = 1, "order.it\'s.a" = 1) and trait address.city = "Pune"'
    assert said(connection, right) == []
    wrong = "performed Deep where (order.totl = 1, ordr.total = 1, order.x.y = 2, order.x.z = 2, list.a = 1)"
    assert said(connection, wrong) == [
        "'Deep' has no property 'list.a'.",
        "'Deep' has no property 'order.totl'; did you mean 'order.total'?",
        "'Deep' has no property 'order.x'.",
        "'Deep' has no property 'ordr'; did you mean 'order'?",
    ]
    deep = "performed Deep sum(order.totall)>1 or sequence (Deep then Deep same (order.ttal)) or trait address.cty > 1"
    assert said(connection, deep) == [
        "'Deep' has no property 'order.totall'; did you mean 'order.total'?",
        "'Deep' has no property 'order.ttal'; did you mean 'order.total'?",
        "Nobody has a trait 'address.cty'; did you mean 'address.city'?",
    ]


def test_traits_of_groups_are_those_of_groups(connection: duckdb.DuckDBPyConnection) -> None:
    asked = 'trait tier.nam = "gold" and trait seats > 1 and trait plan = 1 and trait region = "south" with of groups'
    assert said(connection, asked) == [
        "No group has a trait 'plan'.",
        "No group has a trait 'tier.nam'; did you mean 'tier.name'?",
    ]
    members = "any member (trait seats = 1) with of groups"
    assert said(connection, members) == ["Nobody has a trait 'seats'."]


def test_what_is_not_known_in_time_is_said_to_be_so(connection: duckdb.DuckDBPyConnection) -> None:
    assert said(connection, "performed Purchased where (coupn = 1) or trait plam = 1", within_s=0) == [
        "It was not found out in time which events there are (an exact preview looks at all events).",
        "It was not found out in time whether anybody has a trait 'plam' (an exact preview looks at all events).",
    ]


def test_comparisons_with_another_type_than_the_events_have_are_told_of(connection: duckdb.DuckDBPyConnection) -> None:
    assert said(connection, 'performed Purchased where (value = "1") and trait plan > 5') == [
        "The property 'value' of 'Purchased' is a number in all events that were looked at: \"1\" is a text, "
        "and types count.",
        "The trait 'plan' is a text in all events that were looked at: \"gt\" compares numbers, and types count.",
    ]
    sums, truths = said(connection, "performed Purchased sum(coupon) > 1 or performed Deep where (order.total = true)")
    assert "'coupon' of 'Purchased' is a text" in sums and '"sum" is of numbers' in sums
    assert "'order.total' of 'Deep' is a number" in truths and "true is a boolean" in truths
    for right in (
        'performed Purchased where (value in (1, "1"), value > 0) and performed Purchased sum(value) > 0',
        'trait plan contains "o" and trait plan != 5 and trait vip = true',
        "performed Purchased distinct(coupon) > 0",
    ):
        assert said(connection, right) == []
    unasked = said(connection, 'performed Purchased where (value = "1")', within_s=0)
    assert len(unasked) == 1 and unasked[0].startswith("It was not found out in time")
