"""Plans, alerts and retention are killed before every one of their writes: nothing is lost, and nothing done twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo.client import Database

SHORT = 5
"""Between the writes at which the short tests crash; the long ones crash at each."""


async def crash(name: str, stores: EmbeddedStores, db: Database, folder: Path, *more: str, step: int = 1) -> int:
    """Run a scenario in a process of its own; returns how many crashes it survived."""
    arguments = [name, stores.mongo_url, db.name, str(folder), "1", str(step), *more]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.sync.crash_scenarios",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, problems = await child.communicate()
    assert child.returncode == 0, problems.decode()[-4_000:]
    return int(out)


@pytest.fixture
async def receiver() -> AsyncIterator[str]:
    """Where alerts go: it also says which ids it took."""
    told: list[str] = []

    async def take(request: web.Request) -> web.Response:
        told.append(request.headers["webhook-id"])
        return web.Response(status=204)

    async def show(request: web.Request) -> web.Response:
        return web.json_response(told)

    async def reset(request: web.Request) -> web.Response:
        told.clear()
        return web.Response()

    app = web.Application()
    app.router.add_post("/alerts", take)
    app.router.add_get("/told", show)
    app.router.add_get("/reset", reset)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
    await runner.cleanup()


@pytest.mark.parametrize("name", ["approval", "blast-radius", "retention"])
async def test_killed_now_and_then(name: str, stores: EmbeddedStores, db: Database, tmp_path: Path) -> None:
    assert await crash(name, stores, db, tmp_path, step=SHORT) >= 1


@pytest.mark.long
@pytest.mark.parametrize(("name", "writes"), [("approval", 15), ("blast-radius", 15), ("retention", 4)])
async def test_killed_before_every_write(
    name: str, writes: int, stores: EmbeddedStores, db: Database, tmp_path: Path
) -> None:
    assert await crash(name, stores, db, tmp_path) >= writes


async def test_alerts_killed_before_every_write(
    stores: EmbeddedStores, db: Database, tmp_path: Path, receiver: str
) -> None:
    assert await crash("alerts", stores, db, tmp_path, receiver) >= 6
