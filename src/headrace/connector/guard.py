"""What a connector has no business doing is refused in its process, and noted. A guard against mistakes, no jail."""

from __future__ import annotations

import sys

_BLOCKED = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.bind", "socket.connect",
        "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname", "socket.sendmsg", "socket.sendto",
        "subprocess.Popen",
    }
)  # fmt: skip
"""Python's audit events of reaching the outside. The server's own lines are not Python's and raise none."""

refused: list[str] = []
"""What was refused during the call under way: a plugin may swallow the exception."""


class OutsideRefused(PermissionError):
    """A connector tried to reach the outside: it does no I/O, it returns requests that the host sends."""


def install() -> None:
    """Refuse from now on, in this process, for good."""
    sys.addaudithook(_refuse_outside)


def _refuse_outside(event: str, arguments: tuple[object, ...]) -> None:
    if event in _BLOCKED:
        refused.append(event)
        raise OutsideRefused("a connector does no I/O: it returns requests, and the host sends them")
