"""The other end of a connector that does not speak HTTP: is silent, breaks off or talks nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType

_PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html><body>It works.</body></html>\r\n"


class Manner(StrEnum):
    """What it does with who connects."""

    SILENT = "silent"
    """Listens and says nothing."""
    BREAKS_OFF = "breaks off"
    """Hangs up."""
    NONSENSE = "nonsense"
    """Says what nobody of its kind says, and hangs up."""
    ABSENT = "absent"
    """Is not there."""


class FarEnd:
    """A server on this machine. An asynchronous context manager.

    Attributes:
        came: Connections that came.
        address: "127.0.0.1:PORT".
    """

    def __init__(self, manner: Manner) -> None:
        """Describe it; nothing is started yet."""
        self.came = 0
        self.address = ""
        self._manner = manner
        self._open: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FarEnd:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        if self._manner is Manner.ABSENT:
            self._server.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.close()
        await self.left(1.0)

    async def visited(self, wait_s: float) -> bool:
        """Wait until somebody has connected; False when nobody has within these seconds."""
        return await self._until(lambda: self.came > 0, wait_s)

    async def left(self, wait_s: float) -> bool:
        """Wait until nobody is connected any more; False when somebody still is after these seconds."""
        return await self._until(lambda: not self._open, wait_s)

    async def _until(self, holds: Callable[[], bool], wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self._open.add(writer)
        await self._tell()
        try:
            if self._manner is Manner.NONSENSE:
                await reader.read(65_536)
                writer.write(_PAGE)
                await writer.drain()
            elif self._manner is Manner.SILENT:
                while await reader.read(65_536):
                    pass
        except ConnectionError:
            pass  # it has left in the middle, as it may
        finally:
            writer.close()
            self._open.discard(writer)
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
