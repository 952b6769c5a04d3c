"""Warnings about what a definition asks for and no event has, or can have: most are typing errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches

import duckdb

from headrace.domain.definitions import Predicate
from headrace_audience.answers.looking import LOOKED_AT, Looking, Names, Path
from headrace_audience.answers.unlike import Compared, of_aggregate, of_test, unlike
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
from headrace_audience.offline.facts import Fact, mentions_of, table_of

Asked = tuple[tuple[str, ...], set[Path]]
"""Names of events, and the properties that are asked of them, as paths of keys."""


def warnings(connection: duckdb.DuckDBPyConnection, definition: Definition, within_s: float | None = None) -> list[str]:
    """What a definition asks for and nobody has, each as a sentence with the nearest known name.

    Args:
        connection: Knows the relations `written` and `written_of_groups`, see `archive.reader`.
        definition: The definition.
        within_s: So many seconds are spent looking; what is not known then is said to be so. None: as many as it takes.
    """
    leaves = list(_about_people(definition))
    found: list[str] = []
    with Looking(connection, within_s) as looking:
        found += _events(looking, [one for leaf in leaves for one in _asked(leaf)])
        traits = {leaf.path for leaf in leaves if isinstance(leaf, TraitTest)}
        found += _missing(looking, _TRAITS, traits, "Nobody has a trait", "anybody has a trait")
        of_groups = {leaf.path for leaf in _about_groups(definition)}
        found += _missing(looking, _GROUP_TRAITS, of_groups, "No group has a trait", "any group has a trait")
        namespaces = {(leaf.namespace,) for leaf in leaves if isinstance(leaf, IdentifierExists)}
        of_namespace = "has an identifier of namespace"
        found += _missing(looking, _NAMESPACES, namespaces, f"Nobody {of_namespace}", f"anybody {of_namespace}")
        purposes = {(leaf.purpose,) for leaf in leaves if isinstance(leaf, ConsentTest)}
        of_purpose = "has said anything of the purpose"
        found += _missing(looking, _PURPOSES, purposes, f"Nobody {of_purpose}", f"anybody {of_purpose}")
        found += unlike(looking, _compared(definition, leaves))
    found += [sentence for leaf in leaves if isinstance(leaf, TouchTest) for sentence in _touched(leaf)]
    found += [_never(leaf) for leaf in leaves if isinstance(leaf, ComputedValue) and _is_never(leaf)]
    return list(dict.fromkeys(found))


def unknown_in(facts: Sequence[Fact], definition: Definition) -> list[str]:
    """The warnings of a definition about all events of a file, however long that takes: evaluating takes longer."""
    with duckdb.connect() as connection:
        connection.register("written", table_of(facts))
        connection.register("written_of_groups", mentions_of(facts))
        return warnings(connection, definition)


_TRAITS = Names("traits")
_GROUP_TRAITS = Names("traits", relation="written_of_groups")
_NAMESPACES = Names("namespaces", is_json=False)
_PURPOSES = Names("consents")
_PROPERTIES = Names("properties", has="kind = 'track' AND list_contains($events, name)")


def _events(looking: Looking, asked: Iterable[Asked]) -> Iterator[str]:
    """Sentences about names of events, and about their properties."""
    asked = list(asked)
    if not asked:
        return
    known = looking.column("SELECT DISTINCT name FROM written WHERE kind = 'track'")
    if known is None:
        yield f"It was not found out in time which events there are{_HOW_TO_KNOW}."
        return
    for name in sorted({name for names, _ in asked for name in names} - known):
        yield f"No event is named {name!r}{_nearest(name, known)}"
    for names, properties in asked:
        if there := [name for name in names if name in known]:
            named = _listed(there)
            no, a = f"{named} has no property", f"{named} has a property"
            yield from _missing(looking, _PROPERTIES, properties, no, a, events=there)


def _compared(definition: Definition, leaves: Iterable[Leaf]) -> Iterator[Compared]:
    """What a definition compares with what."""
    for leaf in leaves:
        if isinstance(leaf, TraitTest):
            yield Compared(_TRAITS, f"The trait {_dotted(leaf.path)}", leaf.path, *of_test(leaf.test))
        if isinstance(leaf, Aggregate) and (needs := of_aggregate(leaf.function)):
            yield Compared(_PROPERTIES, _property(leaf.path, leaf.names), leaf.path, *needs, leaf.names)
        for names, where in _tested(leaf):
            for one in where:
                yield Compared(_PROPERTIES, _property(one.path, names), one.path, *of_test(one.test), names)
    for leaf in _about_groups(definition):
        yield Compared(_GROUP_TRAITS, f"The groups' trait {_dotted(leaf.path)}", leaf.path, *of_test(leaf.test))


def _property(path: Path, names: Iterable[str]) -> str:
    return f"The property {_dotted(path)} of {_listed(names)}"


def _dotted(path: Path) -> str:
    return repr(".".join(path))


def _tested(leaf: Leaf) -> Iterator[tuple[tuple[str, ...], tuple[Predicate, ...]]]:
    """Names of events, and the tests of their properties."""
    if isinstance(leaf, EventCount | DatedCount | LastTime | Aggregate | ComputedValue):
        yield leaf.names, leaf.where
    elif isinstance(leaf, InOrder):
        for step in leaf.steps:
            yield step.names, step.where


def _missing(
    looking: Looking, where: Names, asked: Iterable[Path], nobody: str, anybody: str, **parameters: object
) -> Iterator[str]:
    """Sentences about names that no event has, with the nearest of those that some events have.

    Of a path of keys its first key that is missing is told, with the keys before it.

    Args:
        looking: Asks the events.
        where: Where names stand.
        asked: The names, as paths of keys.
        nobody: What is said of one that no event has, ahead of it.
        anybody: What is said to be unknown of one that was not looked for to the end.
        parameters: Of the SQL.
    """
    of_events = f"FROM {where.relation} WHERE {where.column} IS NOT NULL AND {where.has}"
    # Few events may have the object that a key is looked for in.
    some = f"SELECT {where.names} AS names {of_events} AND len({where.names}) > 0 LIMIT {LOOKED_AT}"
    one = f"SELECT 1 {of_events} AND list_contains({where.names}, $name) LIMIT 1"
    near: dict[Path, set[str]] = {}
    told: set[Path] = set()
    for path in sorted(asked):
        for depth in range(len(path)):
            within, name = path[:depth], path[depth]
            if path[: depth + 1] in told:
                break
            asking = {**where.at(within), **parameters}
            if within not in near:
                near[within] = looking.column(f"SELECT DISTINCT unnest(names) FROM ({some})", **asking) or set()  # noqa: S608  # constants
            if name in near[within]:
                continue
            there = looking.column(one, name=name, **asking)
            if there:
                continue
            told.add(path[: depth + 1])
            dotted = ".".join(path[: depth + 1])
            nearest = _nearest(name, near[within], within)
            if there is None:
                yield f"It was not found out in time whether {anybody} {dotted!r}{_HOW_TO_KNOW}{nearest}"
            else:
                yield f"{nobody} {dotted!r}{nearest}"
            break


_HOW_TO_KNOW = " (an exact preview looks at all events)"


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


def _about_groups(definition: Definition) -> Iterator[TraitTest]:
    """The conditions on groups' own traits."""
    if definition.of == "groups":
        for leaf in walk(definition.where):
            if isinstance(leaf, TraitTest):
                yield leaf


def _asked(leaf: Leaf) -> Iterator[Asked]:
    if isinstance(leaf, DatedCount):
        yield leaf.names, _properties((*leaf.where, *leaf.dated))
    elif isinstance(leaf, EventCount | LastTime):
        yield leaf.names, _properties(leaf.where)
    elif isinstance(leaf, ComputedValue):
        yield leaf.names, _properties(leaf.where) | ({leaf.path} if leaf.path else set())
    elif isinstance(leaf, Aggregate):
        yield leaf.names, _properties(leaf.where) | {leaf.path}
    elif isinstance(leaf, FirstTime | Restarted | Regularly):
        yield leaf.names, set()
    elif isinstance(leaf, InOrder):
        for step in leaf.steps:
            yield step.names, _properties(step.where) | set(step.same)


def _properties(where: Iterable[Predicate]) -> set[Path]:
    # That something is missing is a question that can be asked of what nobody has.
    return {p.path for p in where if p.test.op != "exists"}


def _nearest(name: str, known: Collection[str], within: Path = ()) -> str:
    by_folded = {other.casefold(): other for other in sorted(known)}
    close = get_close_matches(name.casefold(), by_folded, n=1)
    return f"; did you mean {'.'.join((*within, by_folded[close[0]]))!r}?" if close else "."


def _listed(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
