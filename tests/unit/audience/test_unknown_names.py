"""Warnings of names that nobody has are true of all events, and say so when there was no time to look at all."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from headrace_audience.answers.unknown import warnings
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.reading import from_text
from headrace_audience.offline.facts import Fact, table_of

COMMON = 3_000
"""More events than are looked at for the nearest name."""


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Many events, of which the last one alone has names of its own."""
    facts = [Fact("p", n, f"m{n}", "track", "Purchased", {"value": 1}) for n in range(COMMON)]
    facts += [Fact("p", n, f"i{n}", "identify", traits={"plan": "gold"}) for n in range(COMMON)]
    facts.append(Fact("q", 1, "last", "track", "Purchased", {"coupon": "x", "{}": 1}))
    facts.append(Fact("q", 2, "vip", "identify", traits={"vip": True}))
    with duckdb.connect() as connection:
        connection.register("written", table_of(facts))
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


def test_what_is_not_known_in_time_is_said_to_be_so(connection: duckdb.DuckDBPyConnection) -> None:
    assert said(connection, "performed Purchased where (coupn = 1) or trait plam = 1", within_s=0) == [
        "It was not found out in time which events there are (an exact preview looks at all events).",
        "It was not found out in time whether anybody has a trait 'plam' (an exact preview looks at all events).",
    ]
