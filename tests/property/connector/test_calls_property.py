"""The plugin's process under arbitrary requests: it always answers, with a response or with a failure."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.connector.calls import CallError, Calls
from headrace.connector.operations import CLOSE, LOAD, NORMALISE, OPERATIONS, Operation

PLUGIN = [("webhook", "headrace_destination_webhook.plugin")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Operation[Any, Any], bytes]:
    """A call whose request holds anything that its message can hold at its first level."""
    operation = draw(st.sampled_from(OPERATIONS))
    message: Any = operation.request()
    for field in operation.request.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.name.endswith("_json"):
            setattr(message, field.name, draw(VALUES.map(msgspec.json.encode) | st.binary(max_size=20)))
        elif field.name == "instance":
            message.instance = draw(st.sampled_from(["i", "other"]))
        elif field.name == "connector":
            message.connector = draw(st.sampled_from(["webhook", "nothing"]))
    return operation, message.SerializeToString()


@given(st.sampled_from(OPERATIONS), st.binary(max_size=200))
def test_any_bytes_are_answered(operation: Operation[Any, Any], data: bytes) -> None:
    calls = Calls([])
    try:
        calls.answer(operation, data)
    except CallError:
        return
    # Nothing is loaded, so nothing but forgetting an instance, and offering nothing, can succeed.
    assert operation in (CLOSE, LOAD)


@given(st.lists(requests(), max_size=5))
def test_any_calls_are_answered_one_by_one(made: list[tuple[Operation[Any, Any], bytes]]) -> None:
    calls = Calls(PLUGIN)
    for operation, data in made:
        try:
            response = calls.answer(operation, data)
        except CallError as error:
            assert error.reason
        else:
            operation.result_of(operation.response.FromString(response))


def test_what_the_first_calls_find_is_there_for_the_next() -> None:
    calls = Calls(PLUGIN)
    calls.answer(LOAD, b"")
    asked = NORMALISE.request(connector="webhook").SerializeToString()
    assert calls.answer(NORMALISE, asked) == b""
