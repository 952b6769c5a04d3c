"""What holds for every process of a plugin: a limit of memory, no core dumps, an end with the host.

Run as a program, `python launch.py MEMORY PARENT COMMAND ...`, it takes these limits on and becomes the plugin's
command. It imports nothing but the standard library, so that it starts without site-packages.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def restrict(memory_bytes: int, parent: int) -> None:
    """Take the limits on; what this process starts or becomes has them too.

    Args:
        memory_bytes: Most private memory (the data segment, which counts what can be written); 0 for no limit.
        parent: Process id of the host.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux: the kernel ends this process with its parent, whatever it is doing
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the host was gone before the kernel was told


def main() -> None:
    """Take the limits on and become the command."""
    memory_bytes, parent, *command = sys.argv[1:]
    restrict(int(memory_bytes), int(parent))
    try:
        os.execvp(command[0], command)  # noqa: S606 - the operator's command, without a shell
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main()
