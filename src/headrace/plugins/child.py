"""A plugin's child process, spoken to over gRPC on a UNIX socket in a private folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc

from headrace.connector.operations import MESSAGE_OPTIONS, SOCKET_VARIABLE, Operation
from headrace.plugins.line import LineClosed, Refused
from headrace.plugins.output import Output

_LOOKS_PER_S = 100
_LONGEST_SOCKET_PATH = 100
_OPTIONS = (
    *MESSAGE_OPTIONS,
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # a call that failed is the host's to judge
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # a line that is closed for want of calls would look like a crash
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
)
_REFUSALS = {grpc.StatusCode.FAILED_PRECONDITION: "load", grpc.StatusCode.INVALID_ARGUMENT: "config"}


class Process(Protocol):
    """A process, as `Spawned` and `Forked` have it."""

    pid: int
    stdout: asyncio.StreamReader

    @property
    def returncode(self) -> int | None:
        """None while it runs; else its status, negative for the signal that ended it."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended."""
        ...

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to it. What it started ends with it."""
        ...

    def close(self) -> None:
        """Read no more of what it prints."""
        ...


class Spawned:
    """A process that this one started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take one that leads a session and whose output is piped."""
        assert process.stdout is not None
        self.pid = process.pid
        self.stdout = process.stdout
        self._process = process

    @property
    def returncode(self) -> int | None:
        """None while it runs; else its status, negative for the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended."""
        return await self._process.wait()

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to it and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Its pipe is closed with it."""


async def spawn(command: Sequence[str], environment: Mapping[str, str], folder: Path | None, socket: Path) -> Spawned:
    """Start a command that serves on a socket.

    Args:
        command: The program and its arguments.
        environment: All of its environment but the socket.
        folder: Its working folder; None leaves it in the host's.
        socket: Path of the socket.

    Raises:
        OSError: There is no such program, or the system has no room for a process.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environment, SOCKET_VARIABLE: str(socket)},
        cwd=folder,
        start_new_session=True,  # Ctrl-C is for us, and what the plugin starts ends with it
    )
    return Spawned(process)


class Child:
    """A plugin's process and the line to it."""

    def __init__(self, process: Process, home: Path, output: Output) -> None:
        """Made by `start`."""
        self._process = process
        self._home = home
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._reader = asyncio.create_task(output.follow(process.stdout))

    @classmethod
    async def start(cls, begin: Callable[[Path], Awaitable[Process]], output: Output) -> Child:
        """Start a process.

        Args:
            begin: Starts one that serves on the socket with this path.
            output: Takes what it prints.

        Raises:
            OSError: There is no process.
        """
        home = Path(tempfile.mkdtemp(prefix="headrace-"))  # only this user may look into it
        try:
            process = await begin(_socket_in(home))
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        return cls(process, home, output)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """True when the process has ended, or has closed the line."""
        return self._process.returncode is not None or (self._channel is not None and not self._is_connected())

    async def wait(self) -> int:
        """Wait until the process has ended.

        Returns:
            Its status; negative for a signal.
        """
        return await self._process.wait()

    async def connect(self) -> None:
        """Wait until the process serves. May be given up at any moment.

        Raises:
            LineClosed: The process ended before.
        """
        socket = _socket_in(self._home)
        while not socket.exists():
            if self._process.returncode is not None:
                raise LineClosed
            await asyncio.sleep(1 / _LOOKS_PER_S)
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        ready = asyncio.ensure_future(self._channel.channel_ready())
        ended = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise LineClosed
        finally:
            await _cancelled(ready, ended)
        # The connection lives without the name of its socket: nobody else can connect, and nothing is left behind.
        shutil.rmtree(self._home, ignore_errors=True)

    async def ask(self, operation: Operation[Any, Any], request: bytes, limit_s: float) -> bytes:
        """Make a call, see Line."""
        try:
            return await self._call(operation.path)(request, timeout=limit_s)
        except grpc.aio.AioRpcError as error:
            timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if not timed_out and (not self._is_connected() or _is_torn(error)):
                raise LineClosed from None  # whatever the status: it was made up when the line broke
            raise _meaning_of(error, operation) from None

    def _is_connected(self) -> bool:
        return self._channel is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY

    def _call(self, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        if self._channel is None:
            raise LineClosed
        if path not in self._calls:
            self._calls[path] = self._channel.unary_unary(path, None, None)  # bytes in, bytes out
        return self._calls[path]

    async def how_it_ended(self) -> str:
        """What became of the process, as a clause."""
        try:
            async with asyncio.timeout(1.0):
                status = await self._process.wait()
        except TimeoutError:
            return "its process closed the line"
        if status < 0:
            return f"its process was ended by signal {_signal_name(-status)}"
        return f"its process ended with status {status}"

    async def end(self, *, gently: bool = False) -> None:
        """End the process and everything it started."""
        if self._channel is not None:
            await self._channel.close(None)
        if gently:
            self._process.kill(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._process.wait()
        self._process.kill(signal.SIGKILL)
        await self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(1.0):
                await self._reader
        self._process.close()


def _socket_in(home: Path) -> Path:
    """The path of the socket in a private folder.

    Raises:
        OSError: It is longer than the path of a socket may be.
    """
    socket = home / "socket"
    if len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH:
        raise OSError(0, "the path of the temporary folder is too long for a socket: set TMPDIR")
    return socket


async def _cancelled(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


def _is_torn(error: grpc.aio.AioRpcError) -> bool:
    """Whether gRPC itself gave up a call because what came over the line is no HTTP/2; its state may follow later."""
    return error.code() is grpc.StatusCode.UNKNOWN and (error.details() or "").startswith("Stream removed")


def _meaning_of(error: grpc.aio.AioRpcError, operation: Operation[Any, Any]) -> Exception:
    """What a status other than OK means to the caller of `ask`."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimeoutError()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return LineClosed()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused("defect", f"it does not answer to {operation.name}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Refused("defect", f"its answer to {operation.name} is larger than a message may be")
    reason = error.details() or f"it answered {operation.name} with {code.name}"
    return Refused(_REFUSALS.get(code, "defect"), reason)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
