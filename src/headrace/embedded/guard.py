"""Run a command that must not outlive the process that started it.

Started as `python -I -S guard.py PARENT_PID COMMAND ...`, it asks the kernel for a SIGKILL when the parent
dies, and becomes the command. A `preexec_fn` would do the same in fewer processes, but may deadlock in
a parent with threads. It imports nothing of Headrace, so that it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PARENT_GONE = 120


def die_with(parent: int) -> bool:
    """Ask the kernel to kill this process when its parent dies; False when the parent is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def main(arguments: list[str]) -> None:
    """Become the command `arguments[1:]`, bound to the life of the process `arguments[0]`."""
    parent, command = int(arguments[0]), arguments[1:]
    if not die_with(parent):
        raise SystemExit(_PARENT_GONE)
    os.execv(command[0], command)  # noqa: S606 - a fixed argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
