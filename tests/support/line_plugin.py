"""A connector that speaks no HTTP: a line per event over TCP, and the other end of it, which does what a test says."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support import plugin_zoo

_SOURCE = """
import asyncio, socket, time
from pydantic import BaseModel, SecretStr
from headrace_sdk import *

class Settings(BaseModel):
    token: SecretStr
    port: int
    host: str = "localhost"

MANIFEST = Manifest(
    name="lines", title="Lines", factory="MODULE:Lines", settings=Settings, schemes=("line",),
    capabilities=frozenset({Capability.FORWARDING}), batch=BatchPolicy(max_items=10), timeout_s=1.0,
)

class Lines(Destination[Settings]):
    manifest = MANIFEST
    connected = 0

    def send_events(self, batch):
        word = batch.events[0].message_id
        if word == "outside":
            socket.create_connection((self.settings.host, self.settings.port))
        url = f"{'cable' if word == 'odd' else 'line'}://{self.settings.host}:{self.settings.port}/in"
        body = " ".join(event.message_id for event in batch.events).encode()
        yield Request(method="SAY", url=url, body=body, items=tuple(range(len(batch.events))))

    async def connect(self):
        self.connected += 1
        try:
            reader, writer = await asyncio.open_connection(self.settings.host, self.settings.port)
        except OSError:
            raise TransientError("no connection") from None
        writer.close()

    async def deliver(self, request):
        secret = self.settings.token.get_secret_value()
        if request.body == b"block":
            time.sleep(60)
        if request.body == b"fail":
            raise RuntimeError(secret)
        if request.body == b"unsent":
            raise TransientError(f"not with {secret}")
        if b"poison" in request.body:
            raise ValueError("poison")
        reader, writer = await asyncio.open_connection(self.settings.host, self.settings.port)
        try:
            writer.write(request.body + b"\\n")
            return Response(status=200, body=await reader.readline() + str(self.connected).encode())
        finally:
            writer.close()

    async def close(self):
        reader, writer = await asyncio.open_connection(self.settings.host, self.settings.port)
        writer.write(b"bye\\n")
        await writer.drain()
        writer.close()

    def read(self, request, response):
        if response.status != 200:
            raise TransientError("no success")
        said = response.body.split()
        bad = [word.removeprefix(b"bad:") for word in said if word.startswith(b"bad:")]
        words = request.body.split()
        return Outcomes(items=tuple(Rejected(reason="bad") if word in bad else Delivered() for word in words))

@hookimpl
def headrace_connectors():
    return [MANIFEST]
"""


def install(folder: Path) -> None:
    """Put the distribution "lines" into a folder."""
    plugin_zoo.write(folder, "lines", _SOURCE)


class LineServer:
    """The other end. "slow" is never answered; words that start with "x" come back as bad.

    Attributes:
        said: Lines that came.
        gone: Set when somebody went away without waiting for the answer.
        port: Where it listens.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.came = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> LineServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def heard(self, line: str) -> None:
        """Wait until a line has come."""
        async with asyncio.timeout(10):
            while line not in self.said:
                self.came.clear()
                await self.came.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().strip()
        if line:
            self.said.append(line)
            self.came.set()
        if line == "slow":
            await reader.read()
            self.gone.set()
        elif line:
            bad = [f"bad:{word}" for word in line.split() if word.startswith("x")]
            writer.write(" ".join(["ok", *bad, ""]).encode() + b"\n")
        writer.close()
