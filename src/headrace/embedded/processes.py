"""Child processes that end with this one, and how a later run recognises what an earlier one left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

from headrace.embedded.errors import PortInUse
from headrace.embedded.process_identity import identity_of

_GUARD = Path(__file__).with_name("guard.py")
_POLL_S = 0.01

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-spawner")
"""The kernel counts the *thread* that started a child as its parent: a worker thread that ends would take
the children it started with it. This thread lives as long as the process."""


class Process(Protocol):
    """A process that a supervisor can look after."""

    @property
    def log_path(self) -> Path:
        """File that it writes to."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def exit_status(self) -> int | None:
        """None while it runs; else its exit status, negative for the signal that ended it."""

    def terminate(self) -> None:
        """Ask it to end; nothing happens when it has ended."""

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""


def last_output(log_path: Path, limit: int = 600) -> str:
    """The end of a process's log on one line, for an error message."""
    try:
        text = log_path.read_bytes()[-limit:].decode("utf-8", "replace")
    except OSError:
        return ""
    return " ".join(text.split())


def spawn_guarded(
    command: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    output: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command that the kernel kills if this process dies first (Linux).

    Args:
        command: Absolute path of the program, and its arguments.
        stdin: File descriptor that becomes its standard input.
        output: File for its output and errors; None drops its output and shows its errors.
        environment: Its whole environment; None passes this process's on.

    Raises:
        OSError: The program cannot be started.
    """

    def spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *command],
            stdin=stdin,
            stdout=subprocess.DEVNULL if output is None else output,
            stderr=None if output is None else subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,  # Ctrl-C at the terminal is for this process, which stops its children in order
        )

    return _spawner.submit(spawn).result()


class ChildProcess:
    """One running command; killed by the kernel if this process dies first (Linux)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        pid_path: Path | None = None,
    ) -> None:
        """Start the command.

        Args:
            name: What it is, for messages.
            command: Absolute path of the program, and its arguments.
            log_path: File that its output is appended to.
            environment: Its whole environment; None passes this process's on.
            pid_path: Where to note which process it is, for `end_leftover` of a later run.

        Raises:
            OSError: The program cannot be started or a file cannot be written.
        """
        self.name = name
        self.log_path = log_path
        self._pid_path = pid_path
        with log_path.open("ab") as log:
            self._process = spawn_guarded(command, output=log, environment=environment)
        if pid_path is not None:
            pid_path.write_text(identity_of(self._process.pid))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; else its exit status, negative for the signal that ended it."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.exit_status is None

    def terminate(self) -> None:
        """Ask it to end; nothing happens when it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._forget()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within timeout_s seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._forget()
        return True

    def stop(self, timeout_s: float) -> bool:
        """SIGTERM, and SIGKILL if it has not ended after timeout_s seconds.

        Returns:
            Whether it ended by itself.
        """
        self._process.terminate()
        if self.wait(timeout_s):
            return True
        self.kill()
        return False

    def _forget(self) -> None:
        if self._pid_path is not None:
            self._pid_path.unlink(missing_ok=True)


def end_leftover(pid_path: Path) -> bool:
    """End the process that an earlier run noted at pid_path, if it still runs.

    A process id is used again by the system, so the note holds when that process began; a process that began at another
    moment is left alone.

    Returns:
        Whether there was one.
    """
    try:
        noted = pid_path.read_text()
        pid = int(noted.split()[0])
    except (OSError, ValueError, IndexError):
        return False
    found = noted.strip() != "" and identity_of(pid) == noted and len(noted.split()) > 1
    if found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        while identity_of(pid) == noted:
            time.sleep(_POLL_S)
    pid_path.unlink(missing_ok=True)
    return found


def free_port() -> int:
    """A port of the loopback interface on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free_port(port: int, purpose: str, *, advice: str, host: str = "127.0.0.1") -> None:
    """Check that a port can be listened on.

    Args:
        port: Number of the port.
        purpose: What it is needed for: "ingest HTTP".
        advice: What the user can do about it.
        host: Address that will be listened on.

    Raises:
        PortInUse: Another process listens on it, or may not be listened on.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(f"port {port} ({purpose}) cannot be used ({error.strerror}): {advice}") from error
