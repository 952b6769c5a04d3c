"""Conditions on events as SQL: one table of matching events for each kind, one of what they come to per profile."""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from headrace.domain.amounts import LARGEST, SCALE, threshold
from headrace.domain.definitions import Predicate, Test
from headrace_audience.batch.computed_sql import value_sql
from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import PROPERTIES, matching_sql
from headrace_audience.batch.values import (
    Parameters,
    json_path,
    moment_sql,
    near_sql,
    number_sql,
    passes_sql,
    text_sql,
)
from headrace_audience.language.computed import as_count
from headrace_audience.language.definition import (
    Aggregate,
    ComputedValue,
    DatedCount,
    EventCount,
    FirstTime,
    InOrder,
    LastTime,
    OfEvents,
    Regularly,
    Restarted,
    Step,
    Window,
)
from headrace_audience.language.spans import Fixed, Span, near_spans

_COMPARE = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TIME = "e.timestamp_us"


@dataclass
class _Group:
    """Events that the same conditions look at.

    Attributes:
        table: Name of the table of what they come to per profile; that of the events is `events_{table}`.
        names: Names of the events.
        where: What they pass.
        values: Further columns of the events, by expression.
        columns: Columns of the table, by expression.
        spans: What can pass over an event so that something changes; None is its own time.
        dates: Expressions over an event that may be a time at which something changes.
    """

    table: str
    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    values: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    spans: set[Span | None] = field(default_factory=lambda: {None})
    dates: set[str] = field(default_factory=set)

    @property
    def events(self) -> str:
        """Name of the table of the events."""
        return f"events_{self.table}"

    def value(self, expression: str) -> str:
        """Name of a further column of the events."""
        return self.values.setdefault(expression, f"value{len(self.values)}")

    def column(self, expression: str) -> str:
        """A column of the table."""
        return f"{self.table}.{self.columns.setdefault(expression, f'column{len(self.columns)}')}"


class EventTables:
    """The tables that conditions on events need, and the conditions as expressions over them."""

    def __init__(self, moments: Moments, parameters: Parameters) -> None:
        self._moments = moments
        self._parameters = parameters
        self._groups: dict[tuple[tuple[str, ...], tuple[Predicate, ...]], _Group] = {}
        self._sequences: dict[str, str] = {}
        self._computed: dict[str, str] = {}

    def sources(self) -> list[str]:
        """WITH entries of the events."""
        entries = []
        for group in self._groups.values():
            values = [f"{expression} AS {name}" for expression, name in group.values.items()]
            matching = matching_sql(group.names, group.where, self._parameters, values)
            entries.append(f"{group.events} AS ({matching})")
        return entries

    def tables(self) -> list[str]:
        """WITH entries of what the events come to."""
        grouped = [f"{g.table} AS ({self._table(g)})" for g in self._groups.values() if g.columns]
        of_their_own = {**self._sequences, **self._computed}
        return grouped + [f"{table} AS ({select})" for select, table in of_their_own.items()]

    def names(self) -> list[str]:
        """Names of those tables."""
        grouped = [group.table for group in self._groups.values() if group.columns]
        return [*grouped, *self._sequences.values(), *self._computed.values()]

    def edges(self) -> list[str]:
        """Selects of (profile, at_us): all moments at which any of the conditions may change."""
        edges = [edge for g in self._groups.values() for edge in self._moments.edges(g.events, g.spans)]
        for group in self._groups.values():
            dated = f"FROM {group.events} AS e"
            edges += [f"SELECT profile, {d} AS at_us {dated} WHERE {d} IS NOT NULL" for d in sorted(group.dates)]
        return edges

    def condition(self, leaf: OfEvents) -> str:
        """A condition as an expression that is never NULL."""
        if isinstance(leaf, EventCount):
            return self._count(leaf)
        if isinstance(leaf, DatedCount):
            return self._dated(leaf)
        if isinstance(leaf, Aggregate):
            return self._aggregate(leaf)
        if isinstance(leaf, ComputedValue):
            return self._computed_value(leaf)
        if isinstance(leaf, FirstTime):
            return self._first(leaf)
        if isinstance(leaf, LastTime):
            return self._last(leaf)
        if isinstance(leaf, Restarted):
            return self._restarted(leaf)
        if isinstance(leaf, Regularly):
            return self._regularly(leaf)
        return self._in_order(leaf)

    def _group(self, names: tuple[str, ...], where: tuple[Predicate, ...], spans: Iterable[Span | None]) -> _Group:
        group = self._groups.setdefault((names, where), _Group(f"group{len(self._groups)}", names, where))
        group.spans.update(spans)
        return group

    def _table(self, group: _Group) -> str:
        columns = ", ".join(f"{expression} AS {name}" for expression, name in group.columns.items())
        if self._moments.now_us is not None:
            return f"SELECT e.profile, {columns} FROM {group.events} AS e GROUP BY e.profile"
        return (
            f"SELECT moments.profile, moments.at_us, {columns} FROM moments"
            f" JOIN {group.events} AS e ON e.profile = moments.profile GROUP BY {', '.join(self._moments.columns())}"
        )

    def _over(self, function: str, condition: str) -> str:
        return f"{function} FILTER (WHERE {condition})"

    def _number_of(self, group: _Group, condition: str) -> str:
        return f"coalesce({group.column(self._over('count(*)', condition))}, 0)"

    def _accepted(self, count: str, accept: Sequence[bool]) -> str:
        most = len(accept) - 1
        if most == 0:
            return "true" if accept[0] else "false"
        if most == 1:
            return f"({count} >= 1)" if accept[1] else f"({count} = 0)"
        return f"list_extract({self._parameters.bind(list(accept))}, least({count}, {most}) + 1)"

    def _count(self, leaf: EventCount) -> str:
        if len(leaf.accept) == 1:
            return self._accepted("", leaf.accept)
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        return self._accepted(self._number_of(group, self._moments.inside(leaf.window, _TIME)), leaf.accept)

    def _dated(self, leaf: DatedCount) -> str:
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        at, tests = self._moments.at, [self._moments.inside(leaf.window, _TIME)]
        for predicate in leaf.dated:
            said = moment_sql(f"e.{group.value(self._property(predicate.path))}", self._parameters)
            tests.append(near_sql(predicate.test, said, at))
            group.dates |= {f"{said} + {shift}" for shift in near_spans(predicate.test)}
        return self._accepted(self._number_of(group, " AND ".join(tests)), leaf.accept)

    def _aggregate(self, leaf: Aggregate) -> str:
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        inside = self._moments.inside(leaf.window, _TIME)
        value = group.value(self._property(leaf.path))
        if leaf.function == "distinct":
            different = f"count(DISTINCT {_identity(f'e.{value}')})"
            return self._numbers(leaf.test, f"coalesce({group.column(self._over(different, inside))}, 0)", "1", 1)
        amount = _amount(f"e.{value}")
        if leaf.function in ("sum", "avg"):
            total = f"coalesce({group.column(self._over(f'sum({amount})', inside))}, 0)"
            if leaf.function == "sum":
                return self._numbers(leaf.test, total, "1", SCALE)
            number = f"coalesce({group.column(self._over(f'count({amount})', inside))}, 0)"
            missing = "true" if leaf.test.op == "neq" else "false"
            return f"(CASE WHEN {number} = 0 THEN {missing} ELSE {self._numbers(leaf.test, total, number, SCALE)} END)"
        found = group.column(self._over(f"{leaf.function}({amount})", inside))
        missing = "true" if leaf.test.op == "neq" else "false"
        return f"coalesce({self._numbers(leaf.test, found, '1', SCALE)}, {missing})"

    def _computed_value(self, leaf: ComputedValue) -> str:
        count = as_count(leaf)
        if count is not None:
            return self._count(count)
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        value = f"e.{group.value(self._property(leaf.path))}" if leaf.path else "NULL"
        keys, source = ["profile"], f"{group.events} AS e"
        of_keys = "e.profile"
        if self._moments.now_us is None:
            keys, source = ["profile", "at_us"], f"moments JOIN {source} ON e.profile = moments.profile"
            of_keys = "moments.profile, moments.at_us"
        inside = self._moments.inside(leaf.window, _TIME)
        occurrences = f"SELECT {of_keys}, {_TIME} AS time, {value} AS json FROM {source} WHERE {inside}"
        select = value_sql(leaf.function, occurrences, keys)
        table = self._computed.setdefault(select, f"computed{len(self._computed)}")
        return passes_sql(leaf.test, f"{table}.value", self._parameters)

    def _numbers(self, test: Test, total: str, count: str, scale: int) -> str:
        """A comparison of total / count; counts are compared as doubles, amounts as whole numbers."""
        if scale == 1:
            low, high = (self._parameters.bind(float(test.values[place])) for place in (0, -1))
        else:
            low, high = (f"(CAST({threshold(test, place)} AS HUGEINT) * {count})" for place in (0, -1))
        if test.op == "between":
            return f"({total} >= {low} AND {total} <= {high})"
        return f"({total} {_COMPARE[test.op]} {low})"

    def _property(self, path: Sequence[str]) -> str:
        return f"json_extract({PROPERTIES}, {self._parameters.bind(json_path(path))})"

    def _first(self, leaf: FirstTime) -> str:
        group = self._group(leaf.names, (), _spans(leaf.window))
        return f"coalesce({group.column(self._moments.inside(leaf.window, '(min(e.timestamp_us))'))}, false)"

    def _last(self, leaf: LastTime) -> str:
        group = self._group(leaf.names, (), _spans(leaf.window))
        past = f"{_TIME} <= {self._moments.at}"
        newest = self._over("max(e.timestamp_us)", past)
        inside = f"coalesce({group.column(self._moments.inside(leaf.window, f'({newest})'))}, false)"
        if not leaf.where:
            return inside
        tests = [passes_sql(p.test, f"({self._property(p.path)})", self._parameters) for p in leaf.where]
        flag = group.value(f"({' AND '.join(tests)})")
        passes = self._over(f"arg_max(e.{flag}, row(e.timestamp_us, e.message_id))", past)
        return f"({inside} AND coalesce({group.column(passes)}, false))"

    def _restarted(self, leaf: Restarted) -> str:
        group = self._group(leaf.names, (), (leaf.active_within, leaf.gone_since))
        active, gone = self._moments.start(leaf.active_within), self._moments.start(leaf.gone_since)
        new = self._number_of(group, f"{_TIME} > {active} AND {_TIME} <= {self._moments.at}")
        between = self._number_of(group, f"{_TIME} > {gone} AND {_TIME} <= {active}")
        old = self._number_of(group, f"{_TIME} <= {gone}")
        return f"({new} > 0 AND {between} = 0 AND {old} > 0)"

    def _regularly(self, leaf: Regularly) -> str:
        ends = [Fixed(i * leaf.period_us) for i in range(leaf.periods + 1)]
        group = self._group(leaf.names, (), ends)
        right = []
        for end, start in pairwise(ends):
            inside = f"{_TIME} > {self._moments.start(start)} AND {_TIME} <= {self._moments.start(end)}"
            accepted = self._accepted(self._number_of(group, inside), leaf.accept)
            right.append(f"CAST({accepted} AS INTEGER)")
        return f"({' + '.join(right)} >= {leaf.at_least})"

    def _in_order(self, leaf: InOrder) -> str:
        moments = self._moments
        spans = [*_spans(leaf.window), *(Fixed(s.within_us) for s in leaf.steps if s.within_us is not None)]
        groups = [self._group(step.names, step.where, spans) for step in leaf.steps]
        tables = [f"{groups[0].events} AS e0"]
        if moments.now_us is None:
            tables = ["moments", f"JOIN {tables[0]} ON e0.profile = moments.profile"]
        where = [moments.inside(leaf.window, "e0.timestamp_us")]
        before = 0
        for number, step in enumerate(leaf.steps[1:], start=1):
            if step.negated:
                continue
            group = groups[number]
            # The values that are compared lie in the events of the step before.
            follows = self._follows(step, groups[before], f"e{before}", group, f"e{number}")
            tables.append(f"JOIN {group.events} AS e{number} ON {' AND '.join(follows)}")
            where.append(moments.inside(leaf.window, f"e{number}.timestamp_us"))
            if leaf.steps[number - 1].negated:
                where.append(self._stays_away(leaf, groups, before, number - 1, f"e{number}"))
            before = number
        last = leaf.steps[-1]
        if last.negated:
            where.append(self._stays_away(leaf, groups, before, len(leaf.steps) - 1, None))
            if last.within_us is not None:
                where.append(f"{moments.at} >= e{before}.timestamp_us + {last.within_us}")
        keys = "e0.profile" if moments.now_us is not None else "moments.profile, moments.at_us"
        select = f"SELECT DISTINCT {keys} FROM {' '.join(tables)} WHERE {' AND '.join(where)}"
        table = self._sequences.setdefault(select, f"sequence{len(self._sequences)}")
        return f"({table}.profile IS NOT NULL)"

    def _follows(self, step: Step, group: _Group, before: str, other: _Group, event: str) -> list[str]:
        """What makes an event the one of a step, after the event of the step before."""
        tests = [
            f"{event}.profile = {before}.profile",
            f"({event}.timestamp_us, {event}.message_id) > ({before}.timestamp_us, {before}.message_id)",
        ]
        if step.within_us is not None:
            tests.append(f"{event}.timestamp_us <= {before}.timestamp_us + {step.within_us}")
        for path in step.same:
            one, two = group.value(self._property(path)), other.value(self._property(path))
            tests.append(f"{_identity(f'{before}.{one}')} = {_identity(f'{event}.{two}')}")
        return tests

    def _stays_away(
        self, leaf: InOrder, groups: Sequence[_Group], before: int, number: int, following: str | None
    ) -> str:
        """A negated step: its event does not come after the one before and ahead of the following."""
        tests = self._follows(leaf.steps[number], groups[before], f"e{before}", groups[number], "n")
        tests.append(f"n.timestamp_us <= {self._moments.at}")
        if following is not None:
            tests.append(f"(n.timestamp_us, n.message_id) < ({following}.timestamp_us, {following}.message_id)")
        return f"NOT EXISTS (SELECT 1 FROM {groups[number].events} AS n WHERE {' AND '.join(tests)})"


def _spans(window: Window) -> list[Span]:
    return [span for span in (window.within, window.older_than) if span is not None]


def _amount(value: str) -> str:
    """The amount that a JSON value is, as a whole number, or NULL; see headrace.domain.amounts."""
    number = number_sql(value)
    whole = f"CAST(round_even({number} * {SCALE}.0::DOUBLE, 0) AS HUGEINT)"
    return f"(CASE WHEN abs({number}) <= {LARGEST} THEN {whole} END)"


def _identity(value: str) -> str:
    """A text that is equal for equal JSON values, or NULL for what is equal to nothing."""
    return (
        f"(CASE json_type({value}) WHEN 'VARCHAR' THEN 's' || {text_sql(value)} WHEN 'BOOLEAN' THEN 'b' || "
        f"{text_sql(value)} ELSE 'n' || CAST({number_sql(value)} + 0.0::DOUBLE AS VARCHAR) END)"
    )
