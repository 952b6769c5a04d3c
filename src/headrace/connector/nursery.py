"""The nursery of plugin processes: it has loaded what all of them need, and becomes one by forking.

Loading Python code takes most of a plugin's start, and most of its memory. `python -m headrace.connector.nursery
PARENT` loads it once for a plugin host; each plugin is then a process of its own that shares the loaded code.

It reads JSON messages from its standard input, a socket: {"id", "socket", "memory_bytes", "entry_points"}, with a file
descriptor for the plugin's output, to fork a plugin, and {"id", "signal"} to signal one. It writes
{"id", "pid"} when one was forked and {"id", "status"} when one has ended. It has one thread and opens no connection, so
forking is safe. It runs no code of a plugin. It ends with the socket, and what it forked ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from typing import Any

from headrace.connector import runtime
from headrace.connector.launch import restrict

MAX_MESSAGE = 64 * 1024


def main() -> None:
    """Serve the socket until it is closed; a forked process serves its plugin instead."""
    restrict(0, int(sys.argv[1]))
    gc.freeze()  # the collector must not write into the pages that are shared
    wanted = _Nursery(socket.socket(fileno=os.dup(0))).serve()
    if wanted is not None:  # this is the forked process
        runtime.run(wanted["socket"], [(name, value) for name, value in wanted["entry_points"]])


class _Nursery:
    """The loop of the nursery."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ids: dict[int, int] = {}
        self._own_id = os.getpid()

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
                    data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
                    if not data:
                        return None
                    message: dict[str, Any] = json.loads(data)
                    if "signal" in message:
                        self._signal(message["id"], message["signal"])
                    elif self._fork(message["id"]):
                        signal.set_wakeup_fd(-1)
                        for end in (self._control, woken, wake):
                            end.close()
                        _become(message["memory_bytes"], self._own_id, descriptors[0])
                        return message
                    else:
                        os.close(descriptors[0])

    def _fork(self, number: int) -> bool:
        """Whether this is the forked process."""
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"id": number, "error": error.strerror})
            return False
        if pid == 0:
            return True
        self._ids[pid] = number
        self._send({"id": number, "pid": pid})
        return False

    def _signal(self, number: int, signal_number: int) -> None:
        """Signal a process. Nobody has waited for it, so the id is still its own."""
        for pid, known in self._ids.items():
            if known == number:
                os.kill(pid, signal_number)

    def _report_ended(self) -> None:
        while self._ids:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            pid = ended.si_pid
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it started; the id is still its own, for nobody has waited for it
            _, status = os.waitpid(pid, 0)
            self._send({"id": self._ids.pop(pid), "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the host is gone, and so is the socket
            self._control.send(json.dumps(message).encode())


def _become(memory_bytes: int, parent: int, output: int) -> None:
    """Be a process of one's own: a session, limits, and the output where the host reads it."""
    os.setsid()
    restrict(memory_bytes, parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


if __name__ == "__main__":
    main()
