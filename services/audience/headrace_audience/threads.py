"""Work that is waited for even when the waiting task is cancelled, again and again if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T], on_cancel: Callable[[], object] = lambda: None) -> T:
    """Run work to its end; a cancellation that came meanwhile is raised then.

    Args:
        work: What must not be left in the middle.
        on_cancel: Called at each cancellation, to make the work end sooner.

    Raises:
        asyncio.CancelledError: The caller was cancelled; the work is done.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
            on_cancel()
        except Exception:
            break
    if cancelled:
        task.exception()  # looked at, so that it is not reported as forgotten
        raise asyncio.CancelledError
    return task.result()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work in a thread.

    A thread cannot be ended. When the caller is cancelled this waits until the work is done, so that a lock that the
    caller holds is not given away while the work still changes what it protects.
    """
    return await to_the_end(asyncio.to_thread(work, *args, **kwargs))
