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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import held_sql, held_value, writes_sql
from headrace_audience.batch.statement import Audiences, Statement, members_sql
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

MOST_EXAMPLES = 10
"""Of the members of a group that hold a condition, and of those that do not, so many are named."""


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """How a condition stands with the members of a group."""

    number: int
    """How many members there are."""
    holding: int
    """How many of them hold it."""
    some_holding: Sequence[str]
    """Profile ids of some that do: the first by id, at most MOST_EXAMPLES."""
    some_lacking: Sequence[str]
    """Profile ids of some that do not."""


@dataclass(frozen=True, slots=True)
class LeafFacts:
    """How a condition that combines no others stands with a group."""

    holds: bool
    members: MemberFacts | None = None
    """Of a condition on members."""
    value: Any = None
    """Of a trait: what it is."""
    set_by: tuple[int, str] | None = None
    """Of a trait: time in microseconds and message id of the event that wrote it last."""


GroupFacts = dict[Condition, LeafFacts]
"""Facts of a group at a moment, by condition."""

_SOME = (
    "(SELECT list(profile ORDER BY profile) FROM"
    f" (SELECT profile FROM members_of WHERE %s ORDER BY profile LIMIT {MOST_EXAMPLES}))"
)
_OF_MEMBERS = {
    "numbers": ("NULL", "coalesce(held_by_members.number, 0)"),
    "holding": ("NULL", "coalesce(held_by_members.{}, 0)"),
    "some_holding": ("NULL", _SOME % "{}"),
    "some_lacking": ("NULL", _SOME % "NOT {}"),
}
"""What is told of conditions on members: of other conditions, and of these by the name of the condition."""


class GroupStatement:
    """Builds the statement of a definition of groups, for one moment."""

    def __init__(self, definition: Definition, audiences: Audiences, now_us: int, parameters: Parameters) -> None:
        """Build for a moment, in microseconds.

        Raises DefinitionError when the audiences refer to each other in a circle.
        """
        named = {name: meaning for name, meaning in audiences.items() if isinstance(meaning, Definition)}
        check_references({**named, "": definition}, "")
        self._audiences = audiences
        self._now_us = now_us
        self._parameters = parameters
        self._people: Statement | None = None
        self._held: dict[Condition, tuple[str, str]] = {}
        self._traits: dict[str, None] = {}
        self._near: list[str] = []
        self._members: dict[str, None] = {}
        self._condition = self._build(definition.where)

    def members_sql(self) -> str:
        """A WITH that ends in the relations `everybody` and `members`, of group ids in the column `profile`."""
        entries, joins = self._relations(
            "SELECT DISTINCT group_id AS profile FROM mentions", "SELECT profile FROM events"
        )
        members = f"SELECT everybody.profile FROM {joins} WHERE {self._condition}"
        return f"WITH {', '.join(entries)}, members AS MATERIALIZED ({members})"

    def facts_sql(self, group_id: str, leaves: Sequence[Condition]) -> str:
        """A statement that tells what holds of one group, in one row; none, when nothing names the group.

        Its columns are lists with an entry per leaf: whether it holds; of conditions on members how many members there
        are, how many hold it, some that do, some that do not; of traits the value, and the (timestamp_us, message_id)
        that wrote it.
        """
        of_group = f"FROM mentions WHERE group_id = {self._parameters.bind(group_id)}"
        holds = [self._build(leaf) for leaf in leaves]
        entries, joins = self._relations(
            f"SELECT DISTINCT group_id AS profile {of_group}", f"SELECT profile {of_group} AND profile <> ''"
        )
        columns = [f"[{', '.join(holds)}]"]
        for column, (empty, expression) in _OF_MEMBERS.items():
            named = [self._held[leaf.part][0] if isinstance(leaf, Members) else "" for leaf in leaves]
            columns.append(f"[{', '.join(expression.format(name) if name else empty for name in named)}] AS {column}")
        newest = [self._newest(leaf.path[0]) if isinstance(leaf, TraitTest) else "" for leaf in leaves]
        columns.append(f"[{', '.join(f'CAST(({n}).value AS VARCHAR)' if n else 'NULL' for n in newest)}]")
        columns.append(f"[{', '.join(f'({n}).writer' if n else 'NULL' for n in newest)}]")
        return f"WITH {', '.join(entries)} SELECT {', '.join(columns)} FROM {joins}"

    def _relations(self, groups: str, people: str) -> tuple[list[str], str]:
        """WITH entries, and what they are joined to: some groups, and what their conditions read of some people."""
        past = f"timestamp_us <= {self._now_us}"
        entries = [f"everybody AS MATERIALIZED ({groups})"]
        joins = ["everybody"]
        if self._people is not None:
            held = ", ".join(f"{expression} AS {name}" for name, expression in self._held.values())
            counts = ", ".join(f"count(*) FILTER (WHERE {name}) AS {name}" for name, _ in self._held.values())
            entries += [
                f"base AS MATERIALIZED (SELECT DISTINCT profile FROM ({people}))",
                *self._people.sources(),
                *self._people.tables(),
                f"people AS (SELECT base.profile, {held} FROM {self._people.joins()})",
                f"links AS (SELECT DISTINCT group_id, profile FROM mentions WHERE profile <> '' AND {past})",
                "linked AS (SELECT * FROM links SEMI JOIN everybody ON everybody.profile = links.group_id)",
                "members_of AS (SELECT * FROM linked JOIN people USING (profile))",
                f"held_by_members AS (SELECT group_id, count(*) AS number, {counts} FROM members_of GROUP BY group_id)",
            ]
            joins.append("LEFT JOIN held_by_members ON held_by_members.group_id = everybody.profile")
        if self._traits:
            said = writes_sql("traits", self._traits, self._parameters, "mentions")
            written = "row(timestamp_us, message_id)"
            newest = f"{{'value': arg_max(value, {written}), 'writer': max({written})}} AS value"
            rows = f"SELECT group_id, name, {newest} FROM ({said}) WHERE {past} GROUP BY group_id, name"
            entries.append(f"group_traits AS ({held_sql(rows, 'group_id')})")
            joins.append("LEFT JOIN group_traits ON group_traits.group_id = everybody.profile")
        if self._members:
            members = members_sql(self._audiences, self._members, "group_id", self._parameters)
            entries.append(f"group_audiences AS ({members})")
            joins.append("LEFT JOIN group_audiences ON group_audiences.group_id = everybody.profile")
        return entries, " ".join(joins)

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
            self._members[condition.audience_id] = None
            return f"({held_value('group_audiences', condition.audience_id, self._parameters)} IS NOT NULL)"
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
        held = f"coalesce(held_by_members.{name}, 0)"
        if condition.quantifier == "any":
            return f"({held} > 0)"
        if condition.quantifier == "none":
            return f"({held} = 0)"
        return f"({held} > 0 AND {held} = held_by_members.number)"

    def _newest(self, name: str) -> str:
        """What was said last of a trait: its value, and who wrote it."""
        return held_value("group_traits", name, self._parameters)

    def _trait(self, condition: TraitTest) -> str:
        name, *inside = condition.path
        self._traits[name] = None
        path = self._parameters.bind(json_path(inside)) if inside else ""
        value, written = (
            f"json_extract({v}, {path})" if inside else v for v in (f"({self._newest(name)}).value", "value")
        )
        test = condition.test
        if test.op not in ("in_last", "in_next"):
            return passes_sql(test, value, self._parameters)
        said = writes_sql("traits", (name,), self._parameters, "mentions")
        near = moment_sql(written, self._parameters)
        for shift in near_spans(test):
            self._near.append(f"SELECT {near} + {shift} AS at_us FROM ({said}) WHERE {near} IS NOT NULL")
        return near_sql(test, moment_sql(value, self._parameters), str(self._now_us))
