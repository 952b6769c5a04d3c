"""`headrace up` from outside: what it says, what it leaves, and what survives which kill."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1.profile_service_pb2 import ListProfileEventsRequest, LookupProfileRequest
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.cli.main import main
from headrace.cli.problems import USAGE
from tests.support.ports import free_port_base

COMMAND = [sys.executable, "-m", "headrace.cli.main", "up"]
PARTS = ("audience", "console", "identity", "ingest", "mongod", "redis-server", "sync")
_PATIENCE_S = 90.0


def until(what: str, happened: Callable[[], Any]) -> Any:
    """Wait for something; the wait is long because the machine may be busy."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (value := happened()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Up:
    """A `headrace up` on a folder."""

    def __init__(self, folder: Path, base: int) -> None:
        self.data = folder / "data"
        self.ready_file = folder / "ready" / "ready.json"
        self.arguments = ["--data-dir", str(self.data), "--port-base", str(base), "--ready-file", str(self.ready_file)]
        self.output = folder / "up.log"
        with self.output.open("a") as log:
            self.process = subprocess.Popen([*COMMAND, *self.arguments], stdout=log, stderr=log)
        until("it serves", lambda: self.ready_file.exists() or self._must_live())
        self.ready = json.loads(self.ready_file.read_text())

    def _must_live(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        return False

    def pids(self) -> dict[str, int]:
        """Process id of each part."""
        return {p.stem: int(p.read_text().split()[0]) for p in (self.data / "pids").glob("*.pid") if p.read_text()}

    def send(self, user: str, message_id: str) -> int:
        """Send an event; the status of the answer, 0 without one."""
        body = {"userId": user, "event": "Product viewed", "messageId": message_id}
        key = base64.b64encode(f"{self.ready['write_key']}:".encode()).decode()
        request = urllib.request.Request(
            f"{self.ready['ingest_http']}/v1/track",
            json.dumps(body).encode(),
            {"Authorization": f"Basic {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status: int = answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0
        return status

    def message_ids(self, user: str) -> set[str]:
        """Ids of the events of a user, as identity knows them; empty while it does not."""
        metadata = (("authorization", f"Bearer {self.ready['api_token']}"),)
        with grpc.insecure_channel(self.ready["grpc"]["identity"]) as channel:
            stub = ProfileServiceStub(channel)
            try:
                found = stub.LookupProfile(
                    LookupProfileRequest(
                        parent=f"workspaces/{self.ready['workspace']}",
                        identifier=Identifier(namespace="user_id", value=user),
                    ),
                    metadata=metadata,
                    timeout=10,
                )
                events = stub.ListProfileEvents(
                    ListProfileEventsRequest(parent=found.profile.name, page_size=100), metadata=metadata, timeout=10
                )
            except grpc.RpcError:
                return set()
        return {e.event.message_id for e in events.events}


@contextmanager
def up(folder: Path, base: int) -> Iterator[Up]:
    running = Up(folder, base)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`headrace up` that is expected to refuse."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.long
@pytest.mark.timeout(280)
def test_a_platform_survives_what_may_happen_to_it(tmp_path: Path) -> None:
    base = free_port_base()
    with up(tmp_path, base) as first:
        assert set(first.pids()) == set(PARTS)
        keys = _check_ready_file(first, base)
        _check_refusals(first, base, tmp_path)
        assert first.send("ada", "m1") == 200
        for victims in (["identity"], ["mongod"], ["redis-server"], ["audience", "console", "ingest", "sync"]):
            _kill_and_wait(first, victims)
        until("ingest takes events again", lambda: first.send("ada", "m2") == 200)
        until("both events are there once", lambda: first.message_ids("ada") == {"m1", "m2"})
        orphans = first.pids()
        first.process.kill()
        first.process.wait()
        until("nothing outlives it", lambda: not any(map(is_running, orphans.values())))
        first.ready_file.unlink()  # nobody was left to remove it
    with up(tmp_path, base) as second:
        assert {name: second.ready[name] for name in keys} == keys
        assert second.send("ada", "m3") == 200
        until("the data is still there", lambda: second.message_ids("ada") == {"m1", "m2", "m3"})
        pids = second.pids()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(_PATIENCE_S) == 0, second.output.read_text()
        assert not second.ready_file.exists()
        assert not any(map(is_running, pids.values()))
        assert not list((second.data / "pids").iterdir())
        assert "Traceback" not in second.output.read_text()
        for service in set(PARTS) - {"mongod", "redis-server"}:
            for line in (second.data / "logs" / f"{service}.log").read_text().splitlines():
                json.loads(line)  # to the last one: nothing complains while it ends


def _check_ready_file(running: Up, base: int) -> dict[str, str]:
    ready = running.ready
    assert running.ready_file.stat().st_mode & 0o777 == 0o600
    assert ready["ingest_http"] == f"http://127.0.0.1:{base}"
    assert ready["console_http"] == f"http://127.0.0.1:{base + 1}"
    names = ("ingest", "identity", "audience", "sync", "workspace")
    assert ready["grpc"] == {name: f"127.0.0.1:{base + 11 + place}" for place, name in enumerate(names)}
    said = running.output.read_text()
    assert ready["ingest_http"] in said
    assert ready["api_token"] not in said
    secret = json.loads((running.data / "secrets.json").read_text())
    logs = [path.read_text(errors="replace") for path in (running.data / "logs").iterdir()]
    for text in (ready["api_token"], ready["write_key"], *secret.values()):
        assert not any(text in log for log in logs)
    return {name: ready[name] for name in ("workspace", "write_key", "api_token")}


def _check_refusals(running: Up, base: int, folder: Path) -> None:
    same_folder = run("--data-dir", str(running.data), "--port-base", str(base + 100))
    assert (same_folder.returncode, same_folder.stdout) == (1, "")
    assert same_folder.stderr.splitlines()[-1] == (
        f"error: data folder {running.data} is in use by process {running.process.pid}: "
        "stop it or choose another by --data-dir"
    )
    same_ports = run("--data-dir", str(folder / "other"), "--port-base", str(base))
    assert same_ports.returncode == 1
    assert same_ports.stderr.splitlines()[-1].startswith(f"error: port {base} (HTTP of ingest) cannot be used")


def _kill_and_wait(running: Up, victims: list[str]) -> None:
    before = running.pids()
    for victim in victims:
        os.kill(before[victim], signal.SIGKILL)
    until(
        f"{victims} are started again",
        lambda: all(running.pids().get(name, before[name]) != before[name] for name in victims),
    )


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--ephemeral", "--port-base", str(free_port_base())],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid_paths = until("services are started", lambda: _enough(list(tmp_path.glob("headrace-*/pids/*.pid"))))
    pids = [int(path.read_text().split()[0]) for path in pid_paths if path.read_text()]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, output) == (0, ""), errors
    assert not list(tmp_path.iterdir())
    assert not any(map(is_running, pids))


def _enough(paths: list[Path]) -> list[Path]:
    return paths if len(paths) == len(PARTS) else []


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--port-base", "99999"], {}, "--port-base 99999 is out of range: choose 1 to 65503"),
        ([], {"HEADRACE_PARTITIONS": "many"}, "HEADRACE_PARTITIONS: input should be a valid integer"),
        ([], {"HEADRACE_PARTITION": "8"}, "unknown setting HEADRACE_PARTITION: did you mean HEADRACE_PARTITIONS?"),
        ([], {"HEADRACE_MONGO_URL": "mongodb://elsewhere"}, "HEADRACE_MONGO_URL cannot be set here"),
        (["--ephemeral"], {}, "--ephemeral takes a temporary folder: leave out --data-dir"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["up", "--data-dir", str(tmp_path / "data"), *arguments]) == USAGE
    said = capsys.readouterr()
    assert sentence in said.err.splitlines()[-1]
    assert said.out == ""
    assert not (tmp_path / "data" / "mongo").exists()
