"""A connector that sends by itself, in its process: answered, limited in time, cancelled, guarded, closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from headrace.connector import wire
from headrace.plugins import Limits, PluginError, PluginErrorKind, PluginHost, process
from headrace.plugins.host import ConnectorInstance
from headrace.plugins.render import render
from headrace_sdk import Delivered, EventBatch, EventItem, Rejected
from tests.support import line_plugin, plugin_zoo
from tests.support.line_plugin import LineServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PluginHost]:
    folder = tmp_path_factory.mktemp("lines")
    line_plugin.install(folder)
    running = PluginHost(["lines"], path=[str(folder)], limits=Limits(call_s=5.0))
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[LineServer]:
    async with LineServer() as listening:
        yield listening


@pytest_asyncio.fixture(loop_scope="module")
async def lines(host: PluginHost, server: LineServer) -> AsyncIterator[ConnectorInstance]:
    opened = await host.open("lines", settings(server))
    yield opened
    await opened.close()


def settings(server: LineServer, **more: Any) -> dict[str, Any]:
    return {"token": plugin_zoo.SECRET, "port": server.port, **more}


def events(*ids: str) -> EventBatch:
    return EventBatch(events=tuple(EventItem(message_id=one, kind="track", name="Bought") for one in ids), now_us=0)


async def said(
    connector: ConnectorInstance, *words: str, timeout_s: float = 5.0, allow_private: bool = True
) -> wire.Delivery:
    (request,) = (await connector.send_events(events(*words))).requests
    return await connector.deliver(request, timeout_s=timeout_s, allow_private=allow_private)


async def test_an_answer_is_read_and_the_client_is_opened_once(lines: ConnectorInstance, server: LineServer) -> None:
    (request,) = (await lines.send_events(events("a", "x"))).requests
    for _ in range(2):
        found = await lines.deliver(request, timeout_s=5.0, allow_private=True)
        assert found.response is not None and found.response.body == b"ok bad:x \n1"
    assert found.response is not None
    outcomes = await lines.read(request, found.response)
    assert outcomes.items == (Delivered(), Rejected(reason="bad"))
    await lines.close()
    await server.heard("bye")
    assert server.said == ["a x", "a x", "bye"]


async def test_an_answer_that_does_not_come_in_time_is_lost(lines: ConnectorInstance, server: LineServer) -> None:
    found = await said(lines, "slow", timeout_s=0.2)
    assert found == wire.Delivery(lost="no answer within 0.2 s")
    await asyncio.wait_for(server.gone.wait(), 10)


async def test_without_a_connection_nothing_is_sent(host: PluginHost, server: LineServer) -> None:
    await server.__aexit__()
    opened = await host.open("lines", settings(server))
    assert await said(opened, "a") == wire.Delivery(unsent="no connection")
    await opened.close()


async def test_secrets_are_masked(lines: ConnectorInstance) -> None:
    assert await said(lines, "unsent") == wire.Delivery(unsent="not with ********")
    with pytest.raises(PluginError) as caught:
        await said(lines, "fail")
    assert caught.value.kind is PluginErrorKind.DEFECT and "RuntimeError at lines.py:" in caught.value.reason
    assert plugin_zoo.SECRET not in caught.value.reason


async def test_several_are_under_way_beside_other_calls(
    host: PluginHost, lines: ConnectorInstance, server: LineServer
) -> None:
    slow = asyncio.create_task(said(lines, "slow", timeout_s=60.0))
    await asyncio.wait_for(server.came.wait(), 10)
    pid = host.processes()["lines"]
    assert (await said(lines, "a")).response is not None
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    # Cancelling reaches the connector, which hangs up, and its process lives on.
    await asyncio.wait_for(server.gone.wait(), 10)
    assert (await said(lines, "b")).response is not None
    assert host.processes()["lines"] == pid


async def test_one_that_blocks_is_ended_with_its_process(
    host: PluginHost, lines: ConnectorInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.3)
    assert (await said(lines, "a")).response is not None
    before = host.processes()["lines"]
    with pytest.raises(PluginError) as caught:
        await said(lines, "block", timeout_s=0.2)
    assert caught.value.kind is PluginErrorKind.TIMEOUT and not caught.value.untried
    assert (await said(lines, "b")).response is not None
    assert host.processes()["lines"] != before


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::ffff:127.0.0.1"])
async def test_private_addresses_are_refused_wherever_they_come_from(
    host: PluginHost, server: LineServer, address: str
) -> None:
    opened = await host.open("lines", settings(server, host=address))
    found = await said(opened, "a", allow_private=False)
    assert found == wire.Delivery(refused="the address is private, loopback or link-local")
    assert server.said == []
    assert (await said(opened, "a")).response is not None  # the operator allows it now
    await opened.close()


async def test_making_requests_may_connect_nowhere(lines: ConnectorInstance) -> None:
    assert (await said(lines, "a")).response is not None
    with pytest.raises(PluginError) as caught:
        await lines.send_events(events("outside"))
    assert caught.value.reason.startswith("OutsideRefused at lines.py:")


async def test_a_scheme_that_the_manifest_does_not_name_is_refused(lines: ConnectorInstance) -> None:
    with pytest.raises(PluginError) as caught:
        await lines.send_events(events("odd"))
    assert caught.value.reason == "a request has an unknown method"


async def test_a_dry_run_shows_what_would_be_sent(host: PluginHost) -> None:
    event = '{"type": "track", "event": "A", "messageId": "m", "userId": "u", "timestamp": "2026-11-29T08:00:00Z"}'
    found = await render(
        host, connector="lines", settings={"token": "t", "port": 9}, now_us=1_796_000_000_000_000, events=[event]
    )
    assert found.requests == [
        {"method": "SAY", "url": "line://localhost:9/in", "headers": {}, "body": "m", "message_ids": ["m"]}
    ]


async def test_in_process_it_is_the_same(server: LineServer, tmp_path: Path) -> None:
    line_plugin.install(tmp_path)
    host = PluginHost(["lines"], path=[str(tmp_path)], in_process=True)
    await host.start()
    opened = await host.open("lines", settings(server))
    found = await said(opened, "a")
    assert found.response is not None and found.response.status == 200
    await opened.close()
    await server.heard("bye")
    await host.close()
    assert server.said == ["a", "bye"]
