"""What destinations share must not run out because some of them do not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from headrace_sync.outlets.http import GuardedResolver, VendorClient

from headrace_sdk import Request

SILENT = 250
"""Requests that are not answered: more than any bound of the client library's own."""


class Silent:
    """A vendor that answers at /fine only."""

    def __init__(self) -> None:
        self.url = ""
        self.waiting = 0
        self.all_waiting = asyncio.Event()
        self.give_up = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path != "/fine":
            self.waiting += 1
            if self.waiting == SILENT:
                self.all_waiting.set()
            await self.give_up.wait()
        return web.Response()


@pytest.fixture
async def vendor() -> AsyncIterator[Silent]:
    made = Silent()
    app = web.Application()
    app.router.add_route("*", "/{path}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        made.give_up.set()
        await runner.cleanup()


async def test_requests_without_an_answer_take_no_connection_from_others(vendor: Silent) -> None:
    client = VendorClient(allow_private=True)
    silent = [
        asyncio.create_task(client.send(Request(method="GET", url=f"{vendor.url}/silent", items=()), timeout_s=600))
        for _ in range(SILENT)
    ]
    try:
        async with asyncio.timeout(30):
            await vendor.all_waiting.wait()
            fine = await client.send(Request(method="GET", url=f"{vendor.url}/fine", items=()), timeout_s=600)
        assert fine.status == 200
        assert not any(task.done() for task in silent)
    finally:
        vendor.give_up.set()
        await asyncio.gather(*silent)
        await client.close()


class Names(AbstractResolver):
    """A name server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host == "silent.example":
            await self.answers.wait()
        if host == "none.example":
            raise OSError("no such name")
        return [ResolveResult(hostname=host, host="192.0.2.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_a_name_without_an_answer_is_asked_for_once_at_a_time() -> None:
    resolver = GuardedResolver(allow_private=True)
    resolver._inner = names = Names()
    waiting = [asyncio.create_task(resolver.resolve("silent.example", 443)) for _ in range(20)]
    assert (await resolver.resolve("fine.example", 443))[0]["host"] == "192.0.2.1"
    waiting[0].cancel()  # who gives up calls nothing back, and spoils nothing for the others
    waiting.append(asyncio.create_task(resolver.resolve("silent.example", 443)))
    await asyncio.sleep(0)
    assert names.asked.count("silent.example") == 1
    names.answers.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(one, list) for one in found[1:])
    await resolver.resolve("silent.example", 443)
    assert names.asked.count("silent.example") == 2  # nothing is kept
    for _ in range(2):
        with pytest.raises(OSError, match="no such name"):
            await resolver.resolve("none.example", 443)
