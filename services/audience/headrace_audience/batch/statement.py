"""Audience definitions as one SQL statement over the relation `events`.

One description gives two forms. At one moment, the statement says which profiles are members. At many moments, given
as a relation of (profile, at_us), it says for each whether the profile is a member then; so the times at which
somebody enters and leaves are found by asking at all moments at which anything can change.

Each kind of event is looked for once, whatever the number of conditions on it (`event_sql`); each trait and each
namespace once. What is found is joined to the profiles, and the condition is an expression over the joined columns.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.domain.consent import GRANTED
from headrace_audience.batch.event_sql import EventTables
from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import (
    consent_writes_sql,
    identifiers_sql,
    touch_writes_sql,
    trait_writes_sql,
)
from headrace_audience.batch.values import Parameters, json_path, moment_sql, near_sql, passes_sql
from headrace_audience.language.definition import (
    All,
    AudienceMember,
    ComputedTest,
    Condition,
    ConsentTest,
    Definition,
    IdentifierExists,
    Members,
    Not,
    TouchTest,
    TraitTest,
    check_references,
)
from headrace_audience.language.definition import Any_ as AnyOf
from headrace_audience.language.spans import near_spans

Audiences = Mapping[str, Definition | Collection[str]]
"""What references to other audiences mean: definitions, or ids of the members."""


class Statement:
    """Builds the statement of a definition."""

    def __init__(
        self, definition: Definition, audiences: Audiences, now_us: int | None, parameters: Parameters
    ) -> None:
        """Build for one moment, or for those of the relation `moments` when it is None.

        Raises DefinitionError when the audiences refer to each other in a circle.
        """
        named = {name: meaning for name, meaning in audiences.items() if isinstance(meaning, Definition)}
        check_references({**named, "": definition}, "")
        self._audiences = audiences
        self._parameters = parameters
        self.moments = Moments(now_us)
        self._events = EventTables(self.moments, parameters)
        self._traits: dict[str, str] = {}
        self._consents: dict[str, str] = {}
        self._first_touches: dict[str, str] = {}
        self._last_touches: dict[str, str] = {}
        self._namespaces: dict[str, str] = {}
        self._members: dict[str, str] = {}
        self._edges: list[str] = []
        self.condition = self._condition(definition.where)

    def expression(self, condition: Condition) -> str:
        """A further condition on the same people; to be asked for before what the statement is made of."""
        return self._condition(condition)

    def sources(self) -> list[str]:
        """The WITH entries of what is read of `events`, whatever the moment."""
        entries = self._events.sources()
        for name, table in self._traits.items():
            entries.append(f"{table}_writes AS ({trait_writes_sql(name, self._parameters)})")
        for purpose, table in self._consents.items():
            entries.append(f"{table}_writes AS ({consent_writes_sql(purpose, self._parameters)})")
        for touches in (self._first_touches, self._last_touches):
            for name, table in touches.items():
                entries.append(f"{table}_writes AS ({touch_writes_sql(name, self._parameters)})")
        for namespace, table in self._namespaces.items():
            first = identifiers_sql(namespace, self._parameters)
            entries.append(f"{table} AS (SELECT profile, timestamp_us AS {table}_first FROM ({first}))")
        for audience_id, table in self._members.items():
            members = self._audiences.get(audience_id, ())
            assert not isinstance(members, Definition)
            bound = self._parameters.bind(sorted(members))
            entries.append(f"{table} AS (SELECT DISTINCT unnest(CAST({bound} AS VARCHAR[])) AS profile)")
        return entries

    def tables(self) -> list[str]:
        """The WITH entries of what holds at the moment, or at the moments."""
        return [*self._events.tables(), *(f"{table} AS ({self._written(table)})" for table in self._written_tables())]

    def joins(self) -> str:
        """The relation `base` with everything that the condition reads."""
        at_moment = [*self._events.names(), *self._written_tables()]
        joins = [self.moments.join(table) for table in at_moment]
        always = (*self._namespaces.values(), *self._members.values())
        joins += [f"LEFT JOIN {table} ON {table}.profile = base.profile" for table in always]
        return " ".join(["base", *joins])

    def edges(self) -> list[str]:
        """Selects of (profile, at_us): all moments at which the condition may change."""
        edges = [*self._edges, *self._events.edges()]
        edges += [f"SELECT profile, timestamp_us FROM {table}_writes" for table in self._written_tables()]
        edges += [f"SELECT profile, {table}_first FROM {table}" for table in self._namespaces.values()]
        return edges

    def _written_tables(self) -> list[str]:
        """The tables of what events write."""
        kinds = (self._traits, self._consents, self._first_touches, self._last_touches)
        return [table for tables in kinds for table in tables.values()]

    def _written(self, table: str) -> str:
        """The value that was written last up to the moment; of first touches the first."""
        pick = "arg_min" if table in self._first_touches.values() else "arg_max"
        value = f"{pick}(value, row(timestamp_us, message_id)) AS {table}_value"
        if self.moments.now_us is not None:
            past = f"timestamp_us <= {self.moments.at}"
            return f"SELECT profile, {value} FROM {table}_writes WHERE {past} GROUP BY profile"
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
        if isinstance(condition, TraitTest):
            return self._trait(condition)
        if isinstance(condition, ConsentTest):
            return self._consent(condition)
        if isinstance(condition, TouchTest):
            return self._touch(condition)
        if isinstance(condition, IdentifierExists):
            table = self._namespaces.setdefault(condition.namespace, f"namespace{len(self._namespaces)}")
            seen = f"coalesce({table}_first <= {self.moments.base_at}, false)"
            return seen if condition.exists else f"(NOT {seen})"
        if isinstance(condition, AudienceMember):
            meaning = self._audiences.get(condition.audience_id, ())
            if isinstance(meaning, Definition):
                return self._condition(meaning.where)
            table = self._members.setdefault(condition.audience_id, f"members{len(self._members)}")
            return f"({table}.profile IS NOT NULL)"
        assert not isinstance(condition, Members)  # that is a condition on groups, see `groups`
        assert not isinstance(condition, ComputedTest)  # `language.computed.bind` comes first
        return self._events.condition(condition)

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
        written = moment_sql(f"json_extract(value, {path})" if inside else "value", self._parameters)
        for shift in near_spans(test):
            self._edges.append(
                f"SELECT profile, {written} + {shift} AS at_us FROM {table}_writes WHERE {written} IS NOT NULL"
            )
        return near_sql(test, moment_sql(value, self._parameters), self.moments.base_at)

    def _touch(self, condition: TouchTest) -> str:
        name, *inside = condition.path
        tables = self._first_touches if condition.which == "first" else self._last_touches
        table = tables.setdefault(name, f"{condition.which}_touch{len(tables)}")
        value = f"{table}_value"
        if inside:
            value = f"json_extract({value}, {self._parameters.bind(json_path(inside))})"
        return passes_sql(condition.test, value, self._parameters)

    def _consent(self, condition: ConsentTest) -> str:
        table = self._consents.setdefault(condition.purpose, f"consent{len(self._consents)}")
        value = f"CAST({table}_value AS VARCHAR)"
        test = condition.test
        if test.op == "exists":
            return f"({value} IS NOT NULL)" if test.values[0] else f"({value} IS NULL)"
        said = f"coalesce({value} = '{'true' if test.values[0] == GRANTED else 'false'}', false)"
        return said if test.op == "eq" else f"(NOT {said})"
