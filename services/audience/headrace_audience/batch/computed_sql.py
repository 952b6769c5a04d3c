"""Values of computed traits as SQL, exactly; see `headrace.domain.computed_traits`.

Numbers of computed traits are decimal numbers, those of DuckDB doubles. What is compared in the end are doubles, so the
least and the greatest are exact as they are. Sums and equal values are made of whole millionths where a number is that
(_millionths): what shops have is. Other numbers, and sums that no double holds, go through the functions of register(),
which know decimal numbers.
"""

# ruff: noqa: S608  # values are bound parameters; only names and whole numbers made here are put into statements

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

import duckdb

from headrace.domain.computed_traits.scalars import EXACT, LONGEST_TEXT, number_of, number_text
from headrace.domain.computed_traits.values import MOST_LISTED, nearest, total_of
from headrace.domain.predicates import decode_value
from headrace_audience.batch.values import number_sql, text_sql

EXACT_NUMBER = "headrace_exact_number"
EXACT_RATIO = "headrace_exact_ratio"

AGGREGATES = ("sum", "avg", "min", "max", "first", "last")
"""Functions of a property whose value is one aggregate; the others count equal values first."""

_SCALE = 1_000_000
_WHOLE = 2**53
"""Below it whole numbers are doubles, and dividing one by another rounds once."""
_FIFTEEN_DIGITS = 10**15
"""Decimal numbers of fewer digits are different doubles, and what is written back is the number itself."""

_ORDER = "kind, coalesce(number, 0), text"


def _millionths(number: str) -> str:
    return (
        f"(CASE WHEN {number} = trunc({number}) AND abs({number}) < {_WHOLE} THEN CAST({number} AS HUGEINT) * {_SCALE}"
        f" WHEN abs({number} * {_SCALE}.0::DOUBLE) < {_FIFTEEN_DIGITS}"
        f" AND round({number} * {_SCALE}.0::DOUBLE) / {_SCALE}.0::DOUBLE = {number}"
        f" THEN CAST(round({number} * {_SCALE}.0::DOUBLE) AS HUGEINT) END)"
    )


def kind_sql(json: str) -> str:
    """A number by which values of different types order; NULL of a value that does not count."""
    return (
        f"(CASE json_type({json}) WHEN 'BOOLEAN' THEN CAST({text_sql(json)} = 'true' AS INTEGER)"
        f" WHEN 'VARCHAR' THEN CASE WHEN length({text_sql(json)}) <= {LONGEST_TEXT} THEN 3 END"
        f" ELSE CASE WHEN {number_sql(json)} IS NOT NULL THEN 2 END END)"
    )


def _text(json: str) -> str:
    """What a text orders by; the same for all other values."""
    return f"(CASE json_type({json}) WHEN 'VARCHAR' THEN {text_sql(json)} ELSE '' END)"


_SAME = (
    f"(CASE kind WHEN 2 THEN coalesce('n' || {_millionths('number')}, 'o' || {EXACT_NUMBER}({text_sql('json')}))"
    f" WHEN 3 THEN 's' || {text_sql('json')} ELSE 'b' || {text_sql('json')} END)"
)
"""Equal for equal values."""


def aggregate_sql(function: str, json: str, of: Callable[[str], str]) -> str:
    """The value of a person as JSON, or NULL, as an aggregate over events.

    Args:
        function: One of AGGREGATES.
        json: The property, as an expression over an event.
        of: Makes of an expression over an event one that is NULL for events that do not count.
    """
    number = number_sql(json)
    if function in ("min", "max"):
        return f"to_json({function}({of(number)}) + 0.0::DOUBLE)"
    if function in ("sum", "avg"):
        whole = of(_millionths(number))
        other = of(f"CASE WHEN {number} IS NOT NULL AND {_millionths(number)} IS NULL THEN {text_sql(json)} END")
        numbers = f"count({of(number)})"
        parts = numbers if function == "avg" else "1"
        total, others = f"coalesce(sum({whole}), 0)", f"string_agg({other}, ',')"
        return f"(CASE WHEN {numbers} > 0 THEN {_json(_ratio(total, others, parts))} END)"
    assert function in ("first", "last")
    order = f"row(timestamp_us, {kind_sql(json)}, coalesce({number}, 0), {_text(json)})"
    pick = "arg_min" if function == "first" else "arg_max"
    return f"{pick}({of(json)}, {of(f'CASE WHEN {kind_sql(json)} IS NOT NULL THEN {order} END')})"


def value_sql(function: str, occurrences: str, keys: Sequence[str]) -> str:
    """A select of the keys and `value`: the value as JSON, of nobody who has none; for functions that AGGREGATES lacks.

    Args:
        function: What is computed.
        occurrences: A select of the keys, and `json`, the value of the property, of each event that counts.
        keys: Names of columns.
    """
    by = ", ".join(keys)
    counted = (
        f"SELECT *, {number_sql('json')} AS number, {_text('json')} AS text"
        f" FROM (SELECT *, {kind_sql('json')} AS kind FROM ({occurrences})) WHERE kind IS NOT NULL"
    )
    different = (
        f"SELECT {by}, any_value(json) AS json, any_value(kind) AS kind, any_value(number) AS number,"
        f" any_value(text) AS text, count(*) AS times FROM ({counted}) GROUP BY {by}, {_SAME}"
    )
    if function == "most_frequent":
        return f"SELECT {by}, arg_min(json, row(-times, {_ORDER})) AS value FROM ({different}) GROUP BY {by}"
    assert function == "unique_list"
    listed = f"list_slice(list(json ORDER BY {_ORDER}), 1, {MOST_LISTED})"
    return f"SELECT {by}, to_json({listed}) AS value FROM ({different}) GROUP BY {by}"


def _ratio(total: str, others: str, parts: str) -> str:
    """Millionths and other numbers, summed up and divided, as a double."""
    return (
        f"(CASE WHEN {others} IS NULL AND abs({total}) < {_WHOLE} AND {parts} < {_WHOLE // _SCALE}"
        f" THEN CAST({total} AS DOUBLE) / CAST({parts} * {_SCALE} AS DOUBLE)"
        f" ELSE {EXACT_RATIO}(CAST({total} AS VARCHAR), coalesce({others}, ''), {parts}) END)"
    )


def _json(number: str) -> str:
    """A double as JSON; one without end is a value that is no number."""
    return f"(CASE WHEN isfinite({number}) THEN to_json({number}) ELSE CAST('{{}}' AS JSON) END)"


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a connection know the functions of decimal numbers; does nothing when it knows them."""
    known = connection.execute("SELECT 1 FROM duckdb_functions() WHERE function_name = $name", {"name": EXACT_RATIO})
    if known.fetchone() is None:
        connection.create_function(EXACT_NUMBER, _exact_number, ["VARCHAR"], "VARCHAR")
        connection.create_function(EXACT_RATIO, _exact_ratio, ["VARCHAR", "VARCHAR", "BIGINT"], "DOUBLE")


def _exact_number(text: str) -> str:
    """The canonical text of a number in JSON."""
    return number_text(_number(text))


def _exact_ratio(millionths: str, others: str, parts: int) -> float:
    """So many millionths and other numbers in JSON, with commas between them, summed up and divided, rounded once."""
    numbers = [_number(text) for text in others.split(",")] if others else []
    total = EXACT.add(Decimal(millionths).scaleb(-6, EXACT), total_of(numbers))
    return nearest(Fraction(total) / parts)


def _number(text: str) -> Decimal:
    number = number_of(decode_value(text))
    assert number is not None  # only finite numbers come here
    return number
