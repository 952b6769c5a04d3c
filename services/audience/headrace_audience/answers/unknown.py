"""Warnings about names that a definition asks for and that no event has: most are typing errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

import duckdb

from headrace.domain.definitions import Predicate
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    DatedCount,
    Definition,
    EventCount,
    FirstTime,
    InOrder,
    LastTime,
    Leaf,
    Members,
    Regularly,
    Restarted,
    TraitTest,
    walk,
)

_LOOKED_AT = 2_000
"""So many events are looked at for the properties of an event, and for traits."""

Asked = tuple[tuple[str, ...], set[str]]
"""Names of events, and the properties that are asked of them."""


def warnings(connection: duckdb.DuckDBPyConnection, definition: Definition) -> list[str]:
    """What a definition asks for and nobody has, each as a sentence with the nearest known name.

    Args:
        connection: Knows the relation `written`, see `archive.reader`.
        definition: The definition.
    """
    leaves = list(_about_people(definition))
    asked = [one for leaf in leaves for one in _asked(leaf)]
    traits = {leaf.path[0] for leaf in leaves if isinstance(leaf, TraitTest)}
    found: list[str] = []
    known = _column(connection, "SELECT DISTINCT name FROM written WHERE kind = 'track'") if asked else set()
    for name in sorted({name for names, _ in asked for name in names} - known):
        found.append(f"No event is named {name!r}{_nearest(name, known)}")
    for names, properties in asked:
        there = [name for name in names if name in known]
        if properties and there:
            keys = _keys(connection, "properties", "kind = 'track' AND list_contains($names, name)", names=there)
            found += [f"{_listed(there)} has no property {p!r}{_nearest(p, keys)}" for p in sorted(properties - keys)]
    if traits:
        keys = _keys(connection, "traits", "traits IS NOT NULL")
        found += [f"Nobody has a trait {trait!r}{_nearest(trait, keys)}" for trait in sorted(traits - keys)]
    return list(dict.fromkeys(found))


def _about_people(definition: Definition) -> Iterator[Leaf]:
    """The conditions on people; of an audience of groups those on their members."""
    for leaf in walk(definition.where):
        if isinstance(leaf, Members):
            yield from walk(leaf.part)
        elif definition.of == "people":
            yield leaf


def _asked(leaf: Leaf) -> Iterator[Asked]:
    if isinstance(leaf, DatedCount):
        yield leaf.names, _properties((*leaf.where, *leaf.dated))
    elif isinstance(leaf, EventCount | LastTime):
        yield leaf.names, _properties(leaf.where)
    elif isinstance(leaf, ComputedValue):
        yield leaf.names, _properties(leaf.where) | set(leaf.path[:1])
    elif isinstance(leaf, Aggregate):
        yield leaf.names, _properties(leaf.where) | {leaf.path[0]}
    elif isinstance(leaf, FirstTime | Restarted | Regularly):
        yield leaf.names, set()
    elif isinstance(leaf, InOrder):
        for step in leaf.steps:
            yield step.names, _properties(step.where) | {path[0] for path in step.same}


def _properties(where: Iterable[Predicate]) -> set[str]:
    # That something is missing is a question that can be asked of what nobody has.
    return {p.path[0] for p in where if p.test.op != "exists"}


def _column(connection: duckdb.DuckDBPyConnection, statement: str, **parameters: object) -> set[str]:
    return {str(value) for (value,) in connection.execute(statement, parameters or None).fetchall()}


def _keys(connection: duckdb.DuckDBPyConnection, column: str, where: str, **parameters: object) -> set[str]:
    """Keys of the JSON objects of a column, in some of the events."""
    some = f"SELECT {column} AS object FROM written WHERE {where} LIMIT {_LOOKED_AT}"  # noqa: S608  # constants
    statement = f"SELECT DISTINCT unnest(json_keys(object)) FROM ({some}) WHERE json_valid(object)"  # noqa: S608
    return _column(connection, statement, **parameters)


def _nearest(name: str, known: Collection[str]) -> str:
    by_folded = {other.casefold(): other for other in sorted(known)}
    close = get_close_matches(name.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else "."


def _listed(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
