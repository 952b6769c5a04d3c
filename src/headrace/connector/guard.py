"""What a connector has no business doing is refused in its process, and noted. A guard against mistakes, no jail.

A connector that delivers by itself may connect while it delivers, and only to public addresses unless the operator
allows others. The very address is checked that a socket of Python connects to, so a name that resolves differently the
second time gains nothing. What connects without Python's sockets (a driver written in C) is not seen.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from headrace.connector.addresses import is_public

_RESOLVING = frozenset({"socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname"})
_CONNECTING = frozenset({"socket.connect", "socket.sendmsg", "socket.sendto"})
_FILES = frozenset({"sqlite3.connect"})
_BLOCKED = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.bind", "subprocess.Popen",
        *_RESOLVING, *_CONNECTING, *_FILES,
    }
)  # fmt: skip
"""Python's audit events of reaching the outside. The server's own lines are not Python's and raise none."""

PRIVATE = "the address is private, loopback or link-local"
T = TypeVar("T")

refused: list[str] = []
"""What was refused during the call under way: a plugin may swallow the exception."""


class OutsideRefused(PermissionError):
    """A connector tried to reach the outside: it does no I/O, it returns requests that the host sends."""


class Permit:
    """Leave to connect, of one instance of a connector.

    Attributes:
        allow_private: True allows private, loopback and link-local addresses, UNIX sockets and database files.
        refusals: How many connections were refused.
    """

    def __init__(self) -> None:
        self.allow_private = False
        self.refusals = 0


_permit: contextvars.ContextVar[Permit | None] = contextvars.ContextVar("headrace_permit", default=None)


@contextmanager
def permitted(permit: Permit) -> Iterator[None]:
    """Let the block connect, and the tasks and threads that it starts."""
    token = _permit.set(permit)
    try:
        yield
    finally:
        _permit.reset(token)


class Threads(ThreadPoolExecutor):
    """Threads whose work has the leave of the task that gave it to them, such as looking up a name."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do something in a thread."""
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


def install() -> None:
    """Refuse from now on, in this process, for good."""
    sys.addaudithook(_refuse_outside)


def _refuse_outside(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _BLOCKED:
        return
    permit = _permit.get()
    if permit is None:
        refused.append(event)
        raise OutsideRefused("a connector does no I/O: it returns requests, and the host sends them")
    if event in _RESOLVING or (permit.allow_private and event in _CONNECTING | _FILES):
        return
    if event not in _CONNECTING or not _goes_to_public(arguments):
        permit.refusals += 1
        raise OutsideRefused(PRIVATE)


def _goes_to_public(arguments: tuple[object, ...]) -> bool:
    """Whether the address of a socket call is public. A name is not: nobody has looked where it leads."""
    address = arguments[1] if len(arguments) > 1 else None
    if address is None:
        return True  # sendmsg on a socket that is connected already
    try:
        return isinstance(address, tuple) and is_public(str(address[0]))
    except ValueError:
        return False
