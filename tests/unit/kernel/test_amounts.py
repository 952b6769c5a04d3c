"""Amounts: numbers that are added up exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.amounts import LARGEST, amount_of, compile_total
from headrace.domain.definitions import Test


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0, 0),
        (19.9, 19_900_000),
        (-0.1, -100_000),
        (0.000_000_5, 0),
        (0.000_001_5, 2),
        (LARGEST, LARGEST * 1_000_000),
        (LARGEST + 1, None),
        (-(10**400), None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("5", None),
        (None, None),
        ([1], None),
    ],
)
def test_amounts(value: object, amount: int | None) -> None:
    assert amount_of(value) == amount


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.sampled_from(("gt", "gte", "lt", "lte", "eq", "neq"))
)
def test_an_average_is_compared_exactly(values: list[float], op: str) -> None:
    amounts = [amount for value in values if (amount := amount_of(value)) is not None]
    wanted = Fraction(sum(amounts), len(amounts) * 1_000_000)
    operand = 0.5
    expected = {
        "gt": wanted > operand,
        "gte": wanted >= operand,
        "lt": wanted < operand,
        "lte": wanted <= operand,
        "eq": wanted == operand,
        "neq": wanted != operand,
    }[op]
    assert compile_total(Test(op, (operand,)))(sum(amounts), len(amounts)) is expected


def test_what_does_not_compare_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="exists"):
        compile_total(Test("exists", (1.0,)))
