"""Tests of values: the engine's, the reference's and those of SQL say the same of any JSON value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from headrace_audience.batch.values import Parameters, json_path, passes_sql
from headrace_audience.language.definition import EventCount, walk
from headrace_audience.language.parser import parse_definition
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.domain.predicates import compile_predicates, decode_object
from headrace.domain.predicates_reference import at_path, passes

TEXTS = (
    *(
        "",
        "a",
        "A",
        "pro",
        "PRO",
        "İstanbul",
        "straße",
        "ΣΑΣ",
        "1",
        "1.0",
        "true",
        "null",
        "a\nb",
        "a\u0000b",
        "😀",
        "é",
    ),
    *("2026-01-31", "2026-02-30", "2026-01-31T12:00", "2026-01-31 12:00:00.123456789+0530", "2026-01-31T24:00:00Z"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-31T12:00:00.5Z", "2026-1-31", "0000-01-01"),
    *("2026-01-31T12:00:00Z\n", "2026-01-31T12:00Z", "2026-01-31T12", "٢٠٢٦-01-31", '"quoted"', "\\", "$.x", "'"),
)
NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 1, 1.0, -1, 2, 0.1, 1e-300, 1e308, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63)),
    *(-(2**63) - 1, 10**30, 10**400, -(10**400), 123456789.123456789, 5e-324),
)
PATTERNS = ("a", "^a", "b$", "(?i)pro", "a.b", "[[:upper:]]+", "^$", "\\d{4}", "(a|b)c?", "é", "\\x{1F600}")

scalars = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.text(st.characters(codec="utf-8", max_codepoint=0x24F), max_size=4),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
)
values = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["x", "y", "0", "$"]), inner, max_size=2)
    ),
    max_leaves=4,
)
operands = scalars.filter(lambda value: not isinstance(value, int) or isinstance(value, bool) or abs(value) < 10**300)


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    op = draw(
        st.sampled_from(
            (
                *("eq", "neq", "in", "not_in", "contains", "not_contains", "starts_with", "ends_with", "matches"),
                *("gt", "gte", "lt", "lte", "between", "exists", "before", "after"),
            )
        )
    )
    case = {"ignore_case": True} if draw(st.booleans()) else {}
    numbers = operands.filter(lambda value: isinstance(value, int | float) and not isinstance(value, bool))
    if op in ("in", "not_in"):
        return {op: draw(st.lists(operands, min_size=1, max_size=20)), **case}
    if op in ("starts_with", "ends_with"):
        return {op: draw(st.sampled_from([text for text in TEXTS if text])), **case}
    if op == "matches":
        return {op: draw(st.sampled_from(PATTERNS)), **case}
    if op == "between":
        return {op: sorted([draw(numbers), draw(numbers)])}
    if op in ("gt", "gte", "lt", "lte"):
        return {op: draw(numbers)}
    if op == "exists":
        return {op: draw(st.booleans())}
    if op in ("before", "after"):
        return {op: draw(st.sampled_from(["2026-01-31", "2026-01-31T06:30:00.123456Z", "0001-01-01"]))}
    return {op: draw(operands), **case}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        yield connection


@settings(
    max_examples=150,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    path=st.sampled_from(["x", "x.y", "x.0", "x.$"]),
    comparison=comparisons(),
    documents=st.lists(st.one_of(values, st.dictionaries(st.just("x"), values)), max_size=8),
    r=st.randoms(use_true_random=False),
)
def test_all_three_say_the_same(
    connection: duckdb.DuckDBPyConnection, path: str, comparison: dict[str, Any], documents: list[Any], r: Random
) -> None:
    leaf = next(walk(parse_definition({"where": {"event": "A", "where": [{"property": path, **comparison}]}}).where))
    assert isinstance(leaf, EventCount)
    predicate = leaf.where[0]
    texts = [json.dumps({"x": document}, ensure_ascii=bool(r.randint(0, 1))) for document in documents]
    texts += [json.dumps(document) for document in documents if isinstance(document, dict)]
    test = compile_predicates([predicate])
    by_engine = [test(decode_object(text)) for text in texts]
    by_reference = [passes(predicate.test, at_path(json.loads(text), predicate.path)) for text in texts]
    assert by_engine == by_reference
    parameters = Parameters()
    value = f"json_extract(document, {parameters.bind(json_path(predicate.path))})"
    expression = passes_sql(predicate.test, "value", parameters)
    statement = f"SELECT {expression} FROM (SELECT {value} AS value, place FROM documents) ORDER BY place"
    table = pa.table({"document": pa.array(texts, pa.string()), "place": pa.array(range(len(texts)), pa.int64())})
    connection.register("documents", table)
    by_sql = [row[0] for row in connection.execute(statement, parameters.of(statement)).fetchall()]
    assert by_sql == by_engine


@pytest.mark.parametrize("broken", ["", "{", "[1]", "3", '"x"', '{"x": tru}', '{"x": "\\ud800"}', "\x00"])
def test_broken_documents_are_empty(connection: duckdb.DuckDBPyConnection, broken: str) -> None:
    assert decode_object(broken) == {}
    found = connection.execute(
        "SELECT json_extract(CASE WHEN json_valid($d) THEN $d END, $p)", {"d": broken, "p": '$."x"'}
    ).fetchall()
    assert found == [(None,)]
