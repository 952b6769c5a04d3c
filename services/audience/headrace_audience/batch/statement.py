"""Audience definitions as one SQL statement over the relation `events`.

One description gives two forms. At one moment, the statement says which profiles are members. At many moments, given
as a relation of (profile, at_us), it says for each whether the profile is a member then; so the times at which
somebody enters and leaves are found by asking at all moments at which anything can change.

Each kind of event is looked for once, whatever the number of windows and counts over it; each trait and each namespace
once. What is found is joined to the profiles, and the condition is an expression over the joined columns.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from headrace_audience.batch.values import Parameters, json_path, moment_sql, passes_sql
from headrace_audience.language.definition import (
    All,
    AudienceMember,
    Condition,
    Definition,
    EventCount,
    IdentifierExists,
    Not,
    Predicate,
    TraitTest,
    Window,
    check_references,
)
from headrace_audience.language.definition import Any_ as AnyOf

Audiences = Mapping[str, Definition | Collection[str]]
"""What references to other audiences mean: definitions, or ids of the members."""


@dataclass
class _Group:
    """Events that the same conditions count; `windows` are the columns n0, n1, ... of their counts."""

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    windows: list[Window] = field(default_factory=list)


class Statement:
    """Builds the statement of a definition."""

    def __init__(self, definition: Definition, audiences: Audiences, at: str | None, parameters: Parameters) -> None:
        """Build for one moment, the expression `at`, or for those of the relation `moments` when it is None.

        Raises DefinitionError when the audiences refer to each other in a circle.
        """
        named = {name: meaning for name, meaning in audiences.items() if isinstance(meaning, Definition)}
        check_references({**named, "": definition})
        self._audiences = audiences
        self._parameters = parameters
        self._at = at
        self._groups: dict[tuple[tuple[str, ...], tuple[Predicate, ...]], _Group] = {}
        self._traits: dict[str, str] = {}
        self._namespaces: dict[str, str] = {}
        self._members: dict[str, str] = {}
        self._edges: list[str] = []
        self.condition = self._condition(definition.where)

    def tables(self) -> list[str]:
        """The WITH entries that come before the relation of the result."""
        entries: list[str] = []
        for i, group in enumerate(self._groups.values()):
            entries.append(f"matching{i} AS ({matching_sql(group.names, group.where, self._parameters)})")
            entries.append(f"counts{i} AS ({self._counts(i, group)})")
        for name, table in self._traits.items():
            entries.append(f"{table}_writes AS ({trait_writes_sql(name, self._parameters)})")
            entries.append(f"{table} AS ({self._newest(table)})")
        for namespace, table in self._namespaces.items():
            first = identifiers_sql(namespace, self._parameters)
            entries.append(f"{table} AS (SELECT profile, timestamp_us AS {table}_first FROM ({first}))")
        for audience_id, table in self._members.items():
            members = self._audiences.get(audience_id, ())
            assert not isinstance(members, Definition)
            bound = self._parameters.bind(sorted(members))
            entries.append(f"{table} AS (SELECT DISTINCT unnest(CAST({bound} AS VARCHAR[])) AS profile)")
        return entries

    def joins(self) -> str:
        """The relation `base` with everything that the condition reads."""
        keys = "(profile)" if self._at is not None else "(profile, at_us)"
        tables = [f"counts{i}" for i in range(len(self._groups))] + list(self._traits.values())
        joins = [f"LEFT JOIN {table} USING {keys}" for table in tables]
        joins += [f"LEFT JOIN {table} USING (profile)" for table in self._namespaces.values()]
        joins += [f"LEFT JOIN {table} ON {table}.profile = base.profile" for table in self._members.values()]
        return " ".join(["base", *joins])

    def edges(self) -> list[str]:
        """Selects of (profile, at_us): all moments at which the condition may change."""
        edges = list(self._edges)
        for i, group in enumerate(self._groups.values()):
            spans = {0}
            for window in group.windows:
                if window.within_us is not None:
                    spans |= {window.within_us, window.older_than_us}
            edges += [f"SELECT profile, timestamp_us + {span} AS at_us FROM matching{i}" for span in sorted(spans)]
        edges += [f"SELECT profile, timestamp_us FROM {table}_writes" for table in self._traits.values()]
        edges += [f"SELECT profile, {table}_first FROM {table}" for table in self._namespaces.values()]
        return edges

    def _counts(self, number: int, group: _Group) -> str:
        at = self._at or "moments.at_us"
        columns = [
            f"count(*) FILTER (WHERE {_window_sql(window, at)}) AS counts{number}_{i}"
            for i, window in enumerate(group.windows)
        ]
        if self._at is not None:
            return f"SELECT profile, {', '.join(columns)} FROM matching{number} GROUP BY profile"
        return (
            f"SELECT moments.profile, moments.at_us, {', '.join(columns)} FROM moments"
            f" JOIN matching{number} AS e ON e.profile = moments.profile GROUP BY moments.profile, moments.at_us"
        )

    def _newest(self, table: str) -> str:
        value = f"arg_max(value, row(timestamp_us, message_id)) AS {table}_value"
        if self._at is not None:
            return f"SELECT profile, {value} FROM {table}_writes WHERE timestamp_us <= {self._at} GROUP BY profile"
        return (
            f"SELECT moments.profile, moments.at_us, {value} FROM moments JOIN {table}_writes AS e"
            " ON e.profile = moments.profile AND e.timestamp_us <= moments.at_us"
            " GROUP BY moments.profile, moments.at_us"
        )

    def _condition(self, condition: Condition) -> str:
        if isinstance(condition, All | AnyOf):
            word = " AND " if isinstance(condition, All) else " OR "
            return f"({word.join(self._condition(part) for part in condition.parts)})"
        if isinstance(condition, Not):
            return f"(NOT {self._condition(condition.part)})"
        if isinstance(condition, EventCount):
            return self._count(condition)
        if isinstance(condition, TraitTest):
            return self._trait(condition)
        if isinstance(condition, IdentifierExists):
            table = self._namespaces.setdefault(condition.namespace, f"namespace{len(self._namespaces)}")
            seen = f"coalesce({table}_first <= {self._now()}, false)"
            return seen if condition.exists else f"(NOT {seen})"
        assert isinstance(condition, AudienceMember)
        meaning = self._audiences.get(condition.audience_id, ())
        if isinstance(meaning, Definition):
            return self._condition(meaning.where)
        table = self._members.setdefault(condition.audience_id, f"members{len(self._members)}")
        return f"({table}.profile IS NOT NULL)"

    def _now(self) -> str:
        return self._at if self._at is not None else "base.at_us"

    def _count(self, condition: EventCount) -> str:
        if len(condition.accept) == 1:
            return "true" if condition.accept[0] else "false"
        group = self._groups.setdefault((condition.names, condition.where), _Group(condition.names, condition.where))
        number = list(self._groups).index((condition.names, condition.where))
        if condition.window not in group.windows:
            group.windows.append(condition.window)
        count = f"coalesce(counts{number}_{group.windows.index(condition.window)}, 0)"
        most = len(condition.accept) - 1
        if most == 1:
            return f"({count} >= 1)" if condition.accept[1] else f"({count} = 0)"
        table = self._parameters.bind(list(condition.accept))
        return f"list_extract({table}, least({count}, {most}) + 1)"

    def _trait(self, condition: TraitTest) -> str:
        name, *inside = condition.path
        table = self._traits.setdefault(name, f"trait{len(self._traits)}")
        value = f"{table}_value"
        path = self._parameters.bind(json_path(inside)) if inside else ""
        if inside:
            value = f"json_extract({value}, {path})"
        test = condition.test
        if test.op not in ("in_last", "in_next"):
            return passes_sql(test, value, self._parameters)
        span = int(float(test.values[0]))
        said = moment_sql(value, self._parameters)
        first, last = (0, span) if test.op == "in_last" else (-span, 0)
        now = self._now()
        written = moment_sql(f"json_extract(value, {path})" if inside else "value", self._parameters)
        for shift in (first, last):
            self._edges.append(
                f"SELECT profile, {written} + {shift} AS at_us FROM {table}_writes WHERE {written} IS NOT NULL"
            )
        return f"coalesce({said} + {first} <= {now} AND {now} < {said} + {last}, false)"


def matching_sql(names: Sequence[str], where: Sequence[Predicate], parameters: Parameters) -> str:
    """The different events of these names that pass all predicates: profile, timestamp_us, message_id."""
    named = f"kind = 'track' AND list_contains({parameters.bind(list(names))}, name)"
    if len(names) == 1:
        named = f"kind = 'track' AND name = {parameters.bind(names[0])}"
    columns = "profile, timestamp_us, message_id"
    if not where:
        return f"SELECT DISTINCT {columns} FROM events WHERE {named}"
    values = [
        f"json_extract(CASE WHEN json_valid(properties) THEN properties END, {parameters.bind(json_path(p.path))})"
        f" AS value{i}"
        for i, p in enumerate(where)
    ]
    tests = [passes_sql(p.test, f"value{i}", parameters) for i, p in enumerate(where)]
    return (
        f"SELECT DISTINCT {columns} FROM (SELECT {columns}, {', '.join(values)} FROM events WHERE {named})"
        f" WHERE {' AND '.join(tests)}"
    )


def trait_writes_sql(name: str, parameters: Parameters) -> str:
    """All writes of a trait: profile, timestamp_us, message_id, value (JSON, which may be null)."""
    path = parameters.bind(json_path([name]))
    return (
        "SELECT profile, timestamp_us, message_id, value FROM (SELECT profile, timestamp_us, message_id,"
        f" json_extract(CASE WHEN json_valid(traits) THEN traits END, {path}) AS value"
        " FROM events WHERE traits IS NOT NULL) WHERE value IS NOT NULL"
    )


def identifiers_sql(namespace: str, parameters: Parameters) -> str:
    """When an identifier of a namespace was first seen: profile, timestamp_us."""
    seen = f"list_contains(namespaces, {parameters.bind(namespace)})"
    return f"SELECT profile, min(events.timestamp_us) AS timestamp_us FROM events WHERE {seen} GROUP BY profile"


def _window_sql(window: Window, at: str) -> str:
    if window.within_us is not None:
        return f"timestamp_us > {at} - {window.within_us} AND timestamp_us <= {at} - {window.older_than_us}"
    bounds = [f"timestamp_us <= {at}"]
    if window.from_us is not None:
        bounds.append(f"timestamp_us >= {window.from_us}")
    if window.to_us is not None:
        bounds.append(f"timestamp_us <= {window.to_us}")
    return " AND ".join(bounds)
