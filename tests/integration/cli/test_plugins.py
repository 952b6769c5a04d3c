"""Plugins from the command line: which are there, why some are not, and requests of one in another language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import main
from tests.support import node_plugin


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_list_has_what_is_installed_and_what_folders_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = node_plugin.install(tmp_path, "console.error('no such thing'); process.exit(3)", name="broken")
    monkeypatch.setenv("HEADRACE_PLUGINS", "webhook, headrace-connector-node, broken")
    monkeypatch.setenv("HEADRACE_PLUGIN_FOLDERS", f"{node_plugin.EXAMPLE},{broken}")
    assert main.main(["plugin", "list", "--json"]) == 1
    found = shown(capsys)
    assert [row["connector"] for row in found["connectors"]] == ["events-js", "webhook"]
    (failure,) = found["failures"]
    assert (failure["plugin"], failure["version"]) == ("broken", "1.0.0")
    assert failure["reason"] == "its process ended with status 3 during load"
    assert failure["output"] == ["no such thing"]

    assert main.main(["plugin", "list"]) == 1
    text = capsys.readouterr().out
    assert "events-js" in text
    assert "broken: no such thing" in text


def test_requests_of_a_connector_in_another_language_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_PLUGIN_FOLDERS", str(node_plugin.EXAMPLE))
    settings, events = tmp_path / "settings.json", tmp_path / "events.ndjson"
    settings.write_text(json.dumps({"url": "https://receiver.example/in", "token": node_plugin.SECRET}))
    event = {"type": "track", "event": "Bought", "messageId": "m1", "properties": {"value": 3}}
    events.write_text(json.dumps({**event, "context": {"traits": {"email": "Ada@Example.com"}}}))
    arguments = ["--plugin", "events-js", "--settings", str(settings), "--events", str(events), "--json"]
    assert main.main(["destination", "render", *arguments]) == 0
    found = shown(capsys)
    (request,) = found["requests"]
    assert (request["method"], request["url"]) == ("POST", "https://receiver.example/in")
    assert request["headers"]["Authorization"] == "Bearer ********"
    assert json.loads(request["body"]) == [{"id": "m1", "name": "Bought", "email": "ada@example.com", "value": 3}]


def test_a_plugin_that_is_named_is_loaded_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "started"
    fault = f"require('node:fs').writeFileSync({json.dumps(str(mark))}, '')"
    monkeypatch.setenv("HEADRACE_PLUGIN_FOLDERS", str(node_plugin.install(tmp_path, fault)))
    arguments = ["destination", "normalise", "--field", "email", "A@b.de", "--json", "--plugin"]
    assert main.main([*arguments, "webhook"]) == 0
    assert shown(capsys)["sent"] == "A@b.de"
    assert not mark.exists()
    assert main.main([*arguments, "nobody"]) == 2  # all are looked through
    assert mark.exists()


def test_a_flag_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADRACE_PLUGINS_IN_PROCESS", "perhaps")
    assert main.main(["plugin", "list"]) == 2
    assert "HEADRACE_PLUGINS_IN_PROCESS must be true or false" in capsys.readouterr().err


def test_plugins_can_run_in_the_command_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_PLUGINS_IN_PROCESS", "true")
    assert main.main(["destination", "normalise", "--plugin", "webhook", "--field", "f", "v", "--json"]) == 0
    assert shown(capsys) == {"normalised": "v", "sent": "v", "rejected": None}
