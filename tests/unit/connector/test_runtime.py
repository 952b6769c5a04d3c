"""The plugin's process, seen from inside: what it answers to calls that are wrong."""

from __future__ import annotations

import io
import struct
from typing import Any

import msgspec
import pytest

from headrace.connector import frames, wire
from headrace.connector.runtime import Runtime, frames_in


def ask(runtime: Runtime, method: str, argument: msgspec.Struct) -> frames.Reply:
    call = frames.Call(method, msgspec.Raw(msgspec.msgpack.encode(argument)))
    return msgspec.msgpack.decode(runtime.answer(msgspec.msgpack.encode(call)), type=frames.Reply)


def loaded() -> Runtime:
    runtime = Runtime()
    entry = frames.Load(entry_point="webhook", value="headrace_destination_webhook.plugin")
    assert ask(runtime, "load", entry).failure is None
    return runtime


def test_a_plugin_loads_and_answers() -> None:
    runtime = loaded()
    settings: dict[str, Any] = {"url": "https://a.example"}
    assert ask(runtime, "open", frames.Open(instance="i", connector="webhook", settings=settings)).failure is None
    reply = ask(runtime, "normalise", frames.NormaliseCall(instance="i", values=[("f", "v")]))
    found = msgspec.msgpack.decode(reply.result, type=list[wire.NormalisedValue])
    assert found == [wire.NormalisedValue(normalised="v", sent="v")]
    assert ask(runtime, "close", frames.Close(instance="i")).failure is None
    failure = ask(runtime, "normalise", frames.NormaliseCall(instance="i", values=[])).failure
    assert failure is not None and failure.kind == "defect"


def test_values_are_normalised_without_settings() -> None:
    reply = ask(loaded(), "normalise", frames.NormaliseCall(connector="webhook", values=[("f", "v")]))
    assert reply.failure is None


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
    reply = ask(loaded(), "open", frames.Open(instance="i", connector="webhook", settings=settings))
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.field) == ("config", field)
    assert "ftp" not in reply.failure.reason


def test_rubbish_is_answered_with_a_failure() -> None:
    for frame in (b"", b"\xc1", b"rubbish", msgspec.msgpack.encode({"method": "load"})):
        reply = msgspec.msgpack.decode(Runtime().answer(frame), type=frames.Reply)
        assert reply.failure is not None and reply.failure.kind == "defect"
    failure = ask(Runtime(), "fly", frames.Close(instance="i")).failure
    assert failure is not None and failure.reason == "KeyError"


def test_frames_end_with_the_stream_and_before_one_that_is_too_long() -> None:
    whole = struct.pack(">I", 3) + b"abc"
    assert list(frames_in(io.BytesIO(whole * 2))) == [b"abc", b"abc"]
    assert list(frames_in(io.BytesIO(whole + b"\0\0"))) == [b"abc"]
    assert list(frames_in(io.BytesIO(whole + struct.pack(">I", 9) + b"short"))) == [b"abc"]
    assert list(frames_in(io.BytesIO(whole + struct.pack(">I", frames.MAX_FRAME_BYTES + 1) + b"x"))) == [b"abc"]
