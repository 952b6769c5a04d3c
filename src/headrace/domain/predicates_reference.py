"""Tests of values for the reference evaluators, written apart from `predicates`, in the plainest way."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import re2

from headrace.domain.definitions import Test

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?:Z|(?P<sign>[+-])(?P<zone_hour>[0-9]{2}):?(?P<zone_minute>[0-9]{2}))?)?"
)


def at_path(document: Any, path: Sequence[str]) -> Any:
    """The value at a path, None when there is none."""
    for part in path:
        if not isinstance(document, Mapping) or part not in document:
            return None
        document = document[part]
    return document


def passes(test: Test, value: Any) -> bool:
    """Whether a value passes a test that does not depend on the clock."""
    if value is None:
        return test.op in ("neq", "not_in") or (test.op == "exists" and test.values[0] is False)
    return _RULES[test.op](test, value)


def moment(value: Any) -> int | None:
    """The time that a text says, in microseconds."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    parts = {name: int(found[name] or 0) for name in ("hour", "minute", "second", "zone_hour", "zone_minute")}
    if parts["hour"] > 23 or parts["minute"] > 59 or parts["second"] > 59:
        return None
    if parts["zone_hour"] > 23 or parts["zone_minute"] > 59:
        return None
    try:
        day = datetime.strptime(found["date"], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    days = day.toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal()
    zone = (parts["zone_hour"] * 60 + parts["zone_minute"]) * (-1 if found["sign"] == "-" else 1)
    seconds = days * 86400 + parts["hour"] * 3600 + (parts["minute"] - zone) * 60 + parts["second"]
    return seconds * 1_000_000 + int((found["fraction"] or "0").ljust(6, "0")[:6])


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _folded(text: str, test: Test) -> str:
    return "".join(c.lower()[0] for c in text) if test.ignore_case else text


def _same(test: Test, value: Any, operand: Any) -> bool:
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, str) and isinstance(operand, str):
        return _folded(value, test) == _folded(operand, test)
    number = _number(value)
    return number is not None and not isinstance(operand, str) and number == operand


def _among(test: Test, value: Any) -> bool:
    return any(_same(test, value, operand) for operand in test.values)


def _contains(test: Test, value: Any) -> bool:
    operand = test.values[0]
    if isinstance(value, list):
        return any(_same(test, item, operand) for item in value)
    return isinstance(value, str) and isinstance(operand, str) and _folded(operand, test) in _folded(value, test)


def _starts(test: Test, value: Any) -> bool:
    return isinstance(value, str) and _folded(value, test).startswith(_folded(str(test.values[0]), test))


def _ends(test: Test, value: Any) -> bool:
    return isinstance(value, str) and _folded(value, test).endswith(_folded(str(test.values[0]), test))


def _matches(test: Test, value: Any) -> bool:
    options = re2.Options()
    options.case_sensitive = not test.ignore_case
    return isinstance(value, str) and bool(re2.compile(str(test.values[0]), options).search(value))


def _ordered(right: Callable[[float, float, float], bool]) -> Callable[[Test, Any], bool]:
    def rule(test: Test, value: Any) -> bool:
        number = _number(value)
        return number is not None and right(number, float(test.values[0]), float(test.values[-1]))

    return rule


def _timed(right: Callable[[int, float], bool]) -> Callable[[Test, Any], bool]:
    def rule(test: Test, value: Any) -> bool:
        said = moment(value)
        return said is not None and right(said, float(test.values[0]))

    return rule


_RULES: dict[str, Callable[[Test, Any], bool]] = {
    "eq": _among,
    "in": _among,
    "neq": lambda test, value: not _among(test, value),
    "not_in": lambda test, value: not _among(test, value),
    "contains": _contains,
    "not_contains": lambda test, value: not _contains(test, value),
    "starts_with": _starts,
    "ends_with": _ends,
    "matches": _matches,
    "gt": _ordered(lambda n, low, _: n > low),
    "gte": _ordered(lambda n, low, _: n >= low),
    "lt": _ordered(lambda n, low, _: n < low),
    "lte": _ordered(lambda n, low, _: n <= low),
    "between": _ordered(lambda n, low, high: low <= n <= high),
    "before": _timed(lambda said, bound: said < bound),
    "after": _timed(lambda said, bound: said > bound),
    "exists": lambda test, value: test.values[0] is True,
}
