"""Plugin processes, forked from one that has loaded what all of them need; see `headrace.connector.nursery`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from headrace.connector.nursery import MAX_MESSAGE

_KILLED = -signal.SIGKILL


class Forked:
    """A process that the nursery forked.

    Attributes:
        pid: Its process id.
        stdout: What it prints.
        returncode: None while it runs; else its status, negative for the signal that ended it.
    """

    def __init__(
        self, nursery: Nursery, number: int, stdout: asyncio.StreamReader, pipe: asyncio.BaseTransport
    ) -> None:
        """Made by Nursery.fork."""
        self.pid = 0
        self.stdout = stdout
        self._pipe = pipe
        self.returncode: int | None = None
        self._nursery = nursery
        self._number = number
        self._forked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait until it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to it; nothing happens when it has ended. What it started ends with it."""
        if self.returncode is None:
            self._nursery.tell({"id": self._number, "signal": number})

    def close(self) -> None:
        """Read no more of what it prints."""
        self._pipe.close()

    async def forked(self) -> None:
        """Wait until it is there.

        Raises:
            OSError: It could not be forked.
        """
        await self._forked

    def told(self, message: Mapping[str, Any]) -> None:
        """Take in what the nursery says about it."""
        if "pid" in message:
            self.pid = message["pid"]
            if not self._forked.done():
                self._forked.set_result(None)
            return
        self.returncode = message.get("status", _KILLED)
        self._ended.set()
        if not self._forked.done():
            self._forked.set_exception(OSError(0, message.get("error", "the nursery of plugin processes has ended")))


class Nursery:
    """Forks plugin processes; when it dies they die, and the next `fork` starts another nursery."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Describe it; it is started when it is needed.

        Args:
            environment: All of its environment, and that of the plugins.
        """
        self._environment = dict(environment)
        self._numbers = count(1)
        self._children: dict[int, Forked] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()

    async def fork(self, path: Path, entry_points: Sequence[tuple[str, str]], memory_bytes: int) -> Forked:
        """Fork a process that serves a plugin.

        Args:
            path: Path of the socket it serves on.
            entry_points: (name, "package.module") of each of the plugin's entry points.
            memory_bytes: Most private memory; 0 for no limit.

        Raises:
            OSError: There is no process.
        """
        async with self._starting:
            if self._control is None:
                await self._start()
        reading, writing = os.pipe()
        try:
            stdout, pipe = await _reader(reading)
            child = Forked(self, number := next(self._numbers), stdout, pipe)
            self._children[number] = child
            wanted = {"id": number, "socket": str(path), "entry_points": entry_points, "memory_bytes": memory_bytes}
            self.tell(wanted, writing)
        finally:
            os.close(writing)
        try:
            await child.forked()
        except BaseException:
            child.kill(signal.SIGKILL)
            child.close()
            raise
        return child

    def tell(self, message: Mapping[str, Any], *descriptors: int) -> None:
        """Send a message; one that finds no nursery is lost with all that was forked."""
        if self._control is None:
            self._lost()
            return
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError:
            self._lost()

    async def close(self) -> None:
        """End the nursery, and with it all that it forked."""
        process = self._process
        self._lost()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> None:
        if self._process is not None:
            await self._process.wait()  # the last one is about to be gone
        control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inner:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "headrace.connector.nursery",
                str(os.getpid()),
                stdin=inner.fileno(),
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us
            )
        control.setblocking(False)
        self._control = control
        asyncio.get_running_loop().add_reader(control.fileno(), self._read)

    def _read(self) -> None:
        """Take in what the nursery has said."""
        while self._control is not None:
            try:
                data = self._control.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            message = json.loads(data)
            child = self._children.get(message["id"])
            if "pid" not in message:
                self._children.pop(message["id"], None)
            if child is not None:
                child.told(message)

    def _lost(self) -> None:
        """It is gone, or is to go: it ends with the socket, and what it forked ends with it."""
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.told({})


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """A stream of what comes out of a pipe, and what closes it."""
    stream = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    return stream, transport
