"""Checks of how a connector lives: in a worker process, interrupted, ended, beside another instance."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from headrace.conformance.bench import Batch, Bench, built
from headrace.conformance.checks import CheckFailed, check, require
from headrace.connector import wire
from headrace.plugins.errors import PluginError
from headrace.plugins.host import ConnectorInstance
from headrace_sdk.samples import SampleError

_BACK_WITHIN_S = 60.0
_SHORT_S = 0.02
_MANY = 8
_MOMENTS_S = (0.0, 0.001, 0.01)
"""After these times a call waits for its turn, is on its way, or is under way in the process."""


@check("life.worker", "In a worker process of the host it says the same of itself and makes the same requests.",
       "Do not depend on the process: no global state, no order of imports, no working directory.")  # fmt: skip
def _worker(bench: Bench) -> str:
    host, instance = bench.worker
    require(host.connectors()[bench.info.name] == bench.info, "its manifest is another one there")
    for batch in _batches(bench):
        require(_build(bench, instance, batch) == bench.build(batch), f"{batch.call}: other requests there")
    return f"{len(_batches(bench))} calls"


@check("life.cancelled", "After calls that were given up in the middle of a batch, the next one is answered as ever.",
       "Keep nothing between calls: a call may end at any place.")  # fmt: skip
def _cancelled(bench: Bench) -> str:
    _, instance = bench.worker
    for batch in _batches(bench):
        before = _build(bench, instance, batch)
        for moment_s in _MOMENTS_S:
            bench.run(_given_up(instance, bench.batch(batch.call, _MANY, seed=bench.options.seed + 1), moment_s))
        require(_build(bench, instance, batch) == before, f"{batch.call}: other requests after one that was given up")
    return f"{len(_batches(bench))} calls"


@check("life.restarted", "After its process was ended, a new one makes the same requests.",
       "Keep nothing in the process that the next one would need.")  # fmt: skip
def _restarted(bench: Bench) -> str:
    host, instance = bench.worker
    batches = _batches(bench)
    before = [_build(bench, instance, batch) for batch in batches]
    pid = host.processes()[bench.info.plugin]
    if pid is None:
        raise CheckFailed("it has no process")
    os.kill(pid, signal.SIGKILL)
    after = [bench.run(_patiently(instance, batch)) for batch in batches]
    require(host.processes()[bench.info.plugin] != pid, "the process is still the same")
    for batch, first, second in zip(batches, before, after, strict=True):
        require(first == second, f"{batch.call}: other requests in the new process")
    return "the same requests"


@check("life.instances", "Two instances in one process know nothing of each other.",
       "Keep settings in self alone: nothing in the class, the module or a cache.")  # fmt: skip
def _instances(bench: Bench) -> str:
    batches = _batches(bench)
    first = bench.new_instance(bench.settings)
    before = [bench.build(batch, first) for batch in batches]
    second = _other(bench)
    try:
        others = [bench.build(batch, second) for batch in batches]
        require(
            [bench.build(batch, first) for batch in batches] == before,
            "the second one changes the first one's",
        )
        require([bench.build(batch, second) for batch in batches] == others, "the first one changes the second one's")
    finally:
        bench.run(first.close())
        bench.run(second.close())
    return "two instances"


def _other(bench: Bench) -> ConnectorInstance:
    """An instance with settings as different as the connector takes."""
    samples = bench.samples(bench.options.seed + 1)
    for fixed in ({}, bench.vendor_file.settings, bench.settings):
        try:
            return bench.new_instance(samples.settings(fixed))
        except (CheckFailed, SampleError):
            continue
    raise CheckFailed("no other settings are taken")


def _batches(bench: Bench) -> list[Batch]:
    return [bench.batch(call) for call in bench.calls()]


def _build(bench: Bench, instance: ConnectorInstance, batch: Batch) -> wire.BuiltBatch:
    return bench.build(batch, instance)


async def _given_up(instance: ConnectorInstance, batch: Batch, moment_s: float) -> None:
    """Give up a call after a moment; whether it was answered by then does not matter."""
    task = asyncio.create_task(built(instance, batch))
    await asyncio.wait({task}, timeout=moment_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _patiently(instance: ConnectorInstance, batch: Batch) -> wire.BuiltBatch:
    """Build once the process is back."""
    end = time.monotonic() + _BACK_WITHIN_S
    while True:
        try:
            return await built(instance, batch)
        except PluginError as error:
            if time.monotonic() > end:
                raise CheckFailed(f"it does not come back: {error.reason}") from None
            await asyncio.sleep(error.retry_after_s or _SHORT_S)
