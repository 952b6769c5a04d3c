"""Tests of JSON values as SQL expressions of DuckDB, which say the same as `predicates`.

All operands are bound as parameters; no text of a definition gets into the statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headrace.domain.definitions import TIME_PATTERN, Scalar, Test
from headrace.domain.predicates import fold_case
from headrace_audience.language.spans import near_spans

MAX_SCANNED = 16
"""Longer lists of operands are looked up by hash."""


class Parameters:
    """The parameters of a statement."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        """Add a parameter; returns how the statement names it."""
        name = f"p{len(self._values)}"
        self._values[name] = value
        return f"${name}"

    def of(self, statement: str) -> dict[str, Any]:
        """The parameters that a statement names; DuckDB refuses others."""
        return {name: self._values[name] for name in set(re.findall(r"\$(p[0-9]+)", statement))}


def json_path(parts: Sequence[str]) -> str:
    """A path of keys as a JSON path; definitions allow no key that could break out of its quotes."""
    return "$" + "".join(f'."{part}"' for part in parts)


def text_sql(value: str) -> str:
    """The text of a JSON string."""
    return f"({value} ->> '$')"


def number_sql(value: str) -> str:
    """A JSON number as a finite DOUBLE, or NULL."""
    number = f"TRY_CAST({text_sql(value)} AS DOUBLE)"
    # Numbers are DOUBLE, BIGINT, UBIGINT, HUGEINT and UHUGEINT. With IN, DuckDB would join a table of these five names.
    is_number = f"(json_type({value}) = 'DOUBLE' OR suffix(json_type({value}), 'INT'))"
    return f"(CASE WHEN {is_number} AND isfinite({number}) THEN {number} END)"


def moment_sql(value: str, parameters: Parameters) -> str:
    """The time that a JSON string says, in microseconds, or NULL."""
    text = text_sql(value)
    pattern = parameters.bind(TIME_PATTERN)
    zone = parameters.bind("([+-])([0-9]{2}):?([0-9]{2})$")

    def whole(part: str) -> str:
        return f"coalesce(TRY_CAST({part} AS BIGINT), 0)"

    def zone_part(group: int) -> str:
        return f"CASE WHEN length({text}) > 10 THEN regexp_extract({text}, {zone}, {group}) END"

    second = whole(f"CASE WHEN substring({text}, 17, 1) = ':' THEN substring({text}, 18, 2) END")
    fraction = whole(f"left(rpad(regexp_extract({text}, '[.]([0-9]+)', 1), 6, '0'), 6)")
    offset = (
        f"(CASE WHEN {zone_part(1)} = '-' THEN -1 ELSE 1 END)"
        f" * ({whole(zone_part(2))} * 60 + {whole(zone_part(3))}) * 60000000"
    )
    moment = (
        f"(TRY_CAST(substring({text}, 1, 10) AS DATE) - DATE '1970-01-01') * 86400000000"
        f" + {whole(f'substring({text}, 12, 2)')} * 3600000000 + {whole(f'substring({text}, 15, 2)')} * 60000000"
        f" + {second} * 1000000 + {fraction} - {offset}"
    )
    right = f"json_type({value}) = 'VARCHAR' AND regexp_full_match({text}, {pattern})"
    return f"(CASE WHEN {right} THEN {moment} END)"


def near_sql(test: Test, said: str, now: str) -> str:
    """Whether a time, or NULL, is as near to a moment as "in_last" or "in_next" asks; never NULL."""
    first, last = near_spans(test)
    return f"coalesce({said} + {first} <= {now} AND {now} < {said} + {last}, false)"


def passes_sql(test: Test, value: str, parameters: Parameters, number: str = "") -> str:
    """A boolean expression, never NULL, that says whether a JSON value (or NULL) passes a test without a clock.

    `number` is what number_sql() gives for the value, where that is at hand: many tests of one value need it once.
    """
    number = number or number_sql(value)
    match test.op:
        case "eq" | "in":
            return _among(test.values, test.ignore_case, value, number, parameters)
        case "neq" | "not_in":
            return f"(NOT {_among(test.values, test.ignore_case, value, number, parameters)})"
        case "contains":
            return _contains(test, value, parameters)
        case "not_contains":
            return f"({_present(value)} AND NOT {_contains(test, value, parameters)})"
        case "starts_with" | "ends_with" | "matches":
            return _text(test, value, parameters)
        case "before" | "after":
            bound = parameters.bind(int(float(test.values[0])))
            compare = "<" if test.op == "before" else ">"
            return f"coalesce({moment_sql(value, parameters)} {compare} {bound}, false)"
        case "exists":
            return _present(value) if test.values[0] else f"(NOT {_present(value)})"
    low, high = parameters.bind(float(test.values[0])), parameters.bind(float(test.values[-1]))
    if test.op == "between":
        return f"coalesce({number} >= {low} AND {number} <= {high}, false)"
    compare = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[test.op]
    return f"coalesce({number} {compare} {low}, false)"


def _present(value: str) -> str:
    return f"(coalesce(json_type({value}), 'NULL') <> 'NULL')"


def _folded(value: str, ignore_case: bool) -> str:
    return f"lower({text_sql(value)})" if ignore_case else text_sql(value)


def _in(value: str, operands: Sequence[Any], parameters: Parameters) -> str:
    if len(operands) == 1:
        return f"{value} = {parameters.bind(operands[0])}"
    bound = parameters.bind(list(operands))
    if len(operands) <= MAX_SCANNED:
        return f"list_contains({bound}, {value})"
    return f"{value} IN (SELECT unnest({bound}))"


def _among(operands: Sequence[Scalar], ignore_case: bool, value: str, number: str, parameters: Parameters) -> str:
    texts = [fold_case(o) if ignore_case else o for o in operands if isinstance(o, str)]
    truths = {o for o in operands if isinstance(o, bool)}
    numbers = [float(o) for o in operands if isinstance(o, int | float) and not isinstance(o, bool)]
    ways: list[str] = []
    if texts:
        ways.append(f"(json_type({value}) = 'VARCHAR' AND {_in(_folded(value, ignore_case), texts, parameters)})")
    if truths:
        wanted = ", ".join("'true'" if truth else "'false'" for truth in sorted(truths))
        ways.append(f"(json_type({value}) = 'BOOLEAN' AND {text_sql(value)} IN ({wanted}))")
    if numbers:
        ways.append(f"({_in(number, numbers, parameters)})")
    return f"coalesce({' OR '.join(f'coalesce({way}, false)' for way in ways)}, false)"


def _contains(test: Test, value: str, parameters: Parameters) -> str:
    operand = test.values[0]
    item = _among((operand,), test.ignore_case, "item", number_sql("item"), parameters)
    ways = f"WHEN 'ARRAY' THEN len([item for item in json_extract({value}, '$[*]') if {item}]) > 0"
    if isinstance(operand, str):
        part = parameters.bind(fold_case(operand) if test.ignore_case else operand)
        ways += f" WHEN 'VARCHAR' THEN contains({_folded(value, test.ignore_case)}, {part})"
    return f"coalesce(CASE json_type({value}) {ways} ELSE false END, false)"


def _text(test: Test, value: str, parameters: Parameters) -> str:
    operand = str(test.values[0])
    if test.op == "matches":
        pattern = parameters.bind(f"(?i){operand}" if test.ignore_case else operand)
        passes = f"regexp_matches({text_sql(value)}, {pattern})"
    else:
        function = "starts_with" if test.op == "starts_with" else "suffix"
        part = parameters.bind(fold_case(operand) if test.ignore_case else operand)
        passes = f"{function}({_folded(value, test.ignore_case)}, {part})"
    return f"coalesce(json_type({value}) = 'VARCHAR' AND {passes}, false)"
