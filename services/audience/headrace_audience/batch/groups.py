"""The statement of an audience of groups: what holds for their members is counted, their own traits are read.

It reads `events` for the people, and for who belongs to which group and what is said of groups the relation `mentions`:

=============  =====================  ================================================================================
column         type                   meaning
=============  =====================  ================================================================================
group_id       VARCHAR                never empty
profile        VARCHAR                as in `events`; empty when the event is nobody's
timestamp_us   BIGINT                 event time
message_id     VARCHAR                duplicates are harmless
traits         VARCHAR (JSON object)  the traits of the group that a group call sets, or NULL
=============  =====================  ================================================================================
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import writes_sql
from headrace_audience.batch.statement import Audiences, Statement
from headrace_audience.batch.values import Parameters, json_path, moment_sql, near_sql, passes_sql
from headrace_audience.language.definition import (
    All,
    AudienceMember,
    Condition,
    Definition,
    Members,
    Not,
    TraitTest,
    check_references,
)
from headrace_audience.language.definition import Any_ as AnyOf
from headrace_audience.language.spans import near_spans


class GroupStatement:
    """Builds the statement of a definition of groups, for one moment."""

    def __init__(self, definition: Definition, audiences: Audiences, now_us: int, parameters: Parameters) -> None:
        """Build for a moment, in microseconds.

        Raises DefinitionError when the audiences refer to each other in a circle.
        """
        named = {name: meaning for name, meaning in audiences.items() if isinstance(meaning, Definition)}
        check_references({**named, "": definition})
        self._audiences = audiences
        self._now_us = now_us
        self._parameters = parameters
        self._people: Statement | None = None
        self._held: dict[Condition, tuple[str, str]] = {}
        self._traits: dict[str, str] = {}
        self._near: list[str] = []
        self._members: dict[str, str] = {}
        self._condition = self._build(definition.where)

    def members_sql(self) -> str:
        """A WITH that ends in the relations `everybody` and `members`, of group ids in the column `profile`."""
        past = f"timestamp_us <= {self._now_us}"
        entries = ["everybody AS MATERIALIZED (SELECT DISTINCT group_id AS profile FROM mentions)"]
        joins = ["everybody"]
        if self._people is not None:
            held = ", ".join(f"{expression} AS {name}" for name, expression in self._held.values())
            counts = ", ".join(f"count(*) FILTER (WHERE {name}) AS {name}" for name, _ in self._held.values())
            entries += [
                "base AS MATERIALIZED (SELECT DISTINCT profile FROM events)",
                *self._people.sources(),
                *self._people.tables(),
                f"people AS (SELECT base.profile, {held} FROM {self._people.joins()})",
                f"links AS (SELECT DISTINCT group_id, profile FROM mentions WHERE profile <> '' AND {past})",
                f"counted AS (SELECT group_id, count(*) AS number, {counts} FROM links JOIN people USING (profile)"
                " GROUP BY group_id)",
            ]
            joins.append("LEFT JOIN counted ON counted.group_id = everybody.profile")
        for name, table in self._traits.items():
            said = f"{writes_sql('mentions', 'group_id', 'traits', name, self._parameters)} AND {past}"
            newest = f"arg_max(value, row(timestamp_us, message_id)) AS {table}_value"
            entries.append(f"{table} AS (SELECT group_id, {newest} FROM ({said}) GROUP BY group_id)")
            joins.append(f"LEFT JOIN {table} ON {table}.group_id = everybody.profile")
        for audience_id, table in self._members.items():
            bound = self._parameters.bind(sorted(self._audiences.get(audience_id, ())))  # type: ignore[arg-type]  # ids
            entries.append(f"{table} AS (SELECT DISTINCT unnest(CAST({bound} AS VARCHAR[])) AS group_id)")
            joins.append(f"LEFT JOIN {table} ON {table}.group_id = everybody.profile")
        members = f"SELECT everybody.profile FROM {' '.join(joins)} WHERE {self._condition}"
        return f"WITH {', '.join(entries)}, members AS MATERIALIZED ({members})"

    def edges_sql(self) -> tuple[str, Moments]:
        """A WITH that ends in the relation `edges` (at_us): all moments at which time alone may move a group.

        Beside it what teaches a connection the calendars that it reads.
        """
        moments, entries = Moments(None), []
        edges = ["SELECT timestamp_us AS at_us FROM mentions", *self._near]
        if self._held:
            definition = Definition("dynamic", All(tuple(self._held)))
            people = Statement(definition, self._audiences, None, self._parameters)
            of_people = " UNION ALL ".join(people.edges()) or "SELECT '' AS profile, 0 AS at_us WHERE false"
            entries = [
                *people.sources(),
                "linked AS (SELECT DISTINCT profile FROM mentions)",
                f"of_people(profile, at_us) AS ({of_people})",
            ]
            edges.append("SELECT at_us FROM of_people JOIN linked USING (profile)")
            moments = people.moments
        entries.append(f"edges AS ({' UNION ALL '.join(edges)})")
        return f"WITH {', '.join(entries)}", moments

    def _build(self, condition: Condition) -> str:
        if isinstance(condition, All | AnyOf):
            word = " AND " if isinstance(condition, All) else " OR "
            return f"({word.join(self._build(part) for part in condition.parts)})"
        if isinstance(condition, Not):
            return f"(NOT {self._build(condition.part)})"
        if isinstance(condition, AudienceMember):
            meaning = self._audiences.get(condition.audience_id, ())
            if isinstance(meaning, Definition):
                return self._build(meaning.where)
            table = self._members.setdefault(condition.audience_id, f"members{len(self._members)}")
            return f"({table}.group_id IS NOT NULL)"
        if isinstance(condition, TraitTest):
            return self._trait(condition)
        assert isinstance(condition, Members)  # the parser lets nothing else into an audience of groups
        return self._of_members(condition)

    def _of_members(self, condition: Members) -> str:
        if self._people is None:
            definition = Definition("dynamic", condition.part)
            self._people = Statement(definition, self._audiences, self._now_us, self._parameters)
        if condition.part not in self._held:
            self._held[condition.part] = f"held{len(self._held)}", self._people.expression(condition.part)
        name, _ = self._held[condition.part]
        held = f"coalesce(counted.{name}, 0)"
        if condition.quantifier == "any":
            return f"({held} > 0)"
        if condition.quantifier == "none":
            return f"({held} = 0)"
        return f"({held} > 0 AND {held} = counted.number)"

    def _trait(self, condition: TraitTest) -> str:
        name, *inside = condition.path
        table = self._traits.setdefault(name, f"group_trait{len(self._traits)}")
        path = self._parameters.bind(json_path(inside)) if inside else ""
        value, written = (f"json_extract({v}, {path})" if inside else v for v in (f"{table}_value", "value"))
        test = condition.test
        if test.op not in ("in_last", "in_next"):
            return passes_sql(test, value, self._parameters)
        said = writes_sql("mentions", "group_id", "traits", name, self._parameters)
        near = moment_sql(written, self._parameters)
        for shift in near_spans(test):
            self._near.append(f"SELECT {near} + {shift} AS at_us FROM ({said}) WHERE {near} IS NOT NULL")
        return near_sql(test, moment_sql(value, self._parameters), str(self._now_us))
