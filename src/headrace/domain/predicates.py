"""Tests of JSON values, compiled to functions, and the reading of properties and traits.

A value is what JSON knows; None is a missing value or null. A test of a missing value is false, except "neq", "not_in"
and "exists": false.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import re2

from headrace.domain.definitions import Predicate, Scalar, Test, time_of

ValueTest = Callable[[Any], bool]

_decode = msgspec.json.Decoder().decode


def decode_object(data: bytes | str | None) -> dict[str, Any]:
    """A JSON object; empty when there is none or it is broken."""
    if not data:
        return {}
    try:
        value = _decode(data)
    except msgspec.ValidationError:
        value = json.loads(data)  # a number beyond the range of floats
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def decode_value(text: bytes | str) -> Any:
    """Any JSON value. Raises ValueError when it is none."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        return json.loads(text)  # a number beyond the range of floats


def value_at(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at a path of keys; None when it is missing."""
    value: Any = document
    for part in path:
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def fold_case(text: str) -> str:
    """Lower case, character by character (never depending on neighbours, never longer)."""
    if text.isascii():
        return text.lower()
    return "".join("i" if c == "\u0130" else c.lower() for c in text)


def comparable(value: Any, ignore_case: bool) -> Any:
    """What equality compares: (kind, value), or None for what equals nothing."""
    if isinstance(value, bool):
        return ("b", value)
    if isinstance(value, str):
        return ("s", fold_case(value) if ignore_case else value)
    if isinstance(value, int | float):
        number = _number(value)
        return None if number is None else ("n", number)
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _equality(test: Test) -> ValueTest:
    wanted = {comparable(v, test.ignore_case) for v in test.values}
    ignore_case = test.ignore_case
    negative = test.op in ("neq", "not_in")
    return lambda value: (comparable(value, ignore_case) in wanted) is not negative


def _containment(test: Test) -> ValueTest:
    operand: Scalar = test.values[0]
    ignore_case = test.ignore_case
    wanted = comparable(operand, ignore_case)
    part = wanted[1] if isinstance(operand, str) else None

    def contains(value: Any) -> bool:
        if isinstance(value, str):
            return part is not None and part in (fold_case(value) if ignore_case else value)
        if isinstance(value, list):
            return any(comparable(item, ignore_case) == wanted for item in value)
        return False

    if test.op == "contains":
        return contains
    return lambda value: value is not None and not contains(value)


def _text(test: Test) -> ValueTest:
    operand = str(test.values[0])
    ignore_case = test.ignore_case
    if test.op == "matches":
        search = re2.compile(f"(?i){operand}" if ignore_case else operand).search
        return lambda value: isinstance(value, str) and search(value) is not None
    wanted = fold_case(operand) if ignore_case else operand
    starts = test.op == "starts_with"

    def affix(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        text = fold_case(value) if ignore_case else value
        return text.startswith(wanted) if starts else text.endswith(wanted)

    return affix


def _order(test: Test) -> ValueTest:
    low = float(test.values[0])
    high = float(test.values[-1])
    compare: dict[str, Callable[[float], bool]] = {
        "gt": lambda n: n > low,
        "gte": lambda n: n >= low,
        "lt": lambda n: n < low,
        "lte": lambda n: n <= low,
        "between": lambda n: low <= n <= high,
    }
    right = compare[test.op]

    def ordered(value: Any) -> bool:
        number = _number(value)
        return number is not None and right(number)

    return ordered


def moment_of(value: Any) -> int | None:
    """The time that a value says, in microseconds; None when it is no text that is a time."""
    return time_of(value) if isinstance(value, str) else None


def _moment(test: Test) -> ValueTest:
    bound = int(float(test.values[0]))
    before = test.op == "before"

    def timed(value: Any) -> bool:
        moment = moment_of(value)
        return moment is not None and (moment < bound if before else moment > bound)

    return timed


def compile_test(test: Test) -> ValueTest:
    """A function that says whether a value passes. Not for "in_last" and "in_next", which need a clock."""
    match test.op:
        case "eq" | "neq" | "in" | "not_in":
            return _equality(test)
        case "contains" | "not_contains":
            return _containment(test)
        case "starts_with" | "ends_with" | "matches":
            return _text(test)
        case "gt" | "gte" | "lt" | "lte" | "between":
            return _order(test)
        case "before" | "after":
            return _moment(test)
        case "exists":
            wanted = bool(test.values[0])
            return lambda value: (value is not None) is wanted
    raise ValueError(f"{test.op} depends on the clock")


def compile_predicates(predicates: Sequence[Predicate]) -> Callable[[Mapping[str, Any]], bool]:
    """A function that says whether an event's properties pass all predicates."""
    tests = [(p.path, compile_test(p.test)) for p in predicates]
    if len(tests) == 1 and len(tests[0][0]) == 1:
        (key,), only = tests[0]
        return lambda properties: only(properties.get(key))
    return lambda properties: all(test(value_at(properties, path)) for path, test in tests)
