"""Calls to plugins: what a process of its own costs beside the connector's functions called where they are needed.

Processor time of both sides, because wall time says little on a machine that does something else. Running in process
makes the same messages as a process of its own, so the difference of these two is the socket and gRPC.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace_destination_meta_audience.destination import MetaAudience
from headrace_destination_meta_audience.settings import MetaAudienceSettings
from headrace_destination_webhook.destination import Webhook
from headrace_destination_webhook.settings import WebhookSettings

from headrace.connector import wire
from headrace.plugins import ConnectorInstance, PluginHost
from headrace_sdk import (
    Built,
    Destination,
    EventBatch,
    EventItem,
    Member,
    MemberBatch,
    Outcomes,
    Profile,
    Request,
    Response,
)
from tests.benchmarks.results import Result
from tests.support import plugin_zoo
from tests.support.processes import parent_of

SIZE = 500
MANY = 10_000
PLUGINS = 24
WEBHOOK = {"url": "https://hook.example/in", "batch_size": 100}
META = {"access_token": "no-real-token", "audience_id": "123", "api_version": "v24.0"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Call = Callable[[], Awaitable[object]]


async def run() -> list[Result]:
    """All figures of this file."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # as the services have it
    apart = await _measure(in_process=False)
    within = await _measure(in_process=True)
    alone = await _measure_alone()
    results = [
        Result(
            name=name,
            value=figure,
            unit="ms of processor",
            baseline="the connector alone",
            baseline_value=alone[name],
            lower_is_better=True,
            note=f"in process: {within[name]:.3g} ms",
        )
        for name, figure in apart.items()
    ]
    return [*results, *await _many()]


async def _many() -> list[Result]:
    """What many plugins cost a host before anybody uses them."""
    with tempfile.TemporaryDirectory() as folder:
        plugin_zoo.install(Path(folder), *(f"good-{number}" for number in range(PLUGINS)))
        host = PluginHost(path=[folder])
        started = time.perf_counter()
        await host.start()
        start_s = time.perf_counter() - started
        pids = [pid for pid in host.processes().values() if pid is not None]
        memory = sum(map(_memory_mib, [*pids, parent_of(pids[0])]))
        await host.close()
    return [
        Result(name=f"start of {PLUGINS} plugins", value=start_s, unit="s", lower_is_better=True),
        Result(name=f"memory of {PLUGINS} plugins", value=memory, unit="MiB", lower_is_better=True),
    ]


async def _measure(*, in_process: bool) -> dict[str, float]:
    """Milliseconds by name of the work."""
    async with _hosted(in_process) as host:
        pids = [pid for pid in host.processes().values() if pid is not None]
        hook = await host.open("webhook", WEBHOOK)
        meta = await host.open("meta-audience", META)
        return {name: await _cpu_ms(call, times, pids) for name, (call, times) in (await _work(hook, meta)).items()}


class _Alone:
    """A connector without a host, with the methods of one that has."""

    def __init__(self, connector: Destination[Any]) -> None:
        self._connector = connector

    async def send_events(self, batch: EventBatch) -> wire.BuiltBatch:
        return _requests_in(self._connector.send_events(batch))

    async def add_members(self, batch: MemberBatch) -> wire.BuiltBatch:
        return _requests_in(self._connector.add_members(batch))

    async def rows(self, members: Sequence[Member]) -> list[wire.MemberRows]:
        return [wire.MemberRows(rows=tuple(self._connector.rows(member))) for member in members]

    async def read(self, request: Request, response: Response) -> Outcomes:
        return self._connector.read(request, response)


def _requests_in(built: Iterable[Built]) -> wire.BuiltBatch:
    return wire.BuiltBatch(requests=tuple(item for item in built if isinstance(item, Request)))


async def _measure_alone() -> dict[str, float]:
    hook = _Alone(Webhook(WebhookSettings.model_validate(WEBHOOK)))
    meta = _Alone(MetaAudience(MetaAudienceSettings.model_validate(META)))
    return {name: await _cpu_ms(call, times, []) for name, (call, times) in (await _work(hook, meta)).items()}


@asynccontextmanager
async def _hosted(in_process: bool) -> AsyncIterator[PluginHost]:
    host = PluginHost(["webhook", "meta-audience"], in_process=in_process)
    await host.start()
    try:
        yield host
    finally:
        await host.close()


async def _work(hook: ConnectorInstance | _Alone, meta: ConnectorInstance | _Alone) -> dict[str, tuple[Call, int]]:
    """What is measured: calls, and how often each is made."""
    events = EventBatch(events=tuple(map(_event, range(SIZE))), now_us=0)
    members = list(map(_member, range(MANY)))
    rows = tuple(row for member in await meta.rows(members) for row in member.rows)
    few, many = MemberBatch(rows=rows[:SIZE], now_us=0), MemberBatch(rows=rows[:MANY], now_us=0)
    (request,) = (await hook.send_events(EventBatch(events=events.events[:1], now_us=0))).requests
    answer = Response(status=200, body=b"{}")
    return {
        f"webhook: requests of {SIZE} events": (lambda: hook.send_events(events), 30),
        f"meta-audience: rows of {SIZE} members": (lambda: meta.rows(members[:SIZE]), 20),
        f"meta-audience: requests of {SIZE} rows": (lambda: meta.add_members(few), 200),
        f"meta-audience: requests of {MANY:,} rows": (lambda: meta.add_members(many), 10),
        "webhook: one answer read alone": (lambda: hook.read(request, answer), 2_000),
    }


async def _cpu_ms(call: Call, times: int, pids: list[int]) -> float:
    """Milliseconds of processor time of a call, in this process and the plugins'."""
    await call()
    others, own = sum(map(_cpu_s, pids)), time.process_time()
    for _ in range(times):
        await call()
    return (time.process_time() - own + sum(map(_cpu_s, pids)) - others) / times * 1e3


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _memory_mib(pid: int) -> float:
    """Memory of a process; what several share counts for each in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _member(number: int) -> Member:
    return Member(
        profile_id=f"p{number}",
        fields={
            "email": f"user{number}@example.com",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "city": "London",
            "zip": "12345",
            "country": "gb",
        },
    )


def _event(number: int) -> EventItem:
    email = [f"user{number}@example.com"]
    return EventItem(
        message_id=f"m{number}",
        kind="track",
        name="Order Completed",
        timestamp_us=1_790_000_000_000_000 + number,
        received_at_us=1_790_000_000_000_000 + number,
        source_id="web",
        identifiers={"anonymous_id": [f"a{number}"], "email": email},
        properties={
            "order_id": f"o{number}",
            "value": 99.5,
            "currency": "EUR",
            "products": [{"sku": "A", "price": 10.5, "quantity": 2}, {"sku": "B", "price": 3.0, "quantity": 1}],
        },
        context={"page": {"url": "https://shop.example/checkout"}, "user_agent": "Mozilla/5.0", "ip": "192.0.2.1"},
        profile=Profile(id=f"p{number}", identifiers={"email": email}, traits={"plan": "pro"}),
        fields={"email": email[0], "value": 99.5},
    )
