"""`headrace up` as a child process, for tests that look at the whole platform from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port_base

Run = Callable[..., tuple[int, str, str]]
"""run(*arguments) -> (exit status, standard output, standard error): a command on a platform, in this process."""


@dataclass(frozen=True)
class Up:
    """A running platform."""

    folder: Path
    ready: dict[str, Any]

    @property
    def ready_file(self) -> Path:
        """The ready file."""
        return self.folder / "ready.json"

    def pid(self, name: str) -> int | None:
        """Process id of a service, of "mongod" or "redis-server"; None while it does not run."""
        try:
            pid = int((self.folder / "data" / "pids" / f"{name}.pid").read_text().split()[0])
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return None
        return None if state == "Z" else pid

    def headrace(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the platform; the result holds what it printed and its exit status."""
        return subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", *arguments, "--ready-file", str(self.ready_file)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
            env={**os.environ, **environment},
        )


@contextmanager
def platform_up(folder: Path, environment: Mapping[str, str]) -> Iterator[Up]:
    """A platform that serves inside the block."""
    ready_file = folder / "ready.json"
    output = folder / "up.log"
    command = [sys.executable, "-m", "headrace.cli.main", "up", "--data-dir", str(folder / "data")]
    command += ["--port-base", str(free_port_base()), "--ready-file", str(ready_file)]
    with output.open("w") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while not ready_file.exists():
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()[-4000:]
            time.sleep(0.05)
        yield Up(folder, json.loads(ready_file.read_text()))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0, output.read_text()[-4000:]
        finally:
            process.kill()
