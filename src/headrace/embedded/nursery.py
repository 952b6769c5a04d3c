"""Services forked from one process that has loaded their code; see `nursery_main`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from headrace.embedded.processes import spawn_guarded

_MAX_MESSAGE = 64 * 1024
_KILLED = -signal.SIGKILL


class Nursery:
    """Forks services; when it dies they die, and the next `spawn` starts another nursery.

    Used from one thread.
    """

    def __init__(self) -> None:
        """Start it; it takes a while to load, and what is asked for meanwhile waits."""
        self._serial = count(1)
        self._children: dict[int, NurseryChild] = {}
        self._lost = False
        self._process, self._control = _start()

    def spawn(self, service: str, *, environment: Mapping[str, str], log_path: Path, pid_path: Path) -> NurseryChild:
        """Fork a service.

        Args:
            service: Name of the service.
            environment: Its whole environment.
            log_path: File that its output is appended to.
            pid_path: Where to note which process it is.

        Raises:
            OSError: The nursery cannot be started.
        """
        self.read_reports()
        if self._lost:
            self.close()
            self._process, self._control = _start()
            self._lost = False
        child = NurseryChild(self, service, log_path, pid_path)
        self._children[number := next(self._serial)] = child
        wanted = {
            "id": number,
            "service": service,
            "environment": dict(environment),
            "log": str(log_path),
            "pid_path": str(pid_path),
        }
        try:
            self._control.send(json.dumps(wanted).encode())
        except OSError:  # it has just died
            self.read_reports(wait=True)
        return child

    def read_reports(self, *, wait: bool = False) -> None:
        """Take in what the nursery has said, and with `wait` at least one thing."""
        while not self._lost:
            try:
                message = self._control.recv(_MAX_MESSAGE, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            wait = False
            if not message:
                self._lost = True
                for child in self._children.values():
                    child.ended(_KILLED)
                self._children.clear()
                return
            report = json.loads(message)
            if "pid" in report:
                self._children[report["id"]].started(report["pid"])
            else:
                self._children.pop(report["id"]).ended(report["status"])

    def close(self) -> None:
        """End the nursery, and with it all that it forked."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inner:
        # What it says before it has a log to write to is for the terminal.
        process = spawn_guarded([sys.executable, "-m", "headrace.embedded.nursery_main"], stdin=inner.fileno())
    return process, control


class NurseryChild:
    """A service that was forked."""

    def __init__(self, nursery: Nursery, name: str, log_path: Path, pid_path: Path) -> None:
        """Describe it; the nursery tells the rest."""
        self.name = name
        self.log_path = log_path
        self._nursery = nursery
        self._pid_path = pid_path
        self._pid: int | None = None
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; waits until it is forked. 0 when it never was."""
        while self._pid is None and self._status is None:
            self._nursery.read_reports(wait=True)
        return self._pid or 0

    @property
    def exit_status(self) -> int | None:
        """None while it runs; else its exit status, negative for the signal that ended it."""
        if self._status is None:
            self._nursery.read_reports()
        return self._status

    def terminate(self) -> None:
        """Ask it to end; nothing happens when it has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        self._send(signal.SIGKILL)
        while self._status is None:
            self._nursery.read_reports(wait=True)
        self._pid_path.unlink(missing_ok=True)

    def started(self, pid: int) -> None:
        """The nursery has forked it."""
        self._pid = pid

    def ended(self, status: int) -> None:
        """It has ended."""
        self._status = status

    def _send(self, number: signal.Signals) -> None:
        if self.pid and self.exit_status is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it ended, and the nursery is about to say so
