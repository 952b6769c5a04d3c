"""A plugin without a process of its own, for its author's debugger: it can take the host down and read all its secrets.

The calls and their messages are those of a process, so that what works here works there. Limits of time and memory, and
the guard against reaching the outside, are not there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from headrace.connector.calls import CallError, Calls
from headrace.connector.operations import WAITING, Operation
from headrace.plugins.line import Refused


class InProcess:
    """A plugin in the host's own process."""

    ended = False

    def __init__(self, entry_points: Sequence[tuple[str, str]], path: Sequence[str]) -> None:
        """Take a plugin; its code is imported when it is asked what it offers.

        Args:
            entry_points: (name, "package.module") of each of its entry points.
            path: Folders that are searched for its code before all others, from now on and for all that is imported.
        """
        missing = [folder for folder in path if folder not in sys.path]
        sys.path[:0] = missing
        if missing:
            importlib.invalidate_caches()
        self._calls = Calls(entry_points)

    async def ask(self, operation: Operation[Any, Any], request: bytes, limit_s: float) -> bytes:
        """Make a call, see Line; nothing can end one that takes too long."""
        try:
            if operation in WAITING:
                return await self._calls.answer_waiting(operation, request)
            return self._calls.answer(operation, request)
        except CallError as error:
            raise Refused(error.kind, error.reason) from error

    async def how_it_ended(self) -> str:
        """It ends with the host."""
        return "it was given up"

    async def end(self, *, gently: bool = False) -> None:
        """Its code stays imported; its instances are forgotten with this object."""
