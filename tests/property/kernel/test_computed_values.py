"""Values of computed traits: the quick way against the plain one."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.computed_traits.definition import PROPERTY_FUNCTIONS, Definition
from headrace.domain.computed_traits.reference import value_of as plain_value
from headrace.domain.computed_traits.values import nearest, scalar_text, value_of

values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([0, 1, 1.0, -0.0, True, False, None, "", "a", "B", "1", [], {}, "x" * 501, 10**400, 1e308, -1e308]),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-1000, 1000, places=2).map(float),
    st.text(max_size=3),
)
occurrences = st.lists(st.tuples(st.integers(0, 3), values), max_size=12)


def as_compared(value: Any) -> Any:
    if isinstance(value, list):
        return [as_compared(item) for item in value]
    return nearest(value) if isinstance(value, Fraction) else value


@settings(max_examples=400, deadline=None)
@given(function=st.sampled_from(PROPERTY_FUNCTIONS), found=occurrences)
def test_a_value_is_that_of_the_plain_way(function: str, found: list[tuple[int, Any]]) -> None:
    definition = Definition(("A",), (), None, function, ("v",))
    counted = [(time, text) for time, value in found if (text := scalar_text(value, function)) is not None]
    expected = as_compared(plain_value(definition, [("A", time, {"v": value}) for time, value in found], 10))
    given_value = value_of(function, counted)
    assert given_value == expected
    assert type(given_value) is type(expected)


def test_more_values_than_a_list_holds() -> None:
    counted = [(0, str(number)) for number in range(1_500)]
    assert value_of("unique_list", counted) == [float(number) for number in range(1_000)]
