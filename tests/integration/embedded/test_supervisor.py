"""The supervisor on real stores and on small commands in place of services."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from headrace.embedded.errors import StartFailed
from headrace.embedded.platform import store_parts
from headrace.embedded.processes import ChildProcess, free_port
from headrace.embedded.stores import EmbeddedStores
from headrace.embedded.supervisor import Part, Supervisor
from headrace.storage.mongo import client as mongo
from headrace.storage.streams import client as streams

_SERVE = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""

_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


class Said(list[str]):
    """Collects what is said."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
async def said() -> Said:
    return Said()


@pytest.fixture
async def supervisor(said: Said) -> AsyncIterator[Supervisor]:
    running = Supervisor(said, first_pause_s=0.01)
    yield running
    await running.stop(["mongod", "redis-server", "service", "other"], 20)


def command_part(name: str, folder: Path, *command: str, port: int = 0) -> Part:
    """A part that is ready when its port is open; one without a port never is."""

    async def is_ready() -> bool:
        if not port:
            return False
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    return Part(name, lambda: ChildProcess(name, command, log_path=folder / f"{name}.log"), is_ready)


def serving_part(name: str, folder: Path) -> Part:
    port = free_port()
    return command_part(name, folder, sys.executable, "-c", _SERVE, str(port), port=port)


async def changed_pid(supervisor: Supervisor, name: str, old: int) -> int:
    while supervisor.pid(name) == old:
        await asyncio.sleep(0.01)
    return supervisor.pid(name)


async def test_what_dies_is_started_again(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    part, other = serving_part("service", tmp_path), serving_part("other", tmp_path)
    supervisor.start([part, other])
    await supervisor.wait_ready(part)
    await supervisor.wait_ready(other)
    untouched = supervisor.pid("other")
    for number in (signal.SIGKILL, signal.SIGTERM):
        old = supervisor.pid("service")
        os.kill(old, number)
        await changed_pid(supervisor, "service", old)
        await supervisor.wait_ready(part)
    assert said == [
        "service ended with status -9 and is started again",
        "service ended with status -15 and is started again",
    ]
    assert supervisor.pid("other") == untouched


async def test_a_part_that_always_ends_fails_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    part = command_part("service", tmp_path, sys.executable, "-c", "import sys; sys.exit('the port is gone')")
    supervisor.start([part])
    with pytest.raises(StartFailed, match=r"service ended 3 times while starting; see .*service\.log: .*port is gone"):
        await supervisor.wait_ready(part)


async def test_a_part_that_never_serves_fails_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    part = command_part("service", tmp_path, sys.executable, "-c", "import time; time.sleep(600)")
    supervisor.start([part])
    with pytest.raises(StartFailed, match="service does not serve after 0 seconds"):
        await supervisor.wait_ready(part, timeout_s=0.1)


async def test_stopping_does_not_start_again_and_insists(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    deaf = command_part("service", tmp_path, sys.executable, "-c", code)
    supervisor.start([deaf])
    pid = supervisor.pid("service")
    while "deaf" not in (tmp_path / "service.log").read_text():
        await asyncio.sleep(0.01)
    await supervisor.stop(["service"], 0.1)
    assert said == ["service did not stop in time and is ended"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cancelled_stop_leaves_nothing_running(supervisor: Supervisor, tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    supervisor.start([command_part("service", tmp_path, sys.executable, "-c", code)])
    pid = supervisor.pid("service")
    while "deaf" not in (tmp_path / "service.log").read_text():
        await asyncio.sleep(0.01)
    stopping = asyncio.create_task(supervisor.stop(["service"], 600))
    await asyncio.sleep(0.05)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_killed_stores_come_back_with_their_data_for_clients_that_stay(
    supervisor: Supervisor, said: Said, tmp_path: Path
) -> None:
    stores = EmbeddedStores(tmp_path, mongo_port=free_port(), redis_port=free_port())
    parts = store_parts(stores)
    supervisor.start(parts)
    await asyncio.gather(*(supervisor.wait_ready(part) for part in parts))
    client, redis = mongo.connect(stores.mongo_url), streams.connect(stores.redis_url)
    try:
        await client["a"]["b"].insert_one({"_id": 1})
        await redis.set("a", "b")
        for name in ("mongod", "redis-server"):
            old = supervisor.pid(name)
            os.kill(old, signal.SIGKILL)
            await changed_pid(supervisor, name, old)
        await asyncio.gather(*(supervisor.wait_ready(part) for part in parts))
        assert await client["a"]["b"].count_documents({}) == 1
        try:
            assert await redis.get("a") == b"b"
        except RedisConnectionError:  # the open connection was dead; the next call makes another
            assert await redis.get("a") == b"b"
        assert said == [f"{name} ended with status -9 and is started again" for name in ("mongod", "redis-server")]
    finally:
        await redis.aclose()
        await mongo.close(client)
