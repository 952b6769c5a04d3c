"""A connector that sends by itself, behind the outlet: one verdict per item, whatever it does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.rates import Limit, RateLimiter
from headrace_sync.outlets.verdicts import Kind

from headrace.domain.times import now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.plugins import PluginHost
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams.client import Redis
from headrace_sdk import EventItem
from tests.support import line_plugin, plugin_zoo
from tests.support.connector_outlets import Way, way
from tests.support.line_plugin import LineServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PluginHost]:
    folder = tmp_path_factory.mktemp("lines")
    line_plugin.install(folder)
    running = PluginHost(["lines"], path=[str(folder)])
    await running.start()
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[LineServer]:
    async with LineServer() as listening:
        yield listening


@pytest_asyncio.fixture(loop_scope="module")
async def lines(host: PluginHost, server: LineServer, redis: Redis, db: Database) -> AsyncIterator[Way]:
    async with way(host, "lines", {"token": plugin_zoo.SECRET, "port": server.port}, redis, db) as found:
        yield found


async def verdicts(lines: Way, *ids: str) -> list[tuple[Kind, str]]:
    found = await lines.deliver([EventItem(message_id=one, kind="track", name="A") for one in ids])
    assert all(plugin_zoo.SECRET not in verdict.reason for verdict in found)
    return [(verdict.kind, verdict.reason) for verdict in found]


async def test_each_item_has_its_own_verdict(lines: Way, server: LineServer) -> None:
    assert await verdicts(lines, "a", "x", "b") == [(Kind.DELIVERED, ""), (Kind.REJECTED, "bad"), (Kind.DELIVERED, "")]
    assert server.said == ["a x b"]


async def test_an_item_on_which_it_fails_is_found_by_halves(lines: Way, server: LineServer) -> None:
    found = await verdicts(lines, "a", "poison", "b", "c")
    assert [kind for kind, _ in found] == [Kind.DELIVERED, Kind.PLUGIN, Kind.DELIVERED, Kind.DELIVERED]
    assert sorted(server.said) == ["a", "b c"]


async def test_what_was_not_sent_and_what_may_have_arrived(lines: Way) -> None:
    assert await verdicts(lines, "unsent") == [(Kind.RETRY, "not with ********")]
    assert await verdicts(lines, "slow") == [(Kind.LOST, "no answer within 1 s")]


async def test_what_the_breaker_keeps_back_takes_no_place_of_a_limit(lines: Way, stores: EmbeddedStores) -> None:
    """Limits may be shared with destinations that answer."""
    redis, limit = streams.connect(stores.redis_url), Limit("test:places", count=10, per_s=1.0)
    lines.outlet._limiter, lines.outlet._limits = RateLimiter(redis), [limit]
    assert await verdicts(lines, "a") == [(Kind.DELIVERED, "")]
    taken = await redis.get(limit.key)
    for _ in range(lines.outlet.breaker.threshold):
        lines.outlet.breaker.failed(now_us())
    assert await verdicts(lines, "a") == [(Kind.UNTRIED, "the destination does not answer")]
    assert taken is not None and await redis.get(limit.key) == taken
    await redis.aclose()


async def test_private_addresses_are_the_operators_to_allow(lines: Way, server: LineServer) -> None:
    guarded = VendorClient(allow_private=False)
    lines.outlet._client, allowing = guarded, lines.outlet._client
    try:
        refused = (Kind.REJECTED, "the address is private, loopback or link-local")
        assert await verdicts(lines, "a") == [refused]
        assert server.said == []
    finally:
        lines.outlet._client = allowing
        await guarded.close()
