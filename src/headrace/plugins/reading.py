"""Reads of vendors' answers, asked together: those that wait while the plugin is busy travel in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from headrace.connector import wire
from headrace.plugins.contract import ContractBroken, check_count, check_outcomes
from headrace.plugins.errors import PluginError, PluginErrorKind
from headrace_sdk import Outcomes, Request, Response

_MOST_READS = 64
_MOST_BYTES = 8_000_000

Pair = tuple[Request, Response]
Ask = Callable[[list[Pair]], Awaitable[list[wire.ReadResult]]]


class Reader:
    """The reads of one instance."""

    def __init__(self, plugin: str, ask: Ask) -> None:
        """Ask by a function that takes several pairs and raises PluginError when the call fails."""
        self._plugin = plugin
        self._ask = ask
        self._waiting: deque[tuple[Pair, asyncio.Future[Outcomes]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def read(self, request: Request, response: Response) -> Outcomes:
        """What an answer means.

        Raises:
            PluginError: The plugin failed on this answer, or before it was its turn (`untried`).
        """
        future: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        self._waiting.append(((request, response), future))
        if self._task is None:
            self._task = asyncio.create_task(self._read_waiting())
        return await future

    async def _read_waiting(self) -> None:
        try:
            while self._waiting:
                part = self._take()
                if part:
                    await self._read_part(part)
        finally:
            self._task = None

    def _take(self) -> list[tuple[Pair, asyncio.Future[Outcomes]]]:
        """The next reads whose callers still wait: at least one, at most a frame that is not too large."""
        part: list[tuple[Pair, asyncio.Future[Outcomes]]] = []
        size = 0
        while self._waiting and len(part) < _MOST_READS:
            (request, response), future = self._waiting[0]
            size += len(request.body) + len(response.body)
            if part and size > _MOST_BYTES:
                break
            self._waiting.popleft()
            if not future.done():
                part.append(((request, response), future))
        return part

    async def _read_part(self, part: Sequence[tuple[Pair, asyncio.Future[Outcomes]]]) -> None:
        try:
            found = await self._ask([pair for pair, _ in part])
            self._check_count(len(part), len(found))
        except PluginError as error:
            if len(part) == 1 or error.untried:
                for _, future in part:
                    _fail(future, error)
                return
            # One of them is at fault: asked alone, only that one fails.
            for one in part:
                await self._read_part([one])
        except BaseException as error:
            for _, future in part:
                _fail(future, error)
            raise
        else:
            for (pair, future), result in zip(part, found, strict=True):
                self._settle(future, pair[0], result)

    def _check_count(self, expected: int, found: int) -> None:
        try:
            check_count(expected, found, "answer")
        except ContractBroken as error:
            raise PluginError(PluginErrorKind.DEFECT, self._plugin, str(error)) from None

    def _settle(self, future: asyncio.Future[Outcomes], request: Request, result: wire.ReadResult) -> None:
        if future.done():
            return
        if result.outcomes is None:
            reason = result.failure or "its answer is empty"
            future.set_exception(PluginError(PluginErrorKind.DEFECT, self._plugin, reason))
            return
        try:
            check_outcomes(request, result.outcomes)
        except ContractBroken as error:
            future.set_exception(PluginError(PluginErrorKind.DEFECT, self._plugin, str(error)))
        else:
            future.set_result(result.outcomes)


def _fail(future: asyncio.Future[Outcomes], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)
