"""A real process, killed in the middle of its work: nothing is lost, and the ledger balances."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from aiohttp import web
from headrace_sync.store import DELIVERED

from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.embedded.processes import free_port
from headrace.storage.mongo.client import Database
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Hooks, Line, Others

_RUN = """
from headrace.service import open_service_of, run, settings_class
raise SystemExit(run("sync", settings_class("sync")(), open_service_of("sync")))
"""


@asynccontextmanager
async def process(env: dict[str, str], port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The service as a process of its own, serving."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RUN, env={**os.environ, **env}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 200)])
        async with asyncio.timeout(60):
            await channel.channel_ready()
        await channel.close(None)
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def environment(settings_env: dict[str, str], others: Others, port: int, **more: str) -> dict[str, str]:
    return {
        **settings_env,
        "HEADRACE_GRPC_PORT": str(port),
        "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        "HEADRACE_PLUGINS": "webhook,meta-audience",
        "HEADRACE_PARTITIONS": str(support.PARTITIONS),
        "HEADRACE_IDENTITY_ADDRESS": others.address,
        "HEADRACE_AUDIENCE_ADDRESS": others.address,
        "HEADRACE_DELIVERY_LEASE_SECONDS": "3",
        "HEADRACE_DELIVERY_POLL_SECONDS": "0.1",
        "HEADRACE_CONFIG_POLL_SECONDS": "0.1",
        "HEADRACE_LIST_PASS_SECONDS": "0.2",
        "HEADRACE_LEASE_SECONDS": "2",
        **more,
    }


async def written_down(db: Database, hooks: Hooks) -> dict[str, int]:
    """How often each event that the store knows as delivered has arrived so far."""
    return {d["m"]: hooks.accepted[d["m"]] async for d in db["deliveries"].find({"st": DELIVERED})}


async def test_killed_in_the_middle_of_forwarding_and_passes(
    settings_env: dict[str, str], db: Database, hooks: Hooks, line: Line, others: Others
) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        await asyncio.sleep(0.01)
        return None

    hooks.answer = answer
    meta = FakeMeta()
    await meta.start()
    people = [f"p{n}" for n in range(60)]
    for person in people:
        others.people.put(person, email=f"{person}@example.com")
    port = free_port()
    env = environment(settings_env, others, port)
    token = settings_env["HEADRACE_SERVICE_TOKEN"]
    ids: list[str] = []
    try:
        async with process(env, port) as child, support.api(f"127.0.0.1:{port}", token) as api:
            forwarding = await api.forwarding("all", await api.destination("hook", hooks.url))
            vendor = await api.destination(
                "meta",
                "",
                connector="meta-audience",
                audience_id="1234567890",
                access_token=meta.token,
                base_url=meta.url,
            )
            listing = await api.sync("list", vendor, SyncKind.SYNC_KIND_LIST, audience=support.AUDIENCE)
            for person in people[:30]:
                ids += await line.send_new(10)
                await others.buyers.enter(person)
            await support.until(lambda: len(hooks.accepted) > 100, "some were delivered")
            child.send_signal(signal.SIGKILL)
            await child.wait()
        first = await written_down(db, hooks)
        for person in people[30:]:
            ids += await line.send_new(3)
            await others.buyers.enter(person)
        await others.buyers.leave(*people[:10])
        async with process(env, port) as child, support.api(f"127.0.0.1:{port}", token) as api:
            await support.until(lambda: len(hooks.accepted) > 250, "more were delivered")
            child.send_signal(signal.SIGKILL)
            await child.wait()
        second = await written_down(db, hooks)
        async with process(env, port), support.api(f"127.0.0.1:{port}", token) as api:
            ledger = await support.settled(api, forwarding, within_s=60)
            assert (ledger.expected, ledger.delivered) == (390, 390)
            members = await support.settled(api, listing, within_s=60)
            assert (members.expected, members.delivered) == (50, 50)
            await support.until(lambda: len(meta.rows["1234567890"]) == 50, "the list is the audience")
    finally:
        await meta.stop()
    assert set(hooks.accepted) == set(ids)
    # What was on its way or not yet written down at a kill comes again, under the same key. What was
    # written down as delivered never does, and each kill repeats an event once at most.
    assert first
    for known in (first, second):
        assert {id: hooks.accepted[id] for id in known} == known
    assert max(hooks.accepted.values()) <= 3


async def test_sigterm_finishes_what_is_under_way_and_gives_back_the_rest(
    settings_env: dict[str, str], db: Database, hooks: Hooks, line: Line, others: Others
) -> None:
    async def answer(request: web.Request, body: Any) -> web.Response | None:
        await asyncio.sleep(0.05)
        return None

    hooks.answer = answer
    port = free_port()
    # With this lease, what was not given back could not be sent again within the test.
    env = environment(settings_env, others, port, HEADRACE_DELIVERY_LEASE_SECONDS="3600")
    token = settings_env["HEADRACE_SERVICE_TOKEN"]
    async with process(env, port) as child, support.api(f"127.0.0.1:{port}", token) as api:
        sync = await api.forwarding("all", await api.destination("hook", hooks.url))
        ids = await line.send_new(200)
        await support.until(lambda: len(hooks.accepted) > 20, "it is delivering")
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await child.wait() == 0
    assert len(hooks.accepted) < 200
    async with process(env, port), support.api(f"127.0.0.1:{port}", token) as api:
        ledger = await support.settled(api, sync)
    assert ledger.delivered == 200
    assert hooks.accepted == support.once(ids)
