"""Samples of a destination on the command line: what is expected, what differs, and where a script fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import main

SECRET = "token-secret-for-tests"  # of no real vendor
SCRIPT = """function send(event, profile, settings) {
  if (event.name === "Noise") return null;
  const email = profile.identifiers.email[0];
  return { url: "https://api.example.com/in", headers: { Authorization: settings.token }, body: { email, n: 1.0 } };
}
"""
EVENT = {"event": "Order Completed", "userId": "u-1", "traits": {"email": "ada@example.com"}}
PASSES = {
    "name": "an order",
    "event": EVENT,
    "requests": [
        {"method": "POST", "url": "https://api.example.com/in", "headers": {"authorization": "********"},
         "body": {"n": 1, "email": "ada@example.com"}}
    ],
}  # fmt: skip
Try = Callable[..., tuple[int, str, str]]


@pytest.fixture
def attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Try:
    def attempt(samples: Any, *more: str, script: str = SCRIPT) -> tuple[int, str, str]:
        for name, text in (("send.js", script), ("settings.json", json.dumps({"secrets": {"token": SECRET}}))):
            (tmp_path / name).write_text(text)
        (tmp_path / "samples.json").write_text(samples if isinstance(samples, str) else json.dumps(samples))
        files = [str(tmp_path / name) for name in ("send.js", "samples.json", "settings.json")]
        status = main.main(["destination", "test", files[0], "--samples", files[1], "--settings", files[2], *more])
        out, error = capsys.readouterr()
        assert SECRET not in out + error
        return status, out, error

    return attempt


def test_samples_that_pass(attempt: Try) -> None:
    status, out, _ = attempt([PASSES, {"event": {**EVENT, "event": "Noise"}, "skipped": "leaves it out"}])
    assert status == 0
    assert "an order  passed  POST https://api.example.com/in" in out
    assert "sample 2  passed  the script leaves it out" in out
    assert out.endswith("2 passed, 0 failed\n")


def test_samples_that_do_not(attempt: Try) -> None:
    bare = {"event": "Order Completed", "userId": "u-1"}
    expected = [
        {"method": "PUT", "url": "https://b", "headers": {"X": "1"}, "body": {"email": "ada@example.com", "n": True}}
    ]
    samples = [
        {"name": "other", "event": EVENT, "requests": expected},
        {"name": "fewer", "event": EVENT, "requests": []},
        {"name": "sent", "event": EVENT, "skipped": True},
        {"name": "fails", "event": bare},
        {"name": "fails as expected", "event": bare, "skipped": "line 3, column 17: TypeError"},
        {"name": "otherwise", "event": bare, "skipped": "no such reason"},
    ]
    status, out, _ = attempt(samples, "--json")
    assert status == 1
    found = json.loads(out)
    assert (found["passed"], found["failed"]) == (1, 5)
    differences = {one["name"]: one["differences"] for one in found["samples"]}
    assert differences == {
        "other": [
            "request 1: method is 'POST', expected 'PUT'",
            "request 1: url is 'https://api.example.com/in', expected 'https://b'",
            "request 1: header X is None, expected '1'",
            'request 1: body is {"email": "ada@example.com", "n": 1}, expected {"email": "ada@example.com", "n": true}',
        ],
        "fewer": ["sent 1 request, expected 0"],
        "sent": ["sent 1 request and should be left out"],
        "fails": ["line 3, column 17: TypeError: cannot read property '0' of undefined"],
        "fails as expected": [],
        "otherwise": ["left out because: line 3, column 17: TypeError: cannot read property '0' of undefined"],
    }
    assert found["samples"][0]["requests"][0]["headers"]["Authorization"] == "********"


def test_what_cannot_be_used(attempt: Try) -> None:
    status, _, error = attempt([PASSES], script="function send() {\n  let a = {;\n}")
    assert status == 2 and "line 2, column 12: SyntaxError" in error
    for samples, reason in (
        ("[", "is no JSON"),
        ({}, "must be a list of samples"),
        ([{"event": 1}], 'sample 1 must be an object with an "event"'),
        ([{"event": {}, "skiped": True}], "unknown member 'skiped'"),
        ([{"event": {}, "requests": [{"uri": ""}]}], "a request has no 'uri'"),
        ([{"event": {}, "requests": [], "skipped": True}], "either requests or skipped"),
        ([PASSES, {"name": "bad", "event": {"type": "odd"}}], "line 2: (bad) type must be one of"),
    ):
        status, _, error = attempt(samples)
        assert status == 2 and reason in error, error


def test_other_connectors_have_samples_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"url": "https://a.example", "body": {"n": "${event.name}"}}))
    samples = [{"event": EVENT, "requests": [{"url": "https://a.example", "body": {"n": "Order Completed"}}]}]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    files = ["--samples", str(tmp_path / "samples.json"), "--settings", str(tmp_path / "settings.json")]
    assert main.main(["destination", "test", "--plugin", "webhook", *files]) == 0
    assert main.main(["destination", "test", *files]) == 2
    assert "either a script or --plugin" in capsys.readouterr().err
