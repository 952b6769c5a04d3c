"""Warnings about comparisons with values of another type than the events have: types count, and `10` is not `"10"`."""

# ruff: noqa: S608  # values are bound parameters; only constants are put into statements

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from headrace.domain.definitions import NUMBER_OPS, Test
from headrace_audience.answers.looking import LOOKED_AT, Looking, Names, Path
from headrace_audience.batch.values import json_path

NUMBER, TEXT, TRUTH = "a number", "a text", "a boolean"
_TYPES = {
    "BIGINT": NUMBER,
    "UBIGINT": NUMBER,
    "HUGEINT": NUMBER,
    "DOUBLE": NUMBER,
    "VARCHAR": TEXT,
    "BOOLEAN": TRUTH,
    "ARRAY": "a list",
    "OBJECT": "an object",
}
"""What DuckDB's json_type() says, in words."""
_OF_TEXTS = ("starts_with", "ends_with", "matches")


class Compared(NamedTuple):
    """A value of events, and what it is compared with."""

    where: Names
    what: str
    """The value in words, of which its name is a part."""
    path: Path
    types: frozenset[str]
    """Types of which a value must be to pass; none where any may."""
    needed: str
    """What is said of the comparison."""
    events: tuple[str, ...] = ()
    """Names of the events whose property it is."""


def of_test(test: Test) -> tuple[frozenset[str], str]:
    """Which types of values can pass a test, none where any can, and what is said of it."""
    if test.op in NUMBER_OPS:
        return frozenset({NUMBER}), f'"{test.op}" compares numbers'
    if test.op in _OF_TEXTS:
        return frozenset({TEXT}), f'"{test.op}" compares texts'
    if test.op in ("eq", "in"):
        types = frozenset(TRUTH if isinstance(v, bool) else TEXT if isinstance(v, str) else NUMBER for v in test.values)
        if len(types) == 1:
            (only,) = types
            value = test.values[0]
            shown = f"{value:g}" if only == NUMBER else json.dumps(value, ensure_ascii=False)
            return types, f"{shown} is {only}"
    return frozenset(), ""


def of_aggregate(function: str) -> tuple[frozenset[str], str] | None:
    """The same of an aggregate; None of one that takes any value."""
    return None if function == "distinct" else (frozenset({NUMBER}), f'"{function}" is of numbers')


def unlike(looking: Looking, compared: Iterable[Compared]) -> Iterator[str]:
    """Sentences about comparisons that no value passes of many that were looked at, because of its type.

    Args:
        looking: Asks the events.
        compared: The comparisons.
    """
    for one in dict.fromkeys(compared):
        if one.types and (found := _types(looking, one)) and one.types.isdisjoint(found):
            are = " or ".join(sorted(found))
            yield f"{one.what} is {are} in all events that were looked at: {one.needed}, and types count."


def _types(looking: Looking, of: Compared) -> set[str]:
    """The types of a value in the first events that have it; none when nothing was found in time."""
    where = of.where
    type_ = f"CASE WHEN json_valid({where.column}) THEN json_type({where.column}, $path) END"
    events = f"FROM {where.relation} WHERE {where.column} IS NOT NULL AND {where.has}"
    some = f"SELECT {type_} AS type {events} AND {type_} != 'NULL' LIMIT {LOOKED_AT}"
    parameters = {"path": json_path(of.path), **({"events": list(of.events)} if of.events else {})}
    found = looking.column(f"SELECT DISTINCT type FROM ({some})", **parameters) or set()
    return {_TYPES.get(type_, type_.lower()) for type_ in found}
