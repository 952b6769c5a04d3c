from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from headrace.demo.sandbox import ACCESS_TOKEN, SandboxVendor

HASH = hashlib.sha256(b"ada@example.com").hexdigest()


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxVendor]:
    running = SandboxVendor(requests_per_second=1_000_000)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def change(
    http: aiohttp.ClientSession, sandbox: SandboxVendor, method: str, *rows: list[str], token: str = ACCESS_TOKEN
) -> tuple[int, Any]:
    payload = {"schema": ["EMAIL", "FN"], "is_raw": False, "data": list(rows)}
    async with http.request(
        method,
        f"{sandbox.url}/v26.0/6001/users",
        json={"payload": payload},
        headers={"Authorization": f"Bearer {token}"},
    ) as response:
        return response.status, await response.json()


async def test_rows_come_and_go(http: aiohttp.ClientSession, sandbox: SandboxVendor) -> None:
    status, answer = await change(http, sandbox, "POST", [HASH, ""], [HASH, HASH], ["ada@example.com", ""])
    assert (status, answer["num_received"], answer["num_invalid_entries"]) == (200, 3, 1)
    assert sandbox.lists["6001"] == {frozenset({("EMAIL", HASH)}), frozenset({("EMAIL", HASH), ("FN", HASH)})}
    await change(http, sandbox, "DELETE", [HASH, HASH])
    assert sandbox.lists["6001"] == {frozenset({("EMAIL", HASH)})}


async def test_it_fails_as_vendors_do(http: aiohttp.ClientSession, sandbox: SandboxVendor) -> None:
    assert (await change(http, sandbox, "POST", [HASH, ""], token="wrong"))[0] == 401
    statuses = [(await change(http, sandbox, "POST", [HASH, ""]))[0] for _ in range(14)]
    assert [place for place, status in enumerate(statuses, 1) if status == 500] == [7, 14]
    sandbox.requests_per_second = 0
    status, answer = await change(http, sandbox, "POST", [HASH, ""])
    assert (status, answer["error"]["code"]) == (400, 80003)
    assert sandbox.refused == {"unauthorized": 1, "server_error": 2, "throttled": 1}


async def test_the_webhook_counts_what_it_accepted(http: aiohttp.ClientSession, sandbox: SandboxVendor) -> None:
    async def post(key: str) -> int:
        async with http.post(f"{sandbox.url}/hook", json={}, headers={"Idempotency-Key": key} if key else {}) as answer:
            return answer.status

    assert await post("") == 400
    assert [await post(f"key-{number}") for number in range(1, 10)] == [200] * 8 + [503]
    assert "key-9" not in sandbox.webhook_ids
    assert await post("key-9") == 200
    assert await post("key-1") == 200
    assert sandbox.webhook_ids["key-1"] == 2
    assert sandbox.webhook_ids["key-9"] == 1
