from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.telemetry import logs


@pytest.fixture
def lines() -> Iterator[Any]:
    stream = io.StringIO()
    handler = logs.configure("test", "INFO", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


def test_a_line_is_json_with_its_fields(lines: Any) -> None:
    logs.get_logger("headrace.x").info("something happened", count=3, msg="kept apart")
    (line,) = lines()
    assert line["msg"] == "something happened"
    assert line["count"] == 3
    assert line["msg_"] == "kept apart"
    assert line["service"] == "test"


@pytest.mark.parametrize(
    "field", ["email", "user_id", "write_key", "api-token", "Authorization", "traits", "body", "billing_phone", "value"]
)
def test_secrets_and_personal_data_are_redacted_by_name(lines: Any, field: str) -> None:
    logs.get_logger("headrace.x").info("x", **{field: "ada@example.com"}, nested={field: "ada@example.com"})
    (line,) = lines()
    assert line[field] == logs.REDACTED
    assert "ada@example.com" not in json.dumps(line)


def test_an_exception_is_written_without_its_text(lines: Any) -> None:
    try:
        try:
            raise ValueError("ada@example.com")
        except ValueError as error:
            raise KeyError("secret") from error
    except KeyError:
        logs.get_logger("headrace.x").exception("it failed")
    (line,) = lines()
    assert line["error"]["types"] == ["builtins.KeyError", "builtins.ValueError"]
    assert "ada@" not in json.dumps(line)
    assert "secret" not in json.dumps(line)
    assert any("test_logs.py" in frame for frame in line["error"]["at"])


def test_objects_of_unknown_kinds_are_named_not_shown(lines: Any) -> None:
    class Holder:
        def __repr__(self) -> str:
            return "ada@example.com"

    logs.get_logger("headrace.x").info("x", thing=Holder(), things=[Holder()])
    (line,) = lines()
    assert line["thing"] == "<Holder>"
    assert line["things"] == ["<Holder>"]
