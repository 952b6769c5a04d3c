"""Comparisons of a number of events in audience definitions."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.domain.definitions import DefinitionError, check_keys, need_list

MAX_COUNT = 10_000
COUNT_OPS = ("eq", "neq", "in", "not_in", "gt", "gte", "lt", "lte", "between")


def parse_count(path: str, raw: object) -> tuple[bool, ...]:
    """A comparison of a number of events, as the table of accepted numbers (see EventCount.accept)."""
    if not isinstance(raw, Mapping) or not raw:
        raise DefinitionError(path, 'must be an object such as {"gte": 2}')
    check_keys(path, raw, allowed=COUNT_OPS, required=())
    if len(raw) != 1:
        raise DefinitionError(path, f'must hold one comparison, not {len(raw)}; {{"between": [2, 5]}} is two in one')
    op, operand = next(iter(raw.items()))
    place = f"{path}.{op}"
    if op in ("in", "not_in"):
        numbers = [_whole(f"{place}[{i}]", item) for i, item in enumerate(need_list(place, operand))]
    elif op == "between":
        if not isinstance(operand, list) or len(operand) != 2:
            raise DefinitionError(place, "must be a list of two whole numbers")
        numbers = [_whole(f"{place}[{i}]", item) for i, item in enumerate(operand)]
        if numbers[1] < numbers[0]:
            raise DefinitionError(place, "the second number is less than the first")
    else:
        numbers = [_whole(place, operand)]
    n = numbers[0]
    table: list[bool] = []
    for c in range(max(numbers) + 2):
        table.append(
            {
                "eq": c == n,
                "neq": c != n,
                "in": c in numbers,
                "not_in": c not in numbers,
                "gt": c > n,
                "gte": c >= n,
                "lt": c < n,
                "lte": c <= n,
                "between": n <= c <= numbers[-1],
            }[op]
        )
    while len(table) > 1 and table[-1] == table[-2]:
        table.pop()
    return tuple(table)


def _whole(place: str, raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        raise DefinitionError(place, "must be a whole number, 0 or greater")
    if raw > MAX_COUNT:
        raise DefinitionError(place, f"must be at most {MAX_COUNT}")
    return raw
