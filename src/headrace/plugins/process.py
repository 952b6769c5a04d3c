"""One plugin's child process: started, asked one call at a time, ended when it hangs, started again with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from headrace.connector import frames, wire
from headrace.plugins.discovery import InstalledPlugin
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind
from headrace.plugins.masking import Masker
from headrace.plugins.output import Output
from headrace.telemetry import metrics
from headrace.telemetry.logs import get_logger

_log = get_logger(__name__)
_seconds = metrics.histogram("headrace_plugin_seconds", "Time of calls to plugins in seconds, by plugin and method.")
_starts = metrics.counter("headrace_plugin_starts", "Starts of plugin processes, by plugin.")

_INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONHOME")
"""All of the environment that a plugin sees: the host's settings hold secrets that are none of its business."""

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_REASON = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plugin may use.

    Attributes:
        call_s: Seconds for a call.
        load_s: Seconds for starting the process and importing the plugin.
        memory_bytes: Address space of the process; 0 for no limit.
    """

    call_s: float = 15.0
    load_s: float = 60.0
    memory_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Instance:
    """A configured connector, as needed to make it again in a new process.

    Attributes:
        id: Unique in the process.
        connector: Name of the connector.
        settings: Its settings, with secrets.
        secrets: The secrets among them.
    """

    id: str
    connector: str
    settings: Mapping[str, Any] = field(repr=False)
    secrets: Sequence[str] = field(repr=False)


@dataclass(slots=True)
class _Job:
    """A call that waits for its turn."""

    method: str
    argument: msgspec.Struct
    instance: Instance | None
    answer: asyncio.Future[bytes]


class PluginProcess:
    """One plugin. Calls from any number of tasks are answered one after another."""

    def __init__(self, plugin: InstalledPlugin, limits: Limits, path: Sequence[str] = ()) -> None:
        """Describe the process; nothing is started yet.

        Args:
            plugin: What to load.
            limits: What it may use.
            path: Folders that are searched for its code before all others.
        """
        self.plugin = plugin
        self.output = Output()
        self.starts = 0
        self._limits = limits
        self._path = tuple(path)
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._open: dict[str, Instance] = {}
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self._closed = False

    async def load(self) -> list[wire.ConnectorInfo]:
        """Start the process and ask what the plugin offers.

        Raises:
            PluginError: It could not be loaded. The process is ended.
        """
        try:
            return await self._start()
        except PluginError:
            await self._end()
            raise

    async def call(
        self, method: str, argument: msgspec.Struct, result: type[T], *, instance: Instance | None = None
    ) -> T:
        """Make a call.

        Args:
            method: As in headrace.connector.frames.
            argument: Its argument.
            result: Type of its result.
            instance: The instance it is for; made in the process first if it is not there yet.

        Raises:
            PluginConfigError: The instance's settings cannot work.
            PluginError: The call failed; `kind` says how.
        """
        if self._closed:
            raise self._error(PluginErrorKind.CRASHED, "the plugin host is closed", untried=True)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=f"plugin {self.plugin.name}")
        job = _Job(method, argument, instance, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        raw = await job.answer
        try:
            return msgspec.msgpack.decode(raw, type=result)
        except (msgspec.MsgspecError, ValueError, TypeError):
            raise self._error(PluginErrorKind.DEFECT, f"its answer to {method} has a wrong shape") from None

    async def forget(self, instance: Instance) -> None:
        """Drop an instance; never raises for what the plugin does."""
        if self._open.pop(instance.id, None) is not None and self._child is not None:
            with contextlib.suppress(PluginError):
                await self.call("close", frames.Close(instance=instance.id), type(None))

    async def close(self) -> None:
        """End the process; calls that wait fail."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._fail_waiting(self._error(PluginErrorKind.CRASHED, "the plugin host is closed", untried=True))
        await self._end(gently=True)

    async def _work(self) -> None:
        """Answer the waiting calls in order."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            job = self._waiting.popleft()
            if job.answer.done():
                continue  # its caller gave up before its turn
            try:
                answer = await self._serve(job)
            except asyncio.CancelledError:
                self._settle(job, self._error(PluginErrorKind.CRASHED, "the plugin host is closed", untried=True))
                raise
            except PluginError as error:
                self._settle(job, error)
                if error.retry_after_s > 0:
                    self._fail_waiting(error)
            except Exception:
                # A defect of this file, not of the plugin: it must not leave callers waiting forever.
                _log.exception("a plugin call failed in the host", plugin=self.plugin.name)
                self._settle(job, self._error(PluginErrorKind.DEFECT, "the call failed in the host"))
                await self._end()
            else:
                if not job.answer.done():
                    job.answer.set_result(answer)

    async def _serve(self, job: _Job) -> bytes:
        if job.method == "close" and self._child is None:
            return msgspec.msgpack.encode(None)
        if self._child is not None and self._child.returncode is not None:
            await self._end()  # it ended between two calls; that is no fault of this one
        if self._child is None:
            await self._restart()
        if job.instance is not None and job.instance.id not in self._open:
            await self._make(job.instance)
            if job.method == "open":
                return msgspec.msgpack.encode(None)
        answer = await self._exchange(job.method, job.argument, self._limits.call_s, job.instance)
        self._failed_in_a_row = 0
        return answer

    async def _make(self, instance: Instance) -> None:
        argument = frames.Open(instance=instance.id, connector=instance.connector, settings=dict(instance.settings))
        self._open[instance.id] = instance
        self.output.hide(instance.secrets)
        try:
            await self._exchange("open", argument, self._limits.call_s, instance)
        except PluginError:
            self._open.pop(instance.id, None)
            raise

    async def _restart(self) -> None:
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:
            raise self._error(
                PluginErrorKind.CRASHED, "its process failed and starts again later", wait_s, untried=True
            )
        try:
            await self._start()
        except PluginError as error:
            # When the child is gone already, it was ended and the wait until the next one is set.
            failed = error if self._child is None else await self._broken(error.kind, error.reason)
            failed.untried = True
            raise failed from None
        _log.info("plugin started again", plugin=self.plugin.name, starts=self.starts)

    async def _start(self) -> list[wire.ConnectorInfo]:
        """Start the process and load the plugin in it."""
        self.starts += 1
        _starts.add(1, {"plugin": self.plugin.name})
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([*self._path, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8:replace"}
        try:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "headrace.connector.runtime",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us, and what the plugin starts ends with it
            )
        except OSError as error:
            raise await self._broken(PluginErrorKind.CRASHED, f"no process ({error.strerror})") from None
        assert self._child.stderr is not None
        self._reader = asyncio.create_task(self.output.follow(self._child.stderr))
        found: list[wire.ConnectorInfo] = []
        for name, value in self.plugin.entry_points:
            argument = frames.Load(entry_point=name, value=value, memory_bytes=self._limits.memory_bytes)
            raw = await self._exchange("load", argument, self._limits.load_s, None)
            try:
                found += msgspec.msgpack.decode(raw, type=list[wire.ConnectorInfo])
            except (msgspec.MsgspecError, ValueError, TypeError):
                raise self._error(PluginErrorKind.LOAD, "what it offers has a wrong shape") from None
        return found

    async def _exchange(
        self, method: str, argument: msgspec.Struct, limit_s: float, instance: Instance | None
    ) -> bytes:
        """Send a call and wait for its reply; on anything but a clean reply the process is ended."""
        body = msgspec.msgpack.encode(frames.Call(method, msgspec.Raw(msgspec.msgpack.encode(argument))))
        if len(body) > frames.MAX_FRAME_BYTES:
            raise self._error(PluginErrorKind.DEFECT, f"the batch for {method} is larger than a frame may be")
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                raw = await self._write_and_read(body)
            _seconds.record(time.monotonic() - started, {"plugin": self.plugin.name, "method": method})
            reply = msgspec.msgpack.decode(raw, type=frames.Reply)
        except TimeoutError:
            raise await self._broken(PluginErrorKind.TIMEOUT, f"no answer to {method} within {limit_s:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):  # uvloop: "the handler is closed"
            raise await self._broken(PluginErrorKind.CRASHED, f"{await self._how_it_ended()} during {method}") from None
        except (msgspec.MsgspecError, ValueError, TypeError):
            raise await self._broken(PluginErrorKind.DEFECT, f"its answer to {method} is no reply") from None
        except asyncio.CancelledError:
            await self._end()  # its reply would be taken for the answer to the next call
            raise
        if reply.failure is not None:
            raise self._refused(reply.failure, instance)
        return bytes(reply.result)

    async def _write_and_read(self, body: bytes) -> bytes:
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        child.stdin.writelines((struct.pack(">I", len(body)), body))
        await child.stdin.drain()
        (length,) = struct.unpack(">I", await child.stdout.readexactly(4))
        if length > frames.MAX_FRAME_BYTES:
            raise ValueError("frame too large")
        return await child.stdout.readexactly(length)

    def _refused(self, failure: wire.Failure, instance: Instance | None) -> PluginError:
        secrets = instance.secrets if instance is not None else ()
        reason = Masker(secrets).mask(failure.reason)[:_LONGEST_REASON]
        if failure.kind == "config":
            return PluginConfigError(self.plugin.name, failure.field[:_LONGEST_REASON], reason)
        kind = PluginErrorKind.LOAD if failure.kind == "load" else PluginErrorKind.DEFECT
        return self._error(kind, reason)

    async def _how_it_ended(self) -> str:
        child = self._child
        assert child is not None
        try:
            async with asyncio.timeout(1.0):
                status = await child.wait()
        except TimeoutError:
            return "its process closed the line"
        if status < 0:
            return f"its process was ended by signal {_signal_name(-status)}"
        return f"its process ended with status {status}"

    async def _broken(self, kind: PluginErrorKind, reason: str) -> PluginError:
        """End the process, and set when the next one may start."""
        await self._end()
        self._failed_in_a_row += 1
        # The first failure may be one bad batch: the next call gets a fresh process at once.
        late = self._failed_in_a_row - 2
        wait_s = min(_FIRST_WAIT_S * 2 ** min(late, 16), _LONGEST_WAIT_S) if late >= 0 else 0.0
        self._not_before = time.monotonic() + wait_s
        _log.warning("plugin process ended", plugin=self.plugin.name, kind=kind.value, wait_s=wait_s)
        return self._error(kind, reason, wait_s)

    async def _end(self, *, gently: bool = False) -> None:
        """End the process and everything it started."""
        child, reader = self._child, self._reader
        self._child = self._reader = None
        self._open.clear()
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        if gently:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await child.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
        if reader is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(1.0):
                    await reader

    def _fail_waiting(self, error: PluginError) -> None:
        while self._waiting:
            self._settle(
                self._waiting.popleft(),
                self._error(
                    PluginErrorKind.CRASHED,
                    "its process failed during an earlier call",
                    error.retry_after_s,
                    untried=True,
                ),
            )

    @staticmethod
    def _settle(job: _Job, error: PluginError) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)

    def _error(
        self, kind: PluginErrorKind, reason: str, retry_after_s: float = 0.0, *, untried: bool = False
    ) -> PluginError:
        return PluginError(kind, self.plugin.name, reason, retry_after_s=retry_after_s, untried=untried)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
