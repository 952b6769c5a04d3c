"""A service's life: what every one does from its start to the end of draining.

Each service has a package `headrace_<name>` with `settings.Settings`, `bootstrap.open_service` and `store.INDEXES`;
they are found by name here, because the kernel imports no service.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvloop

from headrace.settings import ServiceSettings
from headrace.telemetry import logs, metrics
from headrace.telemetry.setup import setup

log = logs.get_logger(__name__)

SERVICES = ("ingest", "identity", "audience", "sync", "console")
"""All services, in the order in which events pass them."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 30.0
_CANCEL_AGAIN_S = 2.0

_restarts = metrics.counter("headrace_loop_restarts", "Background loops that failed and were started again, by loop.")


@dataclass(frozen=True, slots=True)
class Running:
    """Where a service can be reached, once everything of it serves."""

    grpc_address: str
    """Host and port of its gRPC services, as bound."""
    http_address: str = ""
    """URL of its HTTP port, when it has one."""


OpenService = Callable[[Any], AbstractAsyncContextManager[Running]]
"""`bootstrap.open_service`: takes the service's Settings, serves inside the block, drains and closes at its end."""


class Loops:
    """Background loops of a service.

    A loop that raises is logged, counted and started again: after 0.1 s at first, at most 5 s, so that a store
    that is away for a while is no reason to end the process. A loop that returns has finished.
    """

    def __init__(self) -> None:
        """Hold no loop yet."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop until `close`; the name is for logs and metrics, without ids."""
        self._tasks[name] = asyncio.create_task(self._keep_running(name, loop), name=name)

    @property
    def failing(self) -> frozenset[str]:
        """Names of loops that failed and have not run for half a minute since."""
        return frozenset(self._failing)

    async def close(self) -> None:
        """Cancel all loops and wait until they have ended."""
        waiting = set(self._tasks.values())
        self._tasks.clear()
        while waiting:
            # A cancellation can be lost: asyncio.wait_for of Python 3.11, and so PyMongo, swallows one that comes when
            # the awaited thing has just been done. Whoever has not ended after a while is cancelled again.
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_AGAIN_S)

    async def _keep_running(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        pause_s = _FIRST_PAUSE_S
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            steady = asyncio.get_running_loop().call_later(_STEADY_S, self._failing.discard, name)
            try:
                await loop()
            except Exception:
                log.exception("a background loop failed and starts again", loop=name)
                _restarts.add(1, {"loop": name})
                self._failing.add(name)
            else:
                self._failing.discard(name)
                return
            finally:
                steady.cancel()
            if clock() - started > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


@asynccontextmanager
async def background() -> AsyncIterator[Loops]:
    """Loops that end with the block."""
    loops = Loops()
    try:
        yield loops
    finally:
        await loops.close()


def settings_class(name: str) -> type[ServiceSettings]:
    """The Settings of a service of `SERVICES`."""
    found: type[ServiceSettings] = importlib.import_module(f"headrace_{name}.settings").Settings
    return found


def open_service_of(name: str) -> OpenService:
    """The `open_service` of a service of `SERVICES`."""
    found: OpenService = importlib.import_module(f"headrace_{name}.bootstrap").open_service
    return found


def indexes_of(name: str) -> Mapping[str, Any]:
    """The indexes of a service of `SERVICES`: collection name to index models."""
    found: Mapping[str, Any] = importlib.import_module(f"headrace_{name}.store").INDEXES
    return found


def retired_indexes_of(name: str) -> Mapping[str, Sequence[str]]:
    """Names of indexes that earlier versions of a service of `SERVICES` had: collection name to names."""
    module = importlib.import_module(f"headrace_{name}.store")
    found: Mapping[str, Sequence[str]] = getattr(module, "RETIRED_INDEXES", {})
    return found


def run(name: str, settings: ServiceSettings, open_service: OpenService) -> int:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        name: Name of the service, on logs and spans.
        settings: Its settings.
        open_service: Its bootstrap.

    Returns:
        Exit status: 0 after draining, 1 when it could not start or failed.
    """
    # Micro-batches make thousands of objects that live and die together. Looking for cycles every 700 new ones, as is
    # the default, finds nothing and costs a quarter of the processor's time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    telemetry = setup(name, settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(name, settings, open_service))
    except Exception:
        log.exception("the service failed")
        return 1
    finally:
        telemetry.close()
        metrics.forget_readers()
    return 0


async def _serve(name: str, settings: ServiceSettings, open_service: OpenService) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    opening = asyncio.create_task(_until_stopped(name, settings, open_service, stop))
    stopped = asyncio.create_task(stop.wait())
    try:
        # A signal during the start ends the start too; once it serves, the block ends by itself and drains.
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await opening
    finally:
        stopped.cancel()
        with suppress(asyncio.CancelledError):
            await stopped


async def _until_stopped(name: str, settings: ServiceSettings, open_service: OpenService, stop: asyncio.Event) -> None:
    async with open_service(settings) as running:
        log.info("serving", grpc=running.grpc_address, http=running.http_address)
        await stop.wait()
        log.info("draining")
    log.info("stopped")
