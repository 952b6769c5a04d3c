from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from headrace.embedded.processes import ChildProcess, end_leftover, last_output

SLEEP = [sys.executable, "-S", "-c", "import time; print('started', flush=True); time.sleep(600)"]

_PARENT = """
import os, signal, sys
from pathlib import Path
from headrace.embedded.processes import ChildProcess, last_output
folder = Path(sys.argv[1])
child = ChildProcess("child", sys.argv[2:], log_path=folder / "child.log", pid_path=folder / "child.pid")
while "started" not in last_output(child.log_path):
    pass
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", _PARENT, str(tmp_path), *SLEEP], capture_output=True, text=True, check=False
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid = int(parent.stdout)
    while runs(pid):
        time.sleep(0.01)
    assert (tmp_path / "child.pid").exists()
    assert not end_leftover(tmp_path / "child.pid")
    assert not (tmp_path / "child.pid").exists()


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[ChildProcess] = []

    def start() -> None:
        started.append(ChildProcess("child", SLEEP, log_path=tmp_path / "log"))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = started
    try:
        while "started" not in last_output(child.log_path):
            assert child.is_running
        assert not child.wait(0.2)
    finally:
        child.kill()


def test_a_process_left_behind_is_ended(tmp_path: Path) -> None:
    child = ChildProcess("child", SLEEP, log_path=tmp_path / "log", pid_path=tmp_path / "pid")
    assert end_leftover(tmp_path / "pid")
    assert child.wait(5)
    assert child.exit_status == -signal.SIGKILL
    assert not (tmp_path / "pid").exists()


def test_another_process_with_the_noted_id_is_left_alone(tmp_path: Path) -> None:
    child = ChildProcess("child", SLEEP, log_path=tmp_path / "log", pid_path=tmp_path / "pid")
    try:
        noted = (tmp_path / "pid").read_text().split()
        for other in (f"{noted[0]} {noted[1]} {int(noted[2]) - 1}", f"{noted[0]} other-boot {noted[2]}", noted[0], ""):
            (tmp_path / "pid").write_text(other)
            assert not end_leftover(tmp_path / "pid")
            assert child.is_running
    finally:
        child.kill()


def test_stopping_asks_first_and_insists_later(tmp_path: Path) -> None:
    polite = ChildProcess("polite", SLEEP, log_path=tmp_path / "a")
    assert polite.stop(5)
    assert polite.exit_status == -signal.SIGTERM
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    deaf = ChildProcess("deaf", [sys.executable, "-S", "-c", code], log_path=tmp_path / "b")
    while "deaf" not in last_output(deaf.log_path):
        assert deaf.is_running
    assert not deaf.stop(0.1)
    assert deaf.exit_status == -signal.SIGKILL


def test_a_child_gets_only_its_own_environment_and_session(tmp_path: Path) -> None:
    code = "import os; print(sorted(os.environ), os.getsid(0) == os.getpid())"
    child = ChildProcess(
        "child", [sys.executable, "-S", "-c", code], log_path=tmp_path / "log", environment={"ONLY": "this"}
    )
    assert child.wait(10)
    assert child.exit_status == 0
    assert last_output(child.log_path).endswith("True")
    assert "ONLY" in last_output(child.log_path)
    assert "PATH" not in last_output(child.log_path)
    assert os.getsid(0) != child.pid
