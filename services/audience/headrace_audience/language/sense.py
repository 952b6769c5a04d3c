"""Comparisons that nobody can pass, which are refused when a definition is given, and those that everybody passes.

Apart from reading definitions: what is stored already is read whatever sense it makes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headrace.domain.definitions import (
    MAX_DURATION_US,
    MOVING_OPS,
    NUMBER_OPS,
    OPS,
    TIME_OPS,
    DefinitionError,
    Scalar,
    Test,
    parse_predicates,
    parse_test,
)
from headrace.domain.predicates import compile_test
from headrace.domain.times import DAY_US
from headrace_audience.language.counts import parse_count
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import decoded, parse_definition
from headrace_audience.language.places import conditions_of
from headrace_audience.language.spans import Calendar
from headrace_audience.language.windows import parse_span
from headrace_audience.language.windows_apart import check_windows

_Placed = tuple[str, Test]
"""The place of a test, and the test."""
_LISTED = ("eq", "in")
"""Comparisons that only the values pass that they name."""
_NOT_OF_MISSING = frozenset(OPS) - {"neq", "not_in", "not_contains", "exists"}
"""Comparisons that hold of no missing value."""


def parse_given(source: str | bytes | Mapping[str, Any]) -> Definition:
    """Read a definition that somebody gives now.

    Raises:
        DefinitionError: It is no definition, or has comparisons that nobody can pass; the error names the place.
    """
    raw = decoded(source)
    parsed = parse_definition(raw)
    for place, condition in conditions_of(raw["where"], "where"):
        _check_number(place, condition)
        _check_restarted(place, condition)
        _check_tests(place, condition)
    check_windows("where", parsed.where)
    return parsed


def passed_by_all(raw: Mapping[str, Any]) -> list[str]:
    """Comparisons of a definition that everybody passes, each as a sentence; `raw` is one that parse_given() takes."""
    found: list[str] = []
    for place, condition in conditions_of(raw["where"], "where"):
        for key, op, possible in _numbers(place, condition):
            if all(possible):
                found.append(f"{place}.{key}: every number is right here ({op}): the condition holds for everybody.")
    return found


def _check_number(place: str, condition: Mapping[str, Any]) -> None:
    for key, op, possible in _numbers(place, condition):
        if not any(possible):
            reason = "no number of events or values can be so, they are 0, 1, 2 and so on: nobody would be in"
            raise DefinitionError(f"{place}.{key}.{op}", reason)


def _check_restarted(place: str, condition: Mapping[str, Any]) -> None:
    """Refuse a condition that looks further back than any window; stored ones are read."""
    if "restarted" in condition:
        span = sum(_days(f"{place}.{key}", condition[key]) for key in ("inactive_for", "active_within"))
        if span > MAX_DURATION_US / DAY_US:
            raise DefinitionError(
                f"{place}.inactive_for", "inactive_for and active_within must together be shorter than 100 years"
            )


def _days(place: str, raw: object) -> float:
    span = parse_span(place, raw, "UTC")
    return span.days if isinstance(span, Calendar) else span.us / DAY_US


def _numbers(place: str, condition: Mapping[str, Any]) -> Iterator[tuple[str, str, list[bool]]]:
    """Comparisons of a number of something: key, operator, and whether each of the numbers that there are passes."""
    if "count" in condition:
        accept = parse_count(f"{place}.count", condition["count"])
        yield "count", next(iter(condition["count"])), list(accept)
    if "distinct" in condition:
        test = parse_test(f"{place}.distinct", condition["distinct"], subject="of", moving=False)
        yield "distinct", test.op, _of_whole_numbers(test)


def _of_whole_numbers(test: Test) -> list[bool]:
    """What a comparison says of whole numbers from 0 on: of 0, of those at its operands, and of large ones."""
    low, high = float(test.values[0]), float(test.values[-1])
    looked = [0.0, *(n for v in (low, high) for n in (math.floor(v), math.ceil(v), v + 1) if n >= 0), max(high, 0) + 2]
    return [_passes(test, n) for n in looked if n == math.floor(n)]


def _passes(test: Test, number: float) -> bool:
    low, high = float(test.values[0]), float(test.values[-1])
    return {
        "eq": number == low,
        "neq": number != low,
        "gt": number > low,
        "gte": number >= low,
        "lt": number < low,
        "lte": number <= low,
        "between": low <= number <= high,
    }[test.op]


def _check_tests(place: str, condition: Mapping[str, Any]) -> None:
    """Refuse tests of one value, all of which must hold, that cannot hold together."""
    if "all" in condition:
        parts = [(f"{place}.all[{i}]", part) for i, part in enumerate(condition["all"])]
        for key in ("trait", "consent"):
            tests = [
                (part[key], at, parse_test(at, part, subject=key, moving=True)) for at, part in parts if key in part
            ]
            _check_apart(tests)
            _check_excluded(key, parts, tests)
    steps = enumerate(condition.get("sequence", ()))
    for at, holder in [(place, condition), *((f"{place}.sequence[{i}]", step) for i, step in steps)]:
        if "where" in holder and "members" not in holder:
            predicates = parse_predicates(f"{at}.where", holder["where"], moving=True)
            _check_apart((".".join(p.path), f"{at}.where[{i}]", p.test) for i, p in enumerate(predicates))


def _check_apart(tests: Iterable[tuple[str, str, Test]]) -> None:
    """Check tests of several values, each with the value's name, its place and what it tests."""
    of_value: dict[str, list[_Placed]] = defaultdict(list)
    for name, place, test in tests:
        for earlier, other in of_value[name]:
            if not (_may_both(other, test) and _may_both(test, other)):
                reason = f"cannot hold together with {earlier}: no value of {name!r} passes both"
                raise DefinitionError(f"{place}.{test.op}", reason)
        of_value[name].append((place, test))


def _check_excluded(
    key: str, parts: Iterable[tuple[str, Mapping[str, Any]]], tests: Iterable[tuple[str, str, Test]]
) -> None:
    """Refuse the opposite of a test that every value passes which passes another one beside it."""
    for place, part in parts:
        negated = part.get("not", {})
        if key not in negated:
            continue
        excluded = parse_test(f"{place}.not", negated, subject=key, moving=True)
        for name, other, test in tests:
            if name == negated[key] and _implies(test, excluded):
                reason = (
                    f"cannot hold together with {other}: every value of {name!r} that passes that one passes this one"
                )
                raise DefinitionError(f"{place}.not.{excluded.op}", reason)


def _implies(one: Test, other: Test) -> bool:
    """Whether every value that passes the one passes the other; True only when that is certain."""
    if repr(one) == repr(other):
        return True
    bounds, others = _bounds(one), _bounds(other)
    return bounds is not None and others is not None and others[0] <= bounds[0] and bounds[1] <= others[1]


def _may_both(one: Test, other: Test) -> bool:
    """Whether some value may pass both tests; False only when none can."""
    if one.op == "exists" and not one.values[0] and other.op in _NOT_OF_MISSING:
        return False
    if one.op == "exists" and other.op == "exists":
        return one.values == other.values
    if one.op in _LISTED and not one.ignore_case and other.op not in MOVING_OPS:
        passes_other = compile_test(other)
        return any(passes_other(value) or _is_of_another_kind(value, other) for value in one.values)
    if one.op == "after" and other.op == "before":
        return float(one.values[0]) + 1 < float(other.values[0])
    bounds, others = _bounds(one), _bounds(other)
    if bounds is None or others is None:
        return True
    low, high = max(bounds[0], others[0]), min(bounds[1], others[1])
    return low <= high


def _is_of_another_kind(value: Scalar, test: Test) -> bool:
    """Whether a test compares with values of another kind: `"5"` beside `5` may be a question of types."""
    if test.op == "exists":
        return False
    kinds = (str,) if test.op in TIME_OPS else tuple({type(operand) for operand in test.values})
    return type(value) not in kinds


def _bounds(test: Test) -> tuple[float, float] | None:
    """The least and the greatest number that pass a test; None when it is not one of numbers."""
    if test.op not in ("eq", *NUMBER_OPS):
        return None
    number = test.values[0]
    if isinstance(number, bool | str):
        return None
    last = float(test.values[-1])
    return {
        "eq": (number, number),
        "gt": (math.nextafter(number, math.inf), math.inf),
        "gte": (number, math.inf),
        "lt": (-math.inf, math.nextafter(number, -math.inf)),
        "lte": (-math.inf, number),
        "between": (number, last),
    }[test.op]
