"""Audience definitions as one SQL statement over the relation `events`.

One description gives two forms. At one moment, the statement says which profiles are members. At many moments, given
as a relation of (profile, at_us), it says for each whether the profile is a member then; so the times at which
somebody enters and leaves are found by asking at all moments at which anything can change.

Each kind of thing is looked for once, whatever the number of conditions on it: events (`event_sql`), traits, consents,
touches, namespaces, members of other audiences. What is found of a kind is one table, with all that the conditions ask
for, so the joins to the profiles are few. The condition is an expression over the joined columns.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headrace.domain.consent import GRANTED
from headrace_audience.batch.event_sql import EventTables
from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import WRITTEN, held_sql, held_value, identifiers_sql, newest_sql, writes_sql
from headrace_audience.batch.values import Parameters, json_path, moment_sql, near_sql, passes_sql
from headrace_audience.engine.conditions import CONSENT, FIRST_TOUCH, LAST_TOUCH, TRAIT
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
        self._written: dict[str, dict[str, None]] = {}
        self._namespaces: dict[str, None] = {}
        self._members: dict[str, None] = {}
        self._edges: list[str] = []
        self.condition = self._condition(definition.where)

    def expression(self, condition: Condition) -> str:
        """A further condition on the same people; to be asked for before what the statement is made of."""
        return self._condition(condition)

    def sources(self) -> list[str]:
        """The WITH entries of what is read of `events`, whatever the moment."""
        entries = self._events.sources()
        for kind, names in self._written.items():
            entries.append(f"{kind}_writes AS ({writes_sql(WRITTEN[kind], names, self._parameters)})")
        if self._namespaces:
            first = identifiers_sql(self._namespaces, self._parameters)
            entries.append(f"namespace_values AS ({held_sql(first, 'profile')})")
        if self._members:
            members = members_sql(self._audiences, self._members, "profile", self._parameters)
            entries.append(f"audience_values AS ({members})")
        return entries

    def tables(self) -> list[str]:
        """The WITH entries of what holds at the moment, or at the moments."""
        return [*self._events.tables(), *(f"{kind}_values AS ({self._newest(kind)})" for kind in self._written)]

    def joins(self) -> str:
        """The relation `base` with everything that the condition reads: a table for each kind of condition."""
        at_moment = [*self._events.names(), *(f"{kind}_values" for kind in self._written)]
        joins = [self.moments.join(table) for table in at_moment]
        always = [*(["namespace_values"] if self._namespaces else []), *(["audience_values"] if self._members else [])]
        joins += [f"LEFT JOIN {table} ON {table}.profile = base.profile" for table in always]
        return " ".join(["base", *joins])

    def edges(self) -> list[str]:
        """Selects of (profile, at_us): all moments at which the condition may change."""
        edges = [*self._edges, *self._events.edges()]
        edges += [f"SELECT profile, timestamp_us FROM {kind}_writes" for kind in self._written]
        if self._namespaces:
            edges.append("SELECT profile, unnest(map_values(held)) FROM namespace_values")
        return edges

    def _newest(self, kind: str) -> str:
        """What was written last up to the moment, or to each of the moments."""
        if self.moments.now_us is not None:
            past = f"{kind}_writes WHERE timestamp_us <= {self.moments.at}"
            return held_sql(newest_sql(past, kind, "profile"), "profile")
        keys = "moments.profile, moments.at_us"
        past = f"moments JOIN {kind}_writes AS e ON e.profile = moments.profile AND e.timestamp_us <= moments.at_us"
        return held_sql(newest_sql(past, kind, keys), "profile, at_us")

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
            self._namespaces[condition.namespace] = None
            first = held_value("namespace_values", condition.namespace, self._parameters)
            seen = f"coalesce({first} <= {self.moments.base_at}, false)"
            return seen if condition.exists else f"(NOT {seen})"
        if isinstance(condition, AudienceMember):
            meaning = self._audiences.get(condition.audience_id, ())
            if isinstance(meaning, Definition):
                return self._condition(meaning.where)
            self._members[condition.audience_id] = None
            return f"({held_value('audience_values', condition.audience_id, self._parameters)} IS NOT NULL)"
        assert not isinstance(condition, Members)  # that is a condition on groups, see `groups`
        assert not isinstance(condition, ComputedTest)  # `language.computed.bind` comes first
        return self._events.condition(condition)

    def _value(self, kind: str, path: Sequence[str]) -> str:
        """The value of something that events write, such as a trait, or what lies inside of it."""
        name, *inside = path
        self._written.setdefault(kind, {})[name] = None
        value = held_value(f"{kind}_values", name, self._parameters)
        return self._inside(value, inside)

    def _inside(self, value: str, path: Sequence[str]) -> str:
        return f"json_extract({value}, {self._parameters.bind(json_path(path))})" if path else value

    def _trait(self, condition: TraitTest) -> str:
        name, *inside = condition.path
        test, value = condition.test, self._value(TRAIT, condition.path)
        if test.op not in ("in_last", "in_next"):
            return passes_sql(test, value, self._parameters)
        written = moment_sql(self._inside("value", inside), self._parameters)
        shifts = ", ".join(f"{written} + {shift}" for shift in near_spans(test))
        self._edges.append(
            f"SELECT profile, unnest([{shifts}]) AS at_us FROM trait_writes WHERE name = {self._parameters.bind(name)}"
        )
        return near_sql(test, moment_sql(value, self._parameters), self.moments.base_at)

    def _touch(self, condition: TouchTest) -> str:
        kind = FIRST_TOUCH if condition.which == "first" else LAST_TOUCH
        return passes_sql(condition.test, self._value(kind, condition.path), self._parameters)

    def _consent(self, condition: ConsentTest) -> str:
        value = f"CAST({self._value(CONSENT, (condition.purpose,))} AS VARCHAR)"
        test = condition.test
        if test.op == "exists":
            return f"({value} IS NOT NULL)" if test.values[0] else f"({value} IS NULL)"
        said = f"coalesce({value} = '{'true' if test.values[0] == GRANTED else 'false'}', false)"
        return said if test.op == "eq" else f"(NOT {said})"


def members_sql(audiences: Audiences, wanted: Collection[str], whose: str, parameters: Parameters) -> str:
    """The audiences of which somebody is a member, of those that are given by their members: whose, held."""
    ids: list[str] = []
    names: list[str] = []
    for audience_id in wanted:
        members = audiences.get(audience_id, ())
        assert not isinstance(members, Definition)
        ids += sorted(set(members))
        names += [audience_id] * (len(ids) - len(names))
    each = (
        f"SELECT unnest(CAST({parameters.bind(ids)} AS VARCHAR[])) AS {whose},"
        f" unnest(CAST({parameters.bind(names)} AS VARCHAR[])) AS name, true AS value"
    )
    return held_sql(each, whose)
