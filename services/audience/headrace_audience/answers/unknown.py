"""Warnings about what a definition asks for and no event has, or can have: most are typing errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

import duckdb

from headrace.domain.definitions import Predicate
from headrace_audience.engine.touches import DEVICES, PLATFORMS, countries
from headrace_audience.language.computed import as_count
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    ConsentTest,
    DatedCount,
    Definition,
    EventCount,
    FirstTime,
    IdentifierExists,
    InOrder,
    LastTime,
    Leaf,
    Members,
    Regularly,
    Restarted,
    TouchTest,
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
    for namespace in sorted({leaf.namespace for leaf in leaves if isinstance(leaf, IdentifierExists)}):
        found += _missing(connection, _NAMESPACES, namespace, "Nobody has an identifier of namespace")
    for purpose in sorted({leaf.purpose for leaf in leaves if isinstance(leaf, ConsentTest)}):
        found += _missing(connection, _PURPOSES, purpose, "Nobody has said anything of the purpose")
    found += [sentence for leaf in leaves if isinstance(leaf, TouchTest) for sentence in _touched(leaf)]
    found += [_never(leaf) for leaf in leaves if isinstance(leaf, ComputedValue) and _is_never(leaf)]
    return list(dict.fromkeys(found))


_NAMESPACES = ("namespaces", "true")
_PURPOSES = ("json_keys(consents)", "json_valid(consents)")
"""What is a list of names in each event, and of which events."""


def _missing(connection: duckdb.DuckDBPyConnection, where: tuple[str, str], name: str, said: str) -> list[str]:
    """A sentence when no event has a name in a list, with the nearest of those that many events have."""
    column, has_any = where
    one = f"SELECT 1 FROM written WHERE {has_any} AND list_contains({column}, $name) LIMIT 1"  # noqa: S608  # constants
    if connection.execute(one, {"name": name}).fetchone() is not None:
        return []
    some = f"SELECT {column} AS names FROM written WHERE {has_any} AND len({column}) > 0 LIMIT {_LOOKED_AT}"  # noqa: S608
    known = _column(connection, f"SELECT DISTINCT unnest(names) FROM ({some})")  # noqa: S608  # likewise
    return [f"{said} {name!r}{_nearest(name, known)}"]


def _touched(leaf: TouchTest) -> Iterator[str]:
    """Sentences about values that a touch never has."""
    what, test = leaf.path[0], leaf.test
    known = {"device": DEVICES, "platform": PLATFORMS, "country": tuple(countries())}.get(what)
    if known is None or test.op not in ("eq", "in"):
        return
    asked = [v for v in test.values if v not in known]
    if test.ignore_case:
        folded = {name.casefold() for name in known}
        asked = [v for v in asked if str(v).casefold() not in folded]
    for value in asked:
        if what == "country":
            by_name = {name.casefold(): code for code, name in countries().items()}
            by_name |= {code.casefold(): code for code in countries()}
            near = get_close_matches(str(value).casefold(), by_name, n=1, cutoff=0.8)
            hint = f"; did you mean {by_name[near[0]]!r}?" if near else "."
            yield f"{value!r} is no country in two letters (ISO 3166), as most events say it{hint}"
        else:
            yield f"{what} is never {value!r}, but one of {', '.join(known)}{_nearest(str(value), known)}"


def _is_never(leaf: ComputedValue) -> bool:
    """Whether no number of events passes a test of a trait that counts them."""
    count = as_count(leaf) if leaf.names else None
    return count is not None and not any(count.accept)


def _never(leaf: ComputedValue) -> str:
    what = f"Nobody passes the test of the computed trait {leaf.trait_id!r}"
    return f'{what}: of no events there is no value, rather than 0; test that by "exists": false.'


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
