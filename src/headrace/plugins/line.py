"""The way to a plugin that runs: what its process and its in-process twin have in common."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.connector.operations import Operation


class LineClosed(Exception):
    """The plugin is gone, or went away during the call."""


class Refused(Exception):
    """The plugin answered that the call failed.

    Attributes:
        kind: "load" or "defect".
        reason: One sentence of the plugin, not masked.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Line(Protocol):
    """A running plugin that can be asked one call at a time."""

    @property
    def ended(self) -> bool:
        """True when it is gone."""
        ...

    async def ask(self, operation: Operation[Any, Any], request: bytes, limit_s: float) -> bytes:
        """Make a call.

        Args:
            operation: The call.
            request: Its request message, serialised.
            limit_s: Seconds that it may take.

        Returns:
            The response message, serialised.

        Raises:
            TimeoutError: It takes longer. The line may not be used any more.
            LineClosed: The plugin is gone. The line may not be used any more.
            Refused: The plugin answered with a failure.
        """
        ...

    async def how_it_ended(self) -> str:
        """What became of the plugin, as a clause."""
        ...

    async def end(self, *, gently: bool = False) -> None:
        """End the plugin and everything it started.

        Args:
            gently: Give it some seconds to end by itself.
        """
        ...
