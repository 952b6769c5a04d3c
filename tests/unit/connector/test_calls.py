"""The plugin's process, seen from inside: what it answers to calls that are wrong."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from headrace.api.connector.v1 import connector_service_pb2 as pb
from headrace.connector import operations, wire
from headrace.connector.calls import CallError, Calls
from headrace.connector.operations import Operation, Settings, Values

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


def ask(calls: Calls, operation: Operation[ArgumentT, ResultT], argument: ArgumentT, instance: str = "") -> ResultT:
    request = operation.request_message(instance, argument).SerializeToString()
    return operation.result_of(operation.response.FromString(calls.answer(operation, request)))


def loaded() -> Calls:
    calls = Calls([("webhook", "headrace_destination_webhook.plugin")])
    assert [info.name for info in ask(calls, operations.LOAD, None)] == ["webhook"]
    return calls


async def test_a_plugin_loads_and_answers() -> None:
    calls = loaded()
    assert ask(calls, operations.OPEN, Settings("webhook", {"url": "https://a.example"}), "i") is None
    found = ask(calls, operations.NORMALISE, Values([("f", "v")]), "i")
    assert found == [wire.NormalisedValue(normalised="v", sent="v")]
    for _ in range(2):
        closing = operations.CLOSE.request_message("i", None).SerializeToString()
        await calls.answer_waiting(operations.CLOSE, closing)
    with pytest.raises(CallError, match="KeyError") as caught:
        ask(calls, operations.NORMALISE, Values([]), "i")
    assert caught.value.kind == "defect"


def test_values_are_normalised_without_settings() -> None:
    found = ask(loaded(), operations.NORMALISE, Values([("f", "v")], "webhook"))
    assert found == [wire.NormalisedValue(normalised="v", sent="v")]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "url"),
        ({"url": 7}, "url"),
        ({"url": "https://a.example", "colour": 1}, "colour"),
        ({"url": "ftp://a"}, "url"),
    ],
)
def test_wrong_settings_name_the_field_and_never_quote_the_value(settings: dict[str, Any], field: str) -> None:
    problem = ask(loaded(), operations.OPEN, Settings("webhook", settings), "i")
    assert problem is not None
    assert problem.field == field
    assert "ftp" not in problem.reason


@pytest.mark.parametrize(
    ("operation", "data"),
    [
        (operations.ROWS, b"rubbish"),
        (operations.OPEN, pb.OpenInstanceRequest(settings_json=b"[]").SerializeToString()),
        (operations.OPEN, pb.OpenInstanceRequest(settings_json=b'{"a":').SerializeToString()),
        (operations.OPEN, b""),
    ],
)
def test_rubbish_is_answered_with_a_failure(operation: Operation[Any, Any], data: bytes) -> None:
    with pytest.raises(CallError, match="has a wrong shape") as caught:
        loaded().answer(operation, data)
    assert caught.value.kind == "defect"


def test_a_plugin_that_cannot_be_imported_is_a_failure_to_load() -> None:
    with pytest.raises(CallError, match="No module named 'nowhere_at_all'") as caught:
        Calls([("x", "nowhere_at_all.plugin")]).answer(operations.LOAD, b"")
    assert caught.value.kind == "load"


def test_an_answer_that_is_too_large_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = loaded()
    monkeypatch.setattr("headrace.connector.calls.MAX_MESSAGE_BYTES", 3)
    with pytest.raises(CallError, match="its answer to normalise is larger than a message may be"):
        ask(calls, operations.NORMALISE, Values([("f", "v" * 9)], "webhook"))
