"""The sync service on real stores, with real plugins, against receivers on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from headrace_sync.bootstrap import open_service

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support import sync as support
from tests.support.connector_outlets import Station, station
from tests.support.fake_meta import FakeMeta

Serve = Callable[..., AbstractAsyncContextManager[support.Api]]


@pytest.fixture
async def others(redis: Redis) -> AsyncIterator[support.Others]:
    async with support.others(redis) as found:
        yield found


@pytest.fixture
async def hooks() -> AsyncIterator[support.Hooks]:
    async with support.hooks() as receiver:
        yield receiver


@pytest.fixture
async def meta() -> AsyncIterator[FakeMeta]:
    vendor = FakeMeta()
    await vendor.start()
    yield vendor
    await vendor.stop()


@pytest.fixture
def line(db: Database, redis: Redis) -> support.Line:
    return support.Line(db, redis, support.PARTITIONS)


@pytest.fixture
def serve(
    request: pytest.FixtureRequest, others: support.Others, make_settings: Callable[..., Any], db: Database
) -> Serve:
    """serve(**settings): the service with the module's PLUGINS, in this process, as a client sees it."""
    plugins = getattr(request.module, "PLUGINS", support.PLUGINS)

    @asynccontextmanager
    async def serving(**more: Any) -> AsyncIterator[support.Api]:
        settings = support.quick_settings(make_settings, others, **{"plugins": plugins, **more})
        token = settings.service_token.get_secret_value()
        async with open_service(settings) as running, support.api(running.grpc_address, token) as client:
            yield client

    return serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _station(request: pytest.FixtureRequest, stores: EmbeddedStores) -> AsyncIterator[Station]:
    async with station(stores, request.module.CONNECTOR) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def shared(_station: Station) -> Station:
    """The process of the module's CONNECTOR and the stores; neither rates nor tokens of the test before are there."""
    await _station.clear()
    return _station
