"""Checks of connectors that deliver by themselves, in a worker process of the host, against an end that fails them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.conformance.behaviour import kinds
from headrace.conformance.bench import Batch, Bench, built
from headrace.conformance.checks import CheckFailed, check, require
from headrace.conformance.far_end import FarEnd, Manner
from headrace.plugins import PluginHost
from headrace.plugins.errors import PluginError
from headrace.plugins.host import ConnectorInstance
from headrace_sdk import Request

_TIME_S = 2.0
_LITTLE_TIME_S = 0.2
_LONG_S = 60.0
_PATIENCE_S = 5.0
_LOST = frozenset({"delivered", "warned", "rejected", "pending"})
_REMEDY = "Answer with a status from 500 what is known not to be done; raise TransientError when nothing was sent."


@dataclass(frozen=True, slots=True)
class Ready:
    """What a delivery needs.

    Attributes:
        host: The host with the plugin in a process of its own.
        name: Name of the connector.
        batches: A batch for each of its calls.
        settings: Its settings, those that lead to the far end not among them.
        towards: Settings that lead to "$address".
    """

    host: PluginHost
    name: str
    batches: Sequence[Batch]
    settings: Mapping[str, Any]
    towards: Mapping[str, Any]

    @contextlib.asynccontextmanager
    async def opened(self, settings: Mapping[str, Any]) -> AsyncIterator[tuple[ConnectorInstance, list[Request]]]:
        """The connector with more settings, and its requests."""
        instance = await self.host.open(self.name, {**self.settings, **settings})
        try:
            made = [await built(instance, batch) for batch in self.batches]
            requests = [request for one in made for request in one.requests]
            require(requests, "there is no request to deliver")
            yield instance, requests
        finally:
            await instance.close()

    @contextlib.asynccontextmanager
    async def against(self, manner: Manner) -> AsyncIterator[tuple[FarEnd, ConnectorInstance, list[Request]]]:
        """An end, and the connector that delivers to it."""
        require(self.towards, 'vendor.json has no delivery.settings, which lead to "$address"')
        async with (
            FarEnd(manner) as end,
            self.opened(filled(self.towards, {"$address": end.address})) as (instance, requests),
        ):
            yield end, instance, requests


def filled(value: Any, texts: Mapping[str, str]) -> Any:
    """JSON in whose texts names such as "$address" are replaced."""
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, Mapping):
        return {name: filled(inner, texts) for name, inner in value.items()}
    return [filled(inner, texts) for inner in value] if isinstance(value, list) else value


def _delivers(bench: Bench) -> str:
    return "" if bench.info.schemes else "schemes"


def _run(bench: Bench, holds: Callable[[Ready], Awaitable[str]]) -> str:
    """Run the part of a check that waits."""
    host, _ = bench.worker
    batches = [bench.batch(call) for call in bench.calls()]
    ready = Ready(host, bench.info.name, batches, bench.settings, bench.vendor_file.delivery.settings)

    async def run() -> str:
        return await holds(ready)

    try:
        return bench.run(run())
    except PluginError as error:
        raise CheckFailed(error.reason) from None


async def _became(instance: ConnectorInstance, request: Request, timeout_s: float, *, private: bool = True) -> set[str]:
    """What became of a request, in words."""
    found = await instance.deliver(request, timeout_s=timeout_s, allow_private=private)
    if found.response is not None:
        return kinds(await instance.read(request, found.response))
    return {"refused" if found.refused else "unsent" if found.unsent else "lost"}


def _fails_well(bench: Bench, manner: Manner) -> str:
    """What cannot be delivered to an end of this manner is tried again."""

    async def holds(ready: Ready) -> str:
        async with ready.against(manner) as (end, instance, requests):
            found = await _became(instance, requests[0], _TIME_S)
            said = ", ".join(sorted(found))
            require(not found & _LOST, f"read as {said}")
            require(end.came or manner is Manner.ABSENT, "it went elsewhere than to the address")
            return said

    return _run(bench, holds)


@check("behaviour.unreachable", "Where nobody listens, nothing counts as delivered and nothing is lost.", _REMEDY,
       _delivers)  # fmt: skip
def _unreachable(bench: Bench) -> str:
    return _fails_well(bench, Manner.ABSENT)


@check("behaviour.broken-off", "When the other end hangs up, nothing counts as delivered and nothing is lost.", _REMEDY,
       _delivers)  # fmt: skip
def _broken_off(bench: Bench) -> str:
    return _fails_well(bench, Manner.BREAKS_OFF)


@check("behaviour.nonsense", "When the other end talks nonsense, nothing counts as delivered and nothing is lost.",
       _REMEDY, _delivers)  # fmt: skip
def _nonsense(bench: Bench) -> str:
    return _fails_well(bench, Manner.NONSENSE)


@check("behaviour.silent", "While the other end says nothing, other calls are answered; the time it has is kept.",
       "Wait with await alone, and let cancellations through.", _delivers)  # fmt: skip
def _silent(bench: Bench) -> str:
    async def holds(ready: Ready) -> str:
        async with ready.against(Manner.SILENT) as (end, instance, requests):
            waiting = asyncio.create_task(instance.deliver(requests[0], timeout_s=_LONG_S, allow_private=True))
            try:
                require(await end.visited(_PATIENCE_S), "it went elsewhere than to the address")
                async with asyncio.timeout(_PATIENCE_S):
                    await built(instance, ready.batches[0])
                require(not waiting.done(), "it did not wait for an answer")
            except TimeoutError:
                raise CheckFailed("no other call is answered meanwhile") from None
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            found = await _became(instance, requests[0], _LITTLE_TIME_S)
            require(not found & _LOST, f"read as {', '.join(sorted(found))}")
            return ", ".join(sorted(found))

    return _run(bench, holds)


@check("behaviour.private", "Addresses on this machine are refused unless the operator allows them.",
       "Connect by Python's sockets; what connects by other means looks at the address itself.",
       _delivers)  # fmt: skip
def _private(bench: Bench) -> str:
    async def holds(ready: Ready) -> str:
        async with ready.against(Manner.SILENT) as (end, instance, requests):
            found = await _became(instance, requests[0], _TIME_S, private=False)
            require(not end.came, "it connected all the same")
            require(found == {"refused"}, f"read as {', '.join(sorted(found))}")
            return "refused"

    return _run(bench, holds)


def _works_needed(bench: Bench) -> str:
    return _delivers(bench) or ("" if bench.vendor_file.delivery.works else "delivery.works in vendor.json")


@check("behaviour.delivers", "What is sent arrives, and may arrive once more.",
       "Let a second delivery of the same request find the first one.", _works_needed)  # fmt: skip
def _works(bench: Bench) -> str:
    settings = filled(bench.vendor_file.delivery.works, {"$folder": bench.folder})

    async def holds(ready: Ready) -> str:
        async with ready.opened(settings) as (instance, requests):
            for request in [*requests, *requests]:
                found = await _became(instance, request, _PATIENCE_S)
                require(found <= {"delivered", "warned", "pending"}, f"read as {', '.join(sorted(found))}")
            return f"{len(requests)} requests, twice"

    return _run(bench, holds)


@check("life.given-up", "A delivery that is given up in the middle leaves no connection, and the next one is tried.",
       "Close in finally what a delivery opened, and let cancellations through.", _delivers)  # fmt: skip
def _given_up(bench: Bench) -> str:
    async def holds(ready: Ready) -> str:
        async with ready.against(Manner.SILENT) as (end, instance, requests):
            pid = ready.host.processes()[bench.info.plugin]
            waiting = asyncio.create_task(instance.deliver(requests[0], timeout_s=_LONG_S, allow_private=True))
            require(await end.visited(_PATIENCE_S), "it went elsewhere than to the address")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            require(await end.left(_PATIENCE_S), "it stays connected")
            before = end.came
            await _became(instance, requests[0], _LITTLE_TIME_S)
            require(end.came > before, "the next delivery does not connect")
            require(ready.host.processes()[bench.info.plugin] == pid, "its process was ended")
            return "the next one is tried"

    return _run(bench, holds)


@check("life.closed", "An instance that is closed leaves no connection behind.", "Close in close() all that is open.",
       _delivers)  # fmt: skip
def _closed(bench: Bench) -> str:
    async def holds(ready: Ready) -> str:
        async with ready.against(Manner.SILENT) as (end, instance, requests):
            for _ in range(2):
                await _became(instance, requests[0], _LITTLE_TIME_S)
            require(end.came, "it went elsewhere than to the address")
            await instance.close()
            require(await end.left(_PATIENCE_S), "a connection is left")
            return "no connection"

    return _run(bench, holds)
