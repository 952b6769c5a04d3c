"""The nursery forks real services: console needs only MongoDB."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.embedded.nursery import Nursery, NurseryChild
from headrace.embedded.process_identity import identity_of


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    running = Nursery()
    yield running
    running.close()


def spawn(nursery: Nursery, folder: Path, settings_env: dict[str, str], **settings: str) -> NurseryChild:
    environment = {"PATH": os.environ["PATH"], **settings_env, **settings}
    return nursery.spawn("console", environment=environment, log_path=folder / "log", pid_path=folder / "pid")


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def serves(folder: Path) -> bool:
    return (folder / "log").exists() and '"msg":"serving"' in (folder / "log").read_text()


def gone(pid: int) -> bool:
    return len(identity_of(pid).split()) == 1


def test_a_service_is_forked_serves_drains_and_ends(
    nursery: Nursery, settings_env: dict[str, str], tmp_path: Path
) -> None:
    child = spawn(nursery, tmp_path, settings_env)
    until(lambda: serves(tmp_path))
    assert child.exit_status is None
    assert (tmp_path / "pid").read_text() == identity_of(child.pid)
    assert os.getsid(child.pid) == child.pid
    environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert settings_env["HEADRACE_SERVICE_TOKEN"].encode() not in environment  # given by the socket, not by exec
    child.terminate()
    until(lambda: child.exit_status is not None)
    assert child.exit_status == 0
    child.terminate()
    child.kill()
    assert not (tmp_path / "pid").exists()


def test_failures_and_kills_are_reported(nursery: Nursery, settings_env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    wrong = spawn(nursery, tmp_path / "wrong", settings_env, HEADRACE_GRPC_PORT="many")
    child = spawn(nursery, tmp_path, settings_env)
    until(lambda: wrong.exit_status is not None)
    assert wrong.exit_status == 1
    assert "HEADRACE_SERVICE_TOKEN" not in (tmp_path / "wrong" / "log").read_text()
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: child.exit_status is not None)
    assert child.exit_status == -signal.SIGKILL
    again = spawn(nursery, tmp_path, settings_env)
    again.kill()
    assert again.exit_status == -signal.SIGKILL


def test_what_was_forked_ends_with_the_nursery_which_is_started_again(  # the last test: it closes the nursery
    nursery: Nursery, settings_env: dict[str, str], tmp_path: Path
) -> None:
    child = spawn(nursery, tmp_path, settings_env)
    pid = child.pid
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    until(lambda: child.exit_status is not None)
    assert child.exit_status == -signal.SIGKILL
    until(lambda: gone(pid))
    (tmp_path / "again").mkdir()
    again = spawn(nursery, tmp_path / "again", settings_env)
    until(lambda: serves(tmp_path / "again"))
    nursery.close()
    until(lambda: gone(again.pid))
