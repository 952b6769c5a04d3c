"""The way to a vendor as the sync service has it: mapping, plugin process, outlet, credentials, HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from headrace_sync.leases import Leases
from headrace_sync.outlets.batch import SEND_EVENTS
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.rates import RateLimiter, limits_of
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tokens import TokenStore
from headrace_sync.outlets.verdicts import Verdict

from headrace.embedded.stores import EmbeddedStores
from headrace.plugins import PluginHost
from headrace.plugins.mapping import compile_mapping
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Database
from headrace.storage.sealing import Sealer
from headrace.storage.streams import client as streams_client
from headrace.storage.streams.client import Redis
from headrace_sdk import EventItem, Member, Profile
from tests.support.outlets import MASTER_KEY


@dataclass
class Way:
    """The way to one destination.

    Attributes:
        outlet: The service's own.
        host: Of its plugin.
        connector: Name of the connector.
        halted: Reasons for which the destination was stopped.
    """

    outlet: Outlet
    host: PluginHost
    connector: str
    halted: list[str] = field(default_factory=list)

    async def deliver(self, events: Sequence[EventItem], mapping: Mapping[str, Any] | None = None) -> list[Verdict]:
        """Map events and send them as one batch."""
        compiled = compile_mapping(mapping, self.host.connectors()[self.connector])
        mapped = [replace(event, fields=compiled.event_fields(event)) for event in events]
        return await self.outlet.send(SEND_EVENTS, mapped)

    def members(self, profiles: Sequence[Profile], mapping: Mapping[str, Any] | None = None) -> list[Member]:
        """Profiles as members of a list."""
        compiled = compile_mapping(mapping, self.host.connectors()[self.connector])
        return [Member(profile_id=one.id, fields=compiled.member_fields(one)) for one in profiles]


@asynccontextmanager
async def way(
    host: PluginHost, connector: str, settings: dict[str, Any], redis: Redis, db: Database
) -> AsyncIterator[Way]:
    """The way to a destination with these settings."""
    info = host.connectors()[connector]
    client = VendorClient(allow_private=True)
    tokens = TokenStore(db, Sealer(MASTER_KEY), Leases(db, owner="test"), client)
    halted: list[str] = []

    async def halt(reason: str) -> None:
        halted.append(reason)

    outlet = Outlet(
        info=info,
        open_connector=lambda: host.open(connector, settings),
        client=client,
        limiter=RateLimiter(redis),
        limits=limits_of(info, connector, settings),
        signer=Signer(connector, info.auth, lambda: settings, tokens),
        halt=halt,
    )
    try:
        yield Way(outlet, host, connector, halted)
    finally:
        await outlet.close()
        await client.close()


@dataclass(frozen=True)
class Station:
    """What the ways of one connector's tests share: its process and the stores.

    Attributes:
        host: Of the plugin.
        connector: Name of the connector.
        redis: Holds its rates.
        db: Holds its tokens.
    """

    host: PluginHost
    connector: str
    redis: Redis
    db: Database

    async def clear(self) -> None:
        """Take away the rates and tokens of the test before."""
        await self.redis.flushall()
        for collection in await self.db.list_collection_names():
            await self.db[collection].delete_many({})

    def way(self, settings: dict[str, Any]) -> AbstractAsyncContextManager[Way]:
        """The way to a destination with these settings."""
        return way(self.host, self.connector, settings, self.redis, self.db)


@asynccontextmanager
async def station(stores: EmbeddedStores, connector: str) -> AsyncIterator[Station]:
    """A connector's process and clients of the stores, for all tests of a module: each takes a second to start."""
    host = PluginHost([connector])
    redis = streams_client.connect(stores.redis_url)
    mongo = mongo_client.connect(stores.mongo_url)
    try:
        await host.start()
        if host.failures():
            raise RuntimeError(host.failures()[0].reason)
        yield Station(host, connector, redis, mongo["test_connector_outlets"])
    finally:
        await host.close()
        await redis.aclose()
        await mongo_client.close(mongo)
