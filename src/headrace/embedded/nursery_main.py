"""The nursery: a process that has loaded what all services share, and becomes a service by forking.

Loading Python code takes most of a service's start. Five services that each load the same code take five times as
long as one, so `headrace up` starts this process once, and it forks them: each is a process of its own, as
under `headrace serve`, and shares the memory of the loaded code.

It reads JSON messages from its standard input, a socket: {"id", "service", "environment", "log", "pid_path"} to fork a
service; and writes {"id", "pid"} when one was forked and {"id", "status"} when one has ended. It has one thread and
opens no connection, so forking is safe. It ends with the socket, and what it forked ends with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from headrace.embedded.guard import die_with
from headrace.embedded.process_identity import identity_of

MAX_MESSAGE = 256 * 1024

_SHARED = (
    "headrace.service",
    "headrace.rpc.auth",
    "headrace.rpc.channel",
    "headrace.rpc.idempotency",
    "headrace.rpc.page_tokens",
    "headrace.rpc.server",
    "headrace.storage.mongo.client",
    "headrace.storage.mongo.log",
    "headrace.storage.streams.client",
)


def main() -> None:
    """Serve the socket until it is closed, or return a forked service's exit status by ending the process with it."""
    for module in _SHARED:
        importlib.import_module(module)
    gc.freeze()  # the collector must not write into the pages that are shared
    control = socket.socket(fileno=os.dup(0))
    wanted = _Nursery(control).serve()
    if wanted is not None:  # this is the forked process
        sys.exit(_serve(wanted))


class _Nursery:
    """The loop of the nursery."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ids: dict[int, int] = {}

    def serve(self) -> dict[str, Any] | None:
        """Fork what is asked for. Returns None at the end, and in a forked process what it was forked for."""
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        woken.recv(4096)
                        self._report_ended()
                        continue
                    message = self._control.recv(MAX_MESSAGE)
                    if not message:
                        return None
                    wanted: dict[str, Any] = json.loads(message)
                    if self._fork(wanted):
                        signal.set_wakeup_fd(-1)
                        for end in (self._control, woken, wake):
                            end.close()
                        return wanted

    def _fork(self, wanted: dict[str, Any]) -> bool:
        """Whether this is the forked process."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            if not die_with(parent):
                os._exit(1)
            return True
        self._ids[pid] = wanted["id"]
        self._send({"id": wanted["id"], "pid": pid})
        return False

    def _report_ended(self) -> None:
        while self._ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._send({"id": self._ids.pop(pid), "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def _serve(wanted: dict[str, Any]) -> int:
    """Become the service."""
    from headrace.service import open_service_of, run, settings_class

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    Path(wanted["pid_path"]).write_text(identity_of(os.getpid()))
    os.environ.clear()
    os.environ.update(wanted["environment"])
    service = wanted["service"]
    return run(service, settings_class(service)(), open_service_of(service))


if __name__ == "__main__":
    main()
