"""Audience definitions: from JSON to a tree of frozen conditions, or an error that says where and what to do.

The JSON is described in docs/reference/audience-definitions.md. Everything that evaluates definitions (the engine, the
batch evaluator, the reference) starts from this tree; none of them looks at the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.domain.definitions import (
    DefinitionError,
    Predicate,
    Test,
    check_keys,
    need_list,
    need_name,
    need_path,
    parse_duration,
    parse_event_names,
    parse_predicates,
    parse_test,
    parse_time,
)
from headrace_audience.language.counts import parse_count

__all__ = [
    "All",
    "Any_",
    "AudienceMember",
    "Condition",
    "Definition",
    "DefinitionError",
    "EventCount",
    "IdentifierExists",
    "Not",
    "Predicate",
    "Test",
    "TraitTest",
    "Window",
    "check_references",
    "parse_definition",
    "walk",
]

MAX_DEPTH = 50
MAX_CONDITIONS = 500
MAX_DEFINITION_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """Which events count at the moment `now`, by event time: all when every field is None.

    Moving: `(now - within_us, now - older_than_us]`. Fixed: `[from_us, to_us]`, open at an end that is None.
    """

    within_us: int | None = None
    older_than_us: int = 0
    from_us: int | None = None
    to_us: int | None = None


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events of these names, matching all predicates, lie in the window.

    `accept[c]` says whether c events are right; more than `len(accept) - 1` count as that many.
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    window: Window
    accept: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class TraitTest:
    """A test of a trait; the first part of the path is the trait, the rest leads into its value."""

    path: tuple[str, ...]
    test: Test


@dataclass(frozen=True, slots=True)
class IdentifierExists:
    """Whether the person has an identifier of a namespace."""

    namespace: str
    exists: bool


@dataclass(frozen=True, slots=True)
class AudienceMember:
    """Whether the person is in another audience."""

    audience_id: str


@dataclass(frozen=True, slots=True)
class All:
    """Every one of the conditions holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801  # `Any` is taken by typing
    """At least one of the conditions holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    part: Condition


Leaf = EventCount | TraitTest | IdentifierExists | AudienceMember
Condition = All | Any_ | Not | Leaf


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole audience definition."""

    kind: str
    """"dynamic" or "static"."""
    where: Condition

    @property
    def references(self) -> frozenset[str]:
        """Ids of the audiences that it names."""
        return frozenset(leaf.audience_id for leaf in walk(self.where) if isinstance(leaf, AudienceMember))


def walk(condition: Condition) -> Iterator[Leaf]:
    """All leaves of a condition, in order."""
    if isinstance(condition, All | Any_):
        for part in condition.parts:
            yield from walk(part)
    elif isinstance(condition, Not):
        yield from walk(condition.part)
    else:
        yield condition


def parse_definition(source: str | bytes | Mapping[str, Any]) -> Definition:
    """Read a definition from JSON text or from the parsed object.

    Raises:
        DefinitionError: It is no definition; the error names the place and says what to write instead.
    """
    raw = _load(source)
    if not isinstance(raw, Mapping):
        raise DefinitionError("", 'a definition is an object such as {"where": {"event": "Purchased"}}')
    check_keys("", raw, allowed=("kind", "of", "refresh", "where"), required=("where",))
    kind = raw.get("kind", "dynamic")
    if kind not in ("dynamic", "static"):
        raise DefinitionError("kind", f'must be "dynamic" or "static", not {kind!r}')
    of = raw.get("of", "people")
    if of != "people":
        if of == "groups":
            raise DefinitionError("of", '"groups" is not supported yet; use "people"')
        raise DefinitionError("of", f'must be "people", not {of!r}')
    refresh = raw.get("refresh", "continuous")
    if refresh != "continuous":
        if isinstance(refresh, str):
            parse_duration("refresh", refresh)
            raise DefinitionError("refresh", f'{refresh!r} is not supported yet; use "continuous"')
        raise DefinitionError("refresh", 'must be "continuous"')
    where = _Parser().condition("where", raw["where"], 1)
    return Definition(kind=kind, where=where)


def _load(source: str | bytes | Mapping[str, Any]) -> Any:
    if isinstance(source, Mapping):
        return source
    if len(source) > MAX_DEFINITION_BYTES:
        raise DefinitionError("", f"is longer than {MAX_DEFINITION_BYTES // 1024} KiB")
    try:
        return json.loads(source)
    except RecursionError:
        raise DefinitionError("", f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise DefinitionError("", f"is no valid JSON: {error}") from None


_KINDS = ("all", "any", "not", "event", "trait", "identifier", "audience")
_NOT_YET = ("first_time", "last_time", "sequence", "regularly", "stopped", "restarted", "consent")
_AGGREGATES_NOT_YET = ("sum", "avg", "min", "max", "distinct")
_WINDOW_KEYS = ("within", "between", "since", "older_than")


class _Parser:
    """Counts conditions over the whole tree, so that a definition cannot be used to exhaust the engine."""

    def __init__(self) -> None:
        self._count = 0

    def condition(self, path: str, raw: object, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise DefinitionError(path, f"is nested more than {MAX_DEPTH} deep; flatten it or use another audience")
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise DefinitionError(path, f'there are more than {MAX_CONDITIONS} conditions; use "in" or split it')
        if not isinstance(raw, Mapping):
            raise DefinitionError(path, f"must be an object with one of {', '.join(_KINDS)}")
        for key in raw:
            if not isinstance(key, str):
                raise DefinitionError(path, f"the key {key!r} is no text")
        for key in _NOT_YET:
            if key in raw:
                raise DefinitionError(f"{path}.{key}", f'"{key}" is not supported yet')
        kinds = [key for key in _KINDS if key in raw]
        if len(kinds) > 1:
            raise DefinitionError(path, f'has both {kinds[0]!r} and {kinds[1]!r}; combine conditions with "all"')
        if not kinds:
            named = f"unknown key {next(iter(raw))!r}; " if raw else "is empty; "
            raise DefinitionError(path, f"{named}a condition needs one of {', '.join(_KINDS)}")
        kind = kinds[0]
        if kind in ("all", "any"):
            check_keys(path, raw, allowed=(kind,), required=(kind,))
            items = need_list(f"{path}.{kind}", raw[kind])
            parts = tuple(self.condition(f"{path}.{kind}[{i}]", item, depth + 1) for i, item in enumerate(items))
            return All(parts) if kind == "all" else Any_(parts)
        if kind == "not":
            check_keys(path, raw, allowed=("not",), required=("not",))
            return Not(self.condition(f"{path}.not", raw["not"], depth + 1))
        if kind == "event":
            return _event(path, raw)
        if kind == "trait":
            trait_path = need_path(f"{path}.trait", raw["trait"])
            return TraitTest(trait_path, parse_test(path, raw, subject="trait", moving=True))
        if kind == "identifier":
            check_keys(path, raw, allowed=("identifier", "exists"), required=("identifier", "exists"))
            namespace = need_name(f"{path}.identifier", raw["identifier"])
            if not isinstance(raw["exists"], bool):
                raise DefinitionError(f"{path}.exists", "must be true or false")
            return IdentifierExists(namespace, raw["exists"])
        check_keys(path, raw, allowed=("audience",), required=("audience",))
        return AudienceMember(need_name(f"{path}.audience", raw["audience"]))


def _event(path: str, raw: Mapping[str, Any]) -> EventCount:
    for key in _AGGREGATES_NOT_YET:
        if key in raw:
            raise DefinitionError(f"{path}.{key}", f'"{key}" is not supported yet; "count" is')
    check_keys(path, raw, allowed=("event", "where", "count", *_WINDOW_KEYS), required=("event",))
    names = parse_event_names(f"{path}.event", raw["event"])
    where = parse_predicates(f"{path}.where", raw["where"]) if "where" in raw else ()
    accept = parse_count(f"{path}.count", raw["count"]) if "count" in raw else (False, True)
    return EventCount(names, where, _window(path, raw), accept)


def _window(path: str, raw: Mapping[str, Any]) -> Window:
    present = [key for key in _WINDOW_KEYS if key in raw]
    if present == ["within"]:
        return Window(within_us=parse_duration(f"{path}.within", raw["within"]))
    if present == ["within", "older_than"]:
        within = parse_duration(f"{path}.within", raw["within"])
        older = parse_duration(f"{path}.older_than", raw["older_than"])
        if older >= within:
            raise DefinitionError(f"{path}.older_than", "older_than must be shorter than within")
        return Window(within_us=within, older_than_us=older)
    if present == ["older_than"]:
        raise DefinitionError(f"{path}.older_than", 'needs "within" beside it: the far end of the window')
    if present == ["since"]:
        return Window(from_us=parse_time(f"{path}.since", raw["since"]))
    if present == ["between"]:
        ends = raw["between"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise DefinitionError(f"{path}.between", "must be a list of two times, the first and the last moment")
        first = parse_time(f"{path}.between[0]", ends[0])
        last = parse_time(f"{path}.between[1]", ends[1])
        if last < first:
            raise DefinitionError(f"{path}.between", "the second time is before the first")
        return Window(from_us=first, to_us=last)
    if present:
        raise DefinitionError(path, f"{present[0]!r} and {present[1]!r} do not go together: write one window")
    return Window()


def check_references(definitions: Mapping[str, Definition]) -> list[str]:
    """Check all definitions of a workspace together; returns their ids so that each comes after those it names.

    Raises:
        DefinitionError: Some name each other in a circle; the error shows it. An audience that does not exist is no
            error here: nobody is in it.
    """
    order: list[str] = []
    done: set[str] = set()
    for start in sorted(definitions):
        stack: list[tuple[str, Iterator[str]]] = []
        trail: list[str] = []

        def push(audience_id: str) -> None:
            trail.append(audience_id)  # noqa: B023  # called at once
            stack.append((audience_id, iter(sorted(definitions[audience_id].references))))  # noqa: B023

        if start not in done:
            push(start)
        while stack:
            audience_id, references = stack[-1]
            for reference in references:
                if reference in trail:
                    circle = " -> ".join([*trail[trail.index(reference) :], reference])
                    raise DefinitionError("where", f"audiences refer to each other in a circle: {circle}")
                if reference in definitions and reference not in done:
                    push(reference)
                    break
            else:
                stack.pop()
                trail.pop()
                done.add(audience_id)
                order.append(audience_id)
    return order
