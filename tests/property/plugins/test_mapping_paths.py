"""Mappings: the quick path for plain expressions gives what JMESPath gives."""

from __future__ import annotations

from typing import Any

import jmespath
from hypothesis import given
from hypothesis import strategies as st

from headrace.plugins.mapping import compile_expression

NAMES = st.sampled_from(["a", "b", "traits", "identifiers"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | st.just(0.0) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
PATHS = st.tuples(st.sampled_from(["profile", "event"]), st.lists(NAMES, max_size=3)).map(
    lambda parts: ".".join([parts[0], *parts[1]])
)


@given(
    st.fixed_dictionaries({"profile": VALUES, "event": VALUES}),
    st.lists(PATHS, min_size=1, max_size=3).map(" || ".join),
)
def test_plain_paths_are_jmespath(document: dict[str, Any], expression: str) -> None:
    found = compile_expression("f", expression)(document)
    expected = jmespath.search(expression, document)
    assert found == expected and type(found) is type(expected)
