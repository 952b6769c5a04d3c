"""Waiting: for plugins whose process starts again, and for all of what goes on side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from headrace.plugins.errors import PluginError

_CALL_AGAIN = 3
_LONGEST_PATIENCE_S = 5.0
T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call to a plugin, also when another batch has just ended its process."""
    for _ in range(_CALL_AGAIN):
        try:
            return await call()
        except PluginError as error:
            if not error.untried or error.retry_after_s > _LONGEST_PATIENCE_S:
                raise
            await pause(error)
    return await call()


async def pause(error: PluginError) -> None:
    """Give a plugin's process the time that it needs to start again."""
    if error.retry_after_s:
        await asyncio.sleep(min(error.retry_after_s, 30.0) + 0.01)


async def side_by_side(work: Iterable[Awaitable[None]]) -> None:
    """Do several things at a time, each to its end; raises the first failure of any after that.

    What is on its way to a vendor must not be left alone because something else of its batch fails.
    """
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
