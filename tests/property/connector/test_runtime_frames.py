"""The plugin's process under arbitrary frames: it always answers, and only with a reply."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.connector import frames
from headrace.connector.runtime import Runtime

METHODS = [
    "load",
    "open",
    "close",
    "rows",
    "add_members",
    "remove_members",
    "send_events",
    "delete",
    "read",
    "normalise",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(
        ["instance", "connector", "settings", "batch", "members", "values", "request", "response", "value"]
    ),
    VALUES,
    max_size=5,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(frame: bytes) -> None:
    assert msgspec.msgpack.decode(Runtime().answer(frame), type=frames.Reply).failure is not None


@given(st.lists(st.tuples(st.sampled_from(METHODS) | st.text(max_size=6), ARGUMENTS | VALUES), max_size=4))
def test_any_calls_are_answered_one_by_one(calls: list[tuple[str, object]]) -> None:
    runtime = Runtime()
    for method, argument in calls:
        frame = msgspec.msgpack.encode({"method": method, "argument": argument})
        reply = msgspec.msgpack.decode(runtime.answer(frame), type=frames.Reply)
        # Nothing is loaded, so nothing but forgetting an instance can succeed.
        assert reply.failure is not None or method == "close"
