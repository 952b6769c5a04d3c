"""Keeps child processes running: starts them together, starts again what dies, stops them in order."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace.embedded.errors import EmbeddedError, StartFailed
from headrace.embedded.processes import Process, last_output

_POLL_S = 0.05
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 30.0
_TRIES_AT_START = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A process that must run."""

    name: str
    spawn: Callable[[], Process]
    """Starts it; called again when it died."""
    is_ready: Callable[[], Awaitable[bool]]
    """Whether it serves; must not raise because it does not serve yet."""


class Supervisor:
    """Runs parts until they are stopped.

    A part that ends without being asked to is started again: after 0.1 s, then after twice as long each time, at most
    5 s; one that has run for half a minute has its patience back.
    """

    def __init__(self, say: Say, *, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        """Run nothing yet.

        Args:
            say: Takes sentences for the person at the terminal.
            first_pause_s: Seconds before the first new start.
        """
        self._say = say
        self._first_pause_s = first_pause_s
        self._running: dict[str, Process] = {}
        self._deaths: dict[str, int] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    def start(self, parts: Sequence[Part]) -> None:
        """Start parts, without waiting until they serve."""
        for part in parts:
            self._running[part.name] = part.spawn()
            self._deaths[part.name] = 0
            self._keepers[part.name] = asyncio.create_task(self._keep(part), name=f"keep {part.name}")

    async def wait_ready(self, part: Part, timeout_s: float = 60.0) -> None:
        """Wait until a part that was started serves.

        Raises:
            StartFailed: It died again and again, or did not serve within timeout_s seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not await part.is_ready():
            process = self._running[part.name]
            if self._deaths[part.name] >= _TRIES_AT_START:
                raise StartFailed(
                    f"{part.name} ended {_TRIES_AT_START} times while starting; see {process.log_path}: "
                    f"{last_output(process.log_path)}"
                )
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{part.name} does not serve after {timeout_s:.0f} seconds; see {process.log_path}: "
                    f"{last_output(process.log_path)}"
                )
            await asyncio.sleep(_POLL_S)

    def pid(self, name: str) -> int:
        """Process id of a part as it runs now."""
        return self._running[name].pid

    async def stop(self, names: Sequence[str], timeout_s: float) -> None:
        """Stop parts together: SIGTERM, and SIGKILL after timeout_s seconds."""
        keepers = [self._keepers.pop(name) for name in names if name in self._keepers]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        processes = [self._running.pop(name) for name in names if name in self._running]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + timeout_s
        try:
            for process in processes:
                await _ended(process, deadline)
                if process.exit_status is None:
                    self._say(f"{process.name} did not stop in time and is ended")
        finally:
            for process in processes:
                process.kill()

    async def _keep(self, part: Part) -> None:
        pause_s = self._first_pause_s
        while True:
            process = self._running[part.name]
            started = time.monotonic()
            await _ended(process)
            self._deaths[part.name] += 1
            if time.monotonic() - started > _STEADY_S:
                pause_s = self._first_pause_s
            self._say(f"{part.name} ended with status {process.exit_status} and is started again")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._running[part.name] = await self._spawn_again(part)

    async def _spawn_again(self, part: Part) -> Process:
        """Start a part for as long as the system refuses to: no memory, no disk."""
        while True:
            try:
                return part.spawn()
            except (OSError, EmbeddedError) as error:
                self._say(f"{part.name} cannot be started: {error}")
                await asyncio.sleep(_LONGEST_PAUSE_S)


async def _ended(process: Process, deadline: float = math.inf) -> None:
    """Return when a process has ended, or at the deadline."""
    while process.exit_status is None and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel sets no Event
        await asyncio.sleep(_POLL_S)
