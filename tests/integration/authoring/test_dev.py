"""`headrace plugin dev`: requests and outcomes of a connector as it lies in its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.authoring.new import Takes, new_destination
from headrace.cli.main import main

PACKAGE = "headrace_destination_acme"
SECRET = "sample-token"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dev") / "acme"
    new_destination(folder, "acme", takes=Takes.BOTH)
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "acme"))


def change(project: Path, old: str, new: str) -> None:
    file = project / PACKAGE / "destination.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def dev(capsys: pytest.CaptureFixture[str], project: Path, *options: str, status: int = 0) -> dict[str, Any]:
    assert main(["plugin", "dev", str(project), "--once", "--json", *options]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["worker", "in-process"])
def test_requests_and_outcomes_are_shown_and_secrets_masked(
    project: Path, capsys: pytest.CaptureFixture[str], where: tuple[str, ...]
) -> None:
    found = dev(capsys, project, "--send", "fake", *where)
    assert found["connector"] == "acme" and found["problem"] == ""
    assert [request["message_ids"] for request in found["requests"]] == [["m-1"], ["p-3"], ["p-1"]]
    assert found["requests"][0]["headers"]["Authorization"] == "Bearer ********"
    assert found["requests"][0]["answer"] == {"status": 200, "body": '{"errors": []}'}
    assert {skipped["message_id"] for skipped in found["skipped"]} == {"m-2", "p-2"}
    assert [(one["message_id"], one["outcome"]) for one in found["outcomes"]] == [
        ("m-1", "delivered"), ("p-3", "delivered"), ("p-1", "delivered"),
    ]  # fmt: skip
    assert SECRET not in json.dumps(found)


def test_the_fake_vendor_answers_as_it_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = project / "answers.ndjson"
    lines = [
        {"body": {"errors": [{"index": 0, "message": SECRET}]}},
        {"status": 429, "headers": {"Retry-After": "7"}},
        {"status": 401, "body": "no"},
    ]
    answers.write_text("\n".join(map(json.dumps, lines)))
    found = dev(capsys, project, "--in-process", "--send", "fake", "--answers", str(answers))
    assert [(one["message_id"], one["outcome"]) for one in found["outcomes"]] == [
        ("m-1", "rejected"), ("p-3", "retry"), ("p-1", "paused"),
    ]  # fmt: skip
    assert found["outcomes"][2]["reason"] == "Acme refuses the token"
    assert SECRET not in json.dumps(found) and "********" in found["requests"][0]["answer"]["body"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """A server of the author's: its address, and the (path, Authorization, body) that it got."""
    got: list[tuple[str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.path, self.headers["Authorization"], body))
            self.send_response(503)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/mock", got
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def test_a_server_takes_the_place_of_the_vendors(
    project: Path, capsys: pytest.CaptureFixture[str], server: tuple[str, list[tuple[str, str, dict[str, Any]]]]
) -> None:
    address, got = server
    found = dev(capsys, project, "--in-process", "--send", address, "--events", str(project / "samples/events.ndjson"))
    assert [(path, key, body["events"][0]["id"]) for path, key, body in got] == [
        ("/mock/v1/events", f"Bearer {SECRET}", "m-1")
    ]
    assert found["requests"][0]["url"] == "https://api.acme.example/v1/events"
    assert found["outcomes"] == [{"message_id": "m-1", "outcome": "retry", "reason": "Acme answered 503"}]


def test_without_samples_the_manifest_gives_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "samples")
    found = dev(capsys, project, "--in-process", "--seed", "3")
    assert found == dev(capsys, project, "--in-process", "--seed", "3")
    assert len(found["requests"]) == 2 and len(found["requests"][0]["message_ids"]) == 3
    assert found["outcomes"] == []


@pytest.mark.parametrize("where", [(), ("--in-process",)], ids=["worker", "in-process"])
def test_errors_come_with_file_and_line_and_no_secret(
    project: Path, capsys: pytest.CaptureFixture[str], where: tuple[str, ...]
) -> None:
    change(project, "places.append(place)", "raise KeyError(self.settings.token.get_secret_value())")
    found = dev(capsys, project, *where, status=1)
    line = next(
        number
        for number, text in enumerate((project / PACKAGE / "destination.py").read_text().splitlines(), start=1)
        if "raise KeyError" in text
    )
    assert found["problem"] == f"KeyError at destination.py:{line}"
    assert any(f'{PACKAGE}/destination.py", line {line}, in send_events' in said for said in found["output"])
    assert "KeyError: '********'" in found["output"] and SECRET not in json.dumps(found)


def test_what_cannot_be_imported_says_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "import json\n", "import json\nx = (\n")
    found = dev(capsys, project, "--in-process", status=1)
    assert found["problem"].startswith("not loaded: SyntaxError")
    assert any('destination.py", line' in line for line in found["output"])


def test_after_the_command_plugins_print_no_exceptions(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their texts may hold personal data."""
    dev(capsys, project, "--in-process")
    assert "HEADRACE_PLUGIN_TRACEBACKS" not in os.environ


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json"], "--json goes with --once"),
        (["--once", "--answers", "x"], "--answers goes with --send fake"),
        (["--once", "--send", "ftp://x"], '--send takes "fake", "vendor" or an http or https address'),
        (["--once", "--in-process", "--connector", "no"], "the plugin offers acme: say which with --connector"),
    ],
)
def test_options_that_do_not_fit(
    project: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["plugin", "dev", str(project), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is neither pyproject.toml nor headrace-plugin.toml"),
        ("[project", "pyproject.toml: "),
        ("[tool]", "there is no [project]"),
        ('[project]\nname = "x"', 'there is no [project.entry-points."headrace.plugins"]'),
    ],
)
def test_a_folder_that_is_none_of_a_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    assert main(["plugin", "dev", str(tmp_path), "--once"]) == 2
    assert said in capsys.readouterr().err


def test_it_replays_when_a_file_changes_and_ends_with_ctrl_c(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "headrace.cli.main", "plugin", "dev", str(project)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        first = _until(process, "waiting for changes")
        assert "/v1/events" in first
        change(project, '"/events"', '"/happenings"')
        second = _until(process, "waiting for changes")
        assert "changed: destination.py" in second and "/v1/happenings" in second
        (project / "samples" / "settings.json").write_text("{")
        assert "no JSON" in _until(process, "waiting for changes")
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 130 and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


def _until(process: subprocess.Popen[str], mark: str) -> str:
    """What is printed up to a line with the mark."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if mark in line:
            return said
    raise AssertionError(said)
