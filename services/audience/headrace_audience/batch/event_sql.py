"""Conditions on events as SQL: one scan for all of them, and few tables of what the events come to per profile.

| table | has |
| --- | --- |
| found | the different events that any condition looks at, with the properties that are looked at as JSON and number |
| tracked | the same; of each whether it is one of those of a condition, and values made of its properties |
| counted | per profile, all counts, sums and the like |
| apart_values | per profile, what has a statement of its own: sequences and computed traits |
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from headrace.domain.amounts import LARGEST, SCALE, threshold
from headrace.domain.computed_traits.definition import COUNT
from headrace.domain.definitions import Predicate, Test
from headrace_audience.batch.computed_sql import AGGREGATES, aggregate_sql, value_sql
from headrace_audience.batch.moments import Moments
from headrace_audience.batch.relations import PROPERTIES, held_sql, held_value, named_sql
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
_ORDER = "row(e.timestamp_us, e.message_id)"


@dataclass
class _Group:
    """Events that the same conditions look at.

    Attributes:
        is_one: Column of `tracked`: whether an event is one of them.
        names: Names of the events.
        where: What they pass.
        spans: What can pass over an event so that something changes; None is its own time.
        dates: Expressions over an event `e` that may be a time at which something changes.
        newest: What is looked at of the newest of them, with its place in a list: expressions over an event `e`.
    """

    is_one: str
    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    spans: set[Span | None] = field(default_factory=lambda: {None})
    dates: set[str] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)


class EventTables:
    """The tables that conditions on events need, and the conditions as expressions over them."""

    def __init__(self, moments: Moments, parameters: Parameters) -> None:
        self._moments = moments
        self._parameters = parameters
        self._groups: dict[tuple[tuple[str, ...], tuple[Predicate, ...]], _Group] = {}
        self._properties: dict[tuple[str, ...], str] = {}
        self._values: dict[str, str] = {}
        self._columns: dict[str, str] = {}
        self._apart: dict[str, str] = {}

    def sources(self) -> list[str]:
        """WITH entries of the events."""
        groups = self._groups.values()
        if not groups:
            return []
        tests = {group.is_one: self._test(group) for group in groups}  # first: it may look at further properties
        read = [
            f"json_extract({PROPERTIES}, {self._parameters.bind(json_path(path))}) AS {name}"
            for path, name in self._properties.items()
        ]
        names = dict.fromkeys(name for group in groups for name in group.names)
        columns = ", ".join(["profile, timestamp_us, message_id, name", *read])
        different = f"SELECT DISTINCT {columns} FROM events WHERE {named_sql(names, self._parameters)}"
        numbers = "".join(f", {number_sql(name)} AS {_number_of(name)}" for name in self._properties.values())
        found = f"SELECT *{numbers} FROM ({different})"
        computed = ", ".join(f"{expression} AS {name}" for name, expression in tests.items())
        valued = "".join(f", {expression} AS {name}" for expression, name in self._values.items())
        tracked = f"SELECT profile, timestamp_us, message_id, {computed}{valued} FROM found"
        return [f"found AS ({found})", f"tracked AS ({tracked})"]

    def _test(self, group: _Group) -> str:
        names = [f"name = {self._parameters.bind(name)}" for name in group.names]
        named = f"({' OR '.join(names)})"
        return f"({' AND '.join([named, *map(self._passes, group.where)])})"

    def _passes(self, predicate: Predicate) -> str:
        """Whether an event of `found` passes a predicate."""
        value = self._property(predicate.path)
        return passes_sql(predicate.test, value, self._parameters, _number_of(value))

    def tables(self) -> list[str]:
        """WITH entries of what the events come to."""
        tables = [f"counted AS ({self._counted()})"] if self._columns else []
        if self._apart:
            keys = ", ".join(self._keys)
            rows = " UNION ALL ".join(
                f"SELECT {keys}, '{name}' AS name, value FROM ({s})" for s, name in self._apart.items()
            )
            tables.append(f"apart_values AS ({held_sql(rows, keys)})")
        return tables

    def names(self) -> list[str]:
        """Names of those tables."""
        return [*(["counted"] if self._columns else []), *(["apart_values"] if self._apart else [])]

    def edges(self) -> list[str]:
        """Selects of (profile, at_us): all moments at which any of the conditions may change."""
        edges = []
        for group in self._groups.values():
            moments = [self._moments.passes(span, _TIME) for span in group.spans] + sorted(group.dates)
            edges.append(
                f"SELECT profile, unnest([{', '.join(moments)}]) AS at_us FROM tracked AS e WHERE e.{group.is_one}"
            )
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
        group = self._groups.setdefault((names, where), _Group(f"is{len(self._groups)}", names, where))
        group.spans.update(spans)
        return group

    def _property(self, path: Sequence[str]) -> str:
        """A column of `found`: a property of the event, as JSON. Beside it lies _number_of() it."""
        return self._properties.setdefault(tuple(path), f"property{len(self._properties)}")

    def _value(self, expression: str) -> str:
        """A column of `tracked`: what is made of the properties of an event."""
        return self._values.setdefault(expression, f"value{len(self._values)}")

    def _column(self, expression: str) -> str:
        """A column of `counted`: what is made of the events of a profile."""
        return f"counted.{self._columns.setdefault(expression, f'column{len(self._columns)}')}"

    def _held(self, select: str) -> str:
        """The value that a statement of its own, a select of the keys and `value`, has for a profile."""
        name = self._apart.setdefault(select, f"apart{len(self._apart)}")
        return held_value("apart_values", name, self._parameters)

    @property
    def _keys(self) -> Sequence[str]:
        """The columns that say to whom a row of what the events come to belongs."""
        return ("profile",) if self._moments.now_us is not None else ("profile", "at_us")

    def _whose(self, event: str) -> str:
        """The same, beside events."""
        return f"{event}.profile" if self._moments.now_us is not None else "moments.profile, moments.at_us"

    def _events(self, event: str) -> str:
        """What stands after FROM: all events; at many moments, those of each moment's profile beside it."""
        if self._moments.now_us is not None:
            return f"tracked AS {event}"
        return f"moments JOIN tracked AS {event} ON {event}.profile = moments.profile"

    def _counted(self) -> str:
        columns = [f"{expression} AS {name}" for expression, name in self._columns.items()]
        columns += [
            f"arg_max([{', '.join(group.newest)}], {self._of(group, _ORDER, self._past)}) AS newest_{group.is_one}"
            for group in self._groups.values()
            if group.newest
        ]
        by = self._whose("e") if self._moments.now_us is not None else ", ".join(self._moments.columns())
        return f"SELECT {', '.join([self._whose('e'), *columns])} FROM {self._events('e')} GROUP BY {by}"

    @property
    def _past(self) -> str:
        return f"{_TIME} <= {self._moments.at}"

    def _of(self, group: _Group, value: str, condition: str) -> str:
        """A value of the events of a group for which a condition holds, NULL for others: aggregates pass over them.

        FILTER would say the same, but DuckDB copies the columns of all aggregates for each that has one.
        """
        return f"CASE WHEN e.{group.is_one} AND {condition} THEN {value} END"

    def _number_of(self, group: _Group, condition: str) -> str:
        counted = f"count({self._of(group, '1', condition)})"
        return f"coalesce({self._column(counted)}, 0)"

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
            said = f"e.{self._value(moment_sql(self._property(predicate.path), self._parameters))}"
            tests.append(near_sql(predicate.test, said, at))
            group.dates |= {f"{said} + {shift}" for shift in near_spans(predicate.test)}
        return self._accepted(self._number_of(group, " AND ".join(tests)), leaf.accept)

    def _aggregate(self, leaf: Aggregate) -> str:
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        inside = self._moments.inside(leaf.window, _TIME)
        if leaf.function == "distinct":
            value = self._of(group, f"e.{self._value(_identity(self._property(leaf.path)))}", inside)
            return self._numbers(leaf.test, f"coalesce({self._column(f'count(DISTINCT {value})')}, 0)", "1", 1)
        amount = self._of(group, f"e.{self._value(_amount(_number_of(self._property(leaf.path))))}", inside)
        if leaf.function in ("sum", "avg"):
            total = f"coalesce({self._column(f'sum({amount})')}, 0)"
            if leaf.function == "sum":
                return self._numbers(leaf.test, total, "1", SCALE)
            number = f"coalesce({self._column(f'count({amount})')}, 0)"
            missing = "true" if leaf.test.op == "neq" else "false"
            return f"(CASE WHEN {number} = 0 THEN {missing} ELSE {self._numbers(leaf.test, total, number, SCALE)} END)"
        found = self._column(f"{leaf.function}({amount})")
        missing = "true" if leaf.test.op == "neq" else "false"
        return f"coalesce({self._numbers(leaf.test, found, '1', SCALE)}, {missing})"

    def _computed_value(self, leaf: ComputedValue) -> str:
        count = as_count(leaf)
        if count is not None:
            return self._count(count)
        group = self._group(leaf.names, leaf.where, _spans(leaf.window))
        inside = self._moments.inside(leaf.window, _TIME)
        if leaf.function == COUNT:
            value = f"to_json(nullif({self._number_of(group, inside)}, 0))"
        elif leaf.function in AGGREGATES:
            aggregate = aggregate_sql(
                leaf.function,
                self._property(leaf.path),
                lambda expression: self._of(group, f"e.{self._value(expression)}", inside),
            )
            value = self._column(aggregate)
        else:
            json = f"e.{self._value(self._property(leaf.path))} AS json"
            occurrences = (
                f"SELECT {self._whose('e')}, {json} FROM {self._events('e')} WHERE e.{group.is_one} AND {inside}"
            )
            value = self._held(value_sql(leaf.function, occurrences, self._keys))
        return passes_sql(leaf.test, value, self._parameters)

    def _numbers(self, test: Test, total: str, count: str, scale: int) -> str:
        """A comparison of total / count; counts are compared as doubles, amounts as whole numbers."""
        if scale == 1:
            low, high = (self._parameters.bind(float(test.values[place])) for place in (0, -1))
        else:
            low, high = (f"(CAST({threshold(test, place)} AS HUGEINT) * {count})" for place in (0, -1))
        if test.op == "between":
            return f"({total} >= {low} AND {total} <= {high})"
        return f"({total} {_COMPARE[test.op]} {low})"

    def _first(self, leaf: FirstTime) -> str:
        group = self._group(leaf.names, (), _spans(leaf.window))
        first = f"min({self._of(group, _TIME, 'true')})"
        return f"coalesce({self._column(self._moments.inside(leaf.window, f'({first})'))}, false)"

    def _last(self, leaf: LastTime) -> str:
        group = self._group(leaf.names, (), _spans(leaf.window))
        newest = f"max({self._of(group, _TIME, self._past)})"
        inside = f"coalesce({self._column(self._moments.inside(leaf.window, f'({newest})'))}, false)"
        if not leaf.where:
            return inside
        passes = f"e.{self._value(' AND '.join(map(self._passes, leaf.where)))}"
        place = group.newest.setdefault(passes, len(group.newest) + 1)
        return f"({inside} AND coalesce(counted.newest_{group.is_one}[{place}], false))"

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
        tables = [self._events("e0")]
        where = [f"e0.{groups[0].is_one}", moments.inside(leaf.window, "e0.timestamp_us")]
        before = 0
        for number, step in enumerate(leaf.steps[1:], start=1):
            if step.negated:
                continue
            # The values that are compared lie in the events of the step before.
            follows = self._follows(step, f"e{before}", groups[number], f"e{number}")
            tables.append(f"JOIN tracked AS e{number} ON {' AND '.join(follows)}")
            where.append(moments.inside(leaf.window, f"e{number}.timestamp_us"))
            if leaf.steps[number - 1].negated:
                where.append(self._stays_away(leaf, groups, before, number - 1, f"e{number}"))
            before = number
        last = leaf.steps[-1]
        if last.negated:
            where.append(self._stays_away(leaf, groups, before, len(leaf.steps) - 1, None))
            if last.within_us is not None:
                where.append(f"{moments.at} >= e{before}.timestamp_us + {last.within_us}")
        found = f"{self._whose('e0')}, to_json(true) AS value FROM {' '.join(tables)} WHERE {' AND '.join(where)}"
        return f"({self._held(f'SELECT DISTINCT {found}')} IS NOT NULL)"

    def _follows(self, step: Step, before: str, group: _Group, event: str) -> list[str]:
        """What makes an event the one of a step, after the event of the step before."""
        tests = [
            f"{event}.profile = {before}.profile",
            f"{event}.{group.is_one}",
            f"({event}.timestamp_us, {event}.message_id) > ({before}.timestamp_us, {before}.message_id)",
        ]
        if step.within_us is not None:
            tests.append(f"{event}.timestamp_us <= {before}.timestamp_us + {step.within_us}")
        for path in step.same:
            value = self._value(_identity(self._property(path)))
            tests.append(f"{before}.{value} = {event}.{value}")
        return tests

    def _stays_away(
        self, leaf: InOrder, groups: Sequence[_Group], before: int, number: int, following: str | None
    ) -> str:
        """A negated step: its event does not come after the one before and ahead of the following."""
        tests = self._follows(leaf.steps[number], f"e{before}", groups[number], "n")
        tests.append(f"n.timestamp_us <= {self._moments.at}")
        if following is not None:
            tests.append(f"(n.timestamp_us, n.message_id) < ({following}.timestamp_us, {following}.message_id)")
        return f"NOT EXISTS (SELECT 1 FROM tracked AS n WHERE {' AND '.join(tests)})"


def _spans(window: Window) -> list[Span]:
    return [span for span in (window.within, window.older_than) if span is not None]


def _number_of(property_: str) -> str:
    """The column of `found` that has the number that a property is, or NULL: it is worked out once for all tests."""
    return f"{property_}_number"


def _amount(number: str) -> str:
    """The amount that a number is, as a whole number, or NULL; see headrace.domain.amounts."""
    whole = f"CAST(round_even({number} * {SCALE}.0::DOUBLE, 0) AS HUGEINT)"
    return f"(CASE WHEN abs({number}) <= {LARGEST} THEN {whole} END)"


def _identity(value: str) -> str:
    """A text that is equal for equal JSON values, or NULL for what is equal to nothing."""
    return (
        f"(CASE json_type({value}) WHEN 'VARCHAR' THEN 's' || {text_sql(value)} WHEN 'BOOLEAN' THEN 'b' || "
        f"{text_sql(value)} ELSE 'n' || CAST({number_sql(value)} + 0.0::DOUBLE AS VARCHAR) END)"
    )
