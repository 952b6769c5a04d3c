"""One plugin, running: asked one call at a time, ended when it hangs, started again with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from headrace.connector import launch, wire
from headrace.connector.calls import TRACEBACKS_VARIABLE
from headrace.connector.operations import (
    CLOSE,
    DELIVER,
    LOAD,
    MAX_MESSAGE_BYTES,
    OPEN,
    WRONG_SHAPE,
    Operation,
    Settings,
)
from headrace.plugins.child import Child, Process, spawn
from headrace.plugins.discovery import InstalledPlugin
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind
from headrace.plugins.in_process import InProcess
from headrace.plugins.line import Line, LineClosed, Refused
from headrace.plugins.masking import Masker
from headrace.plugins.nursery import Nursery
from headrace.plugins.output import Output
from headrace.telemetry import metrics
from headrace.telemetry.logs import get_logger

_log = get_logger(__name__)
_seconds = metrics.histogram("headrace_plugin_seconds", "Time of calls to plugins in seconds, by plugin and method.")
_starts = metrics.counter("headrace_plugin_starts", "Starts of plugin processes, by plugin.")

_INHERITED = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONHOME",
    TRACEBACKS_VARIABLE,
)  # fmt: skip
"""All of the environment that a plugin sees: the host's settings hold secrets that are none of its business."""

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_LONGEST_BEGIN_S = 60.0
_KINDS = {"load": PluginErrorKind.LOAD, "config": PluginErrorKind.CONFIG}
_LONGEST_REASON = 500
_LONGEST_PROBLEMS = 1_500
"""Of all that is wrong with settings together: an error of gRPC has a few kilobytes."""
_GRACE_S = 5.0
"""Seconds beyond the time of a delivery after which the process, which should have ended it, counts as stuck."""
ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plugin may use.

    Attributes:
        call_s: Seconds for a call.
        load_s: Seconds for starting the process and importing the plugin.
        memory_bytes: Private memory of the process; 0 for no limit.
        idle_s: Seconds after which a process without an instance is ended; the next call starts one.
    """

    call_s: float = 15.0
    load_s: float = 60.0
    memory_bytes: int = 1 << 30
    idle_s: float = 60.0


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
class _Job(Generic[ArgumentT, ResultT]):
    """A call that waits for its turn."""

    operation: Operation[ArgumentT, ResultT]
    argument: ArgumentT
    instance: Instance | None
    answer: asyncio.Future[ResultT]


class PluginProcess:
    """One plugin. Calls from any number of tasks are answered one after another."""

    def __init__(
        self, plugin: InstalledPlugin, limits: Limits, nursery: Nursery, *, in_process: Sequence[str] | None = None
    ) -> None:
        """Describe the process; nothing is started yet.

        Args:
            plugin: What to load.
            limits: What it may use.
            nursery: Forks the processes of Python plugins.
            in_process: Run it in the host's own process, with these folders searched for its code before all others.
        """
        self.plugin = plugin
        self.output = Output()
        self.starts = 0
        self._limits = limits
        self._nursery = nursery
        self._in_process = in_process
        self._line: Line | None = None
        self._worker: asyncio.Task[None] | None = None
        self._waiting: deque[_Job[Any, Any]] = deque()
        self._wake = asyncio.Event()
        self._open: dict[str, Instance] = {}
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id, when there is a process at the moment."""
        return self._line.pid if isinstance(self._line, Child) else None

    async def load(self) -> list[wire.ConnectorInfo]:
        """Start the process and ask what the plugin offers.

        Raises:
            PluginError: It could not be loaded. The process is ended.
        """
        try:
            found = await self._start()
        except PluginError:
            await self._end()
            raise
        self._worker = asyncio.create_task(self._work(), name=f"plugin {self.plugin.name}")
        return found

    async def call(
        self, operation: Operation[ArgumentT, ResultT], argument: ArgumentT, *, instance: Instance | None = None
    ) -> ResultT:
        """Make a call.

        Args:
            operation: The call.
            argument: Its argument.
            instance: The instance it is for; made in the process first if it is not there yet.

        Raises:
            PluginConfigError: The instance's settings cannot work.
            PluginError: The call failed; `kind` says how.
        """
        if self._closed:
            raise self._error(PluginErrorKind.CRASHED, "the plugin host is closed", untried=True)
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(operation, argument, instance, answer))
        self._wake.set()
        return await answer

    async def open(self, instance: Instance) -> None:
        """Make an instance now, which checks its settings.

        Raises:
            PluginConfigError: They cannot work.
            PluginError: The plugin failed.
        """
        await self.call(OPEN, _settings_of(instance), instance=instance)

    async def deliver(self, asked: wire.ToDeliver, instance: Instance) -> wire.Delivery:
        """Let an instance send a request by itself, beside other calls. May be cancelled without harm to them.

        Raises:
            PluginConfigError: The instance's settings cannot work.
            PluginError: The call failed; unless it was `untried`, the request may have arrived.
        """
        line = self._line
        if line is None or line.ended or instance.id not in self._open:
            await self.open(instance)
            line = self._line
        if line is None:
            raise self._error(PluginErrorKind.CRASHED, "its process failed during an earlier call", untried=True)
        request = self._message(DELIVER, asked, instance)
        try:
            response = await line.ask(DELIVER, request, asked.timeout_s + _GRACE_S)
        except (TimeoutError, LineClosed) as error:
            if line is self._line:
                raise await self._cut(error, DELIVER, asked.timeout_s + _GRACE_S) from None
            reason = "its process failed during another call"
            raise self._error(PluginErrorKind.CRASHED, reason) from None
        except Refused as refused:
            raise self._refused(refused, instance) from None
        return self._result(DELIVER, response)

    async def forget(self, instance: Instance) -> None:
        """Drop an instance; never raises for what the plugin does."""
        if self._open.pop(instance.id, None) is not None and self._line is not None:
            with contextlib.suppress(PluginError):
                await self.call(CLOSE, None, instance=instance)

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
                await self._rest()
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

    async def _rest(self) -> None:
        """Wait until somebody calls. A plugin that nobody has an instance of need not be there meanwhile."""
        self._wake.clear()
        if self._line is None or self._open or self._in_process is not None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._wake.wait()
        except TimeoutError:
            await self._end(gently=True)

    async def _serve(self, job: _Job[ArgumentT, ResultT]) -> ResultT | None:
        instance = job.instance
        if self._line is not None and self._line.ended:
            await self._end()  # it ended between two calls; that is no fault of this one
        if job.operation is CLOSE and self._line is None:
            return None
        if self._line is None:
            await self._restart()
        if instance is not None and job.operation is not CLOSE and instance.id not in self._open:
            await self._make(instance)
        if job.operation is OPEN:
            return None  # it is open now
        answer = await self._exchange(job.operation, job.argument, self._limits.call_s, instance)
        self._failed_in_a_row = 0
        return answer

    async def _make(self, instance: Instance) -> None:
        self.output.hide(instance.secrets)
        problem = await self._exchange(OPEN, _settings_of(instance), self._limits.call_s, instance)
        if problem is not None:
            (field, reason), *others = _told(problem, Masker(instance.secrets))
            raise PluginConfigError(self.plugin.name, field, reason, others)
        self._open[instance.id] = instance

    async def _restart(self) -> None:
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:
            raise self._error(
                PluginErrorKind.CRASHED, "its process failed and starts again later", wait_s, untried=True
            )
        try:
            await self._start()
        except PluginError as error:
            # When the line is gone already, it was ended and the wait until the next one is set.
            failed = error if self._line is None else await self._broken(error.kind, error.reason)
            failed.untried = True
            raise failed from None
        _log.info("plugin started again", plugin=self.plugin.name, starts=self.starts)

    async def _start(self) -> list[wire.ConnectorInfo]:
        """Start the process and load the plugin in it."""
        self.starts += 1
        _starts.add(1, {"plugin": self.plugin.name})
        load_s = left_s = self._limits.load_s
        if self._in_process is not None and not self.plugin.command:
            self._line = InProcess(self.plugin.entry_points, self._in_process)
        else:
            try:
                async with asyncio.timeout(_LONGEST_BEGIN_S):
                    child = self._line = await Child.start(self._begin, self.output)
            except TimeoutError:
                raise await self._broken(PluginErrorKind.CRASHED, f"no process within {_LONGEST_BEGIN_S:g} s") from None
            except OSError as error:
                raise await self._broken(PluginErrorKind.CRASHED, f"no process ({error.strerror})") from None
            started = time.monotonic()
            try:
                async with asyncio.timeout(load_s):
                    await child.connect()
            except (TimeoutError, LineClosed) as error:
                raise await self._cut(error, LOAD, load_s) from None
            left_s = max(load_s - (time.monotonic() - started), 0.001)
        return await self._exchange(LOAD, None, left_s, None)

    async def _begin(self, socket: Path) -> Process:
        plugin, memory_bytes = self.plugin, self._limits.memory_bytes
        if not plugin.command:
            return await self._nursery.fork(socket, plugin.entry_points, memory_bytes)
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(memory_bytes), str(os.getpid())]
        return await spawn([*launcher, *plugin.command], inherited(), plugin.folder, socket)

    async def _exchange(
        self,
        operation: Operation[ArgumentT, ResultT],
        argument: ArgumentT,
        limit_s: float,
        instance: Instance | None,
    ) -> ResultT:
        """Make a call and wait for its answer; when none comes the process is ended."""
        line = self._line
        assert line is not None
        request = self._message(operation, argument, instance)
        started = time.monotonic()
        try:
            response = await line.ask(operation, request, limit_s)
        except (TimeoutError, LineClosed) as error:
            raise await self._cut(error, operation, limit_s) from None
        except Refused as refused:
            raise self._refused(refused, instance) from None
        except asyncio.CancelledError:
            await self._end()  # it may be busy with this call for long
            raise
        _seconds.record(time.monotonic() - started, {"plugin": self.plugin.name, "method": operation.name})
        return self._result(operation, response)

    def _message(
        self, operation: Operation[ArgumentT, ResultT], argument: ArgumentT, instance: Instance | None
    ) -> bytes:
        try:
            message = operation.request_message(instance.id if instance is not None else "", argument)
            request = message.SerializeToString()
        except WRONG_SHAPE:  # such as a text that is no Unicode
            raise self._error(PluginErrorKind.DEFECT, f"the batch for {operation.name} cannot be sent") from None
        if len(request) > MAX_MESSAGE_BYTES:
            reason = f"the batch for {operation.name} is larger than a message may be"
            raise self._error(PluginErrorKind.DEFECT, reason)
        return request

    def _result(self, operation: Operation[ArgumentT, ResultT], response: bytes) -> ResultT:
        try:
            return operation.result_of(operation.response.FromString(response))
        except WRONG_SHAPE:
            kind = PluginErrorKind.LOAD if operation is LOAD else PluginErrorKind.DEFECT
            raise self._error(kind, f"its answer to {operation.name} has a wrong shape") from None

    def _refused(self, refused: Refused, instance: Instance | None) -> PluginError:
        secrets = instance.secrets if instance is not None else ()
        kind = _KINDS.get(refused.kind, PluginErrorKind.DEFECT)
        return self._error(kind, Masker(secrets).mask(refused.reason)[:_LONGEST_REASON])

    async def _cut(self, error: Exception, operation: Operation[Any, Any], limit_s: float) -> PluginError:
        """End the process after a call without an answer."""
        if isinstance(error, TimeoutError):
            limit_s = self._limits.load_s if operation is LOAD else limit_s
            reason = f"no answer to {operation.name} within {limit_s:g} s"
            return await self._broken(PluginErrorKind.TIMEOUT, reason)
        how = await self._line.how_it_ended() if self._line is not None else "its process closed the line"
        return await self._broken(PluginErrorKind.CRASHED, f"{how} during {operation.name}")

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
        line, self._line = self._line, None
        self._open.clear()
        if line is not None:
            await line.end(gently=gently)

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
    def _settle(job: _Job[Any, Any], error: PluginError) -> None:
        if not job.answer.done():
            job.answer.set_exception(error)

    def _error(
        self, kind: PluginErrorKind, reason: str, retry_after_s: float = 0.0, *, untried: bool = False
    ) -> PluginError:
        return PluginError(kind, self.plugin.name, reason, retry_after_s=retry_after_s, untried=untried)


def inherited() -> dict[str, str]:
    """What of the environment a plugin sees."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def python_environment(path: Sequence[str]) -> dict[str, str]:
    """All of the environment of a Python plugin.

    Args:
        path: Folders that are searched for its code before all others.
    """
    return {
        **inherited(),
        "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8:replace",
        "MALLOC_ARENA_MAX": "2",  # the threads of gRPC would each reserve an arena
    }


def _settings_of(instance: Instance) -> Settings:
    return Settings(instance.connector, dict(instance.settings))


def _told(problem: wire.SettingsProblem, masker: Masker) -> list[tuple[str, str]]:
    """What is wrong with settings as (field, reason) pairs, without secrets, as far as there is room for it."""
    found: list[tuple[str, str]] = []
    room = _LONGEST_PROBLEMS
    for one in (problem, *problem.others):
        field, reason = masker.mask(one.field)[:_LONGEST_REASON], masker.mask(one.reason)[:_LONGEST_REASON]
        room -= len(field) + len(reason)
        if found and room < 0:
            break
        found.append((field, reason))
    return found
