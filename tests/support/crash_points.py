"""Crashes between any two writes: work is done in a process that is killed before its n-th write, for every n.

The processes are forked from one that has loaded everything, so a crash costs a fraction of a second. After each the
work is done again, by a process that lives, and what is left is checked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pymongo import monitoring

from headrace.storage.mongo import client as mongo
from headrace.storage.mongo.client import Database

_WRITES = frozenset({"insert", "update", "delete", "findAndModify", "commitTransaction"})


class Scenario(Protocol):
    """Work that must survive a crash."""

    async def reset(self, db: Database) -> None:
        """Make what the work begins with."""
        ...

    async def work(self, db: Database) -> None:
        """Do the work, from wherever it was left."""
        ...

    async def check(self, db: Database) -> None:
        """Raise AssertionError when what is left is wrong."""
        ...


class _Kill(monitoring.CommandListener):
    """Ends the process before its n-th write."""

    def __init__(self, before: int) -> None:
        self._left = before

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in _WRITES:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


def survive(scenario: Scenario, url: str, database: str, *, first: int = 1, step: int = 1) -> int:
    """Crash before the writes first, first + step, ... of the work, until it ends without a crash.

    Returns:
        How many crashes there were.

    Raises:
        RuntimeError: Something was wrong after one of them.
    """
    crashes = 0
    while True:
        point = first + crashes * step
        _must(0, _forked(scenario.reset, url, database), f"the beginning cannot be made ({point})")
        status = _forked(scenario.work, url, database, kill_before=point)
        if status == 0:
            _must(0, _forked(scenario.check, url, database), "what is left without a crash is wrong")
            return crashes
        _must(-signal.SIGKILL, status, f"the work failed before write {point}")
        _must(0, _forked(scenario.work, url, database), f"the work cannot go on after a crash before write {point}")
        _must(0, _forked(scenario.check, url, database), f"what is left after a crash before write {point} is wrong")
        crashes += 1


def _must(wanted: int, status: int, problem: str) -> None:
    if status != wanted:
        raise RuntimeError(f"{problem}: exit status {status}")


def _forked(act: Callable[[Database], Awaitable[Any]], url: str, database: str, *, kill_before: int = 0) -> int:
    """Exit status of a process that does something with a client of its own; minus the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if kill_before:
            monitoring.register(_Kill(kill_before))

        async def run() -> None:
            client = mongo.connect(url)
            await act(client[database])
            await mongo.close(client)

        asyncio.run(run())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
