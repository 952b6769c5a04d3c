"""Fixtures that run the code on real stores: one mongod and one redis-server for the whole test run."""

from __future__ import annotations

import base64
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams import client as streams_client
from headrace.storage.streams.client import Redis
from tests.support.settings import MakeSettings, S

# The suite takes the same examples each time, at any speed; `--hypothesis-profile=default` looks for new ones.
hypothesis_settings.register_profile("suite", derandomize=True, deadline=None, max_examples=40)
hypothesis_settings.load_profile("suite")

_PLATFORMS_OF_THEIR_OWN = {"tests/e2e/test_chaos.py", "tests/e2e/test_forgetting.py"}


class _OnePlatform(LoadFileScheduling):  # type: ignore[misc]  # xdist publishes no types
    """Files are spread over the workers, but the end-to-end tests go to one: they share a platform, started once."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        shares = file.startswith("tests/e2e/") and file not in _PLATFORMS_OF_THEIR_OWN
        return "tests/e2e" if shares else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Of `--dist loadfile`; other ways to spread tests are xdist's own."""
    return _OnePlatform(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Commands that are run in this process make the log quiet, for theirs alone."""
    logger = logging.getLogger("headrace")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStores]:
    """The stores, serving. A test that kills one must have it serving again at its end."""
    running = EmbeddedStores(tmp_path_factory.mktemp("stores"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def redis(stores: EmbeddedStores) -> AsyncIterator[Redis]:
    """Redis, empty at the start of the test."""
    client = streams_client.connect(stores.redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def mongo(stores: EmbeddedStores) -> AsyncIterator[Client]:
    """A MongoDB client as the services use it."""
    client = mongo_client.connect(stores.mongo_url)
    yield client
    await mongo_client.close(client)


_databases: deque[str] = deque()
_DATABASES = 4


async def _empty_database(mongo: Client) -> str:
    """Name of an empty database: one used before, if there are enough, because making all indexes takes a while.

    It is emptied here and not after its last use, so that nothing that was left running then can have written since.
    """
    if len(_databases) < _DATABASES:
        name = f"test_{secrets.token_hex(6)}"
    else:
        name = _databases.popleft()
        for collection in await mongo[name].list_collection_names():
            await mongo[name][collection].delete_many({})
    _databases.append(name)
    return name


@pytest.fixture
async def settings_env(stores: EmbeddedStores, mongo: Client, redis: Redis, tmp_path: Path) -> dict[str, str]:
    """HEADRACE_* variables for services on the stores: a database of this test's own, an empty Redis, free ports."""
    database = await _empty_database(mongo)
    return {
        "HEADRACE_MONGO_URL": stores.mongo_url,
        "HEADRACE_MONGO_DATABASE": database,
        "HEADRACE_REDIS_URL": stores.redis_url,
        "HEADRACE_HOST": "127.0.0.1",
        "HEADRACE_HTTP_PORT": "0",
        "HEADRACE_CONSOLE_HTTP_PORT": "0",
        "HEADRACE_GRPC_PORT": "0",
        "HEADRACE_METRICS_PORT": "0",
        "HEADRACE_SERVICE_TOKEN": secrets.token_urlsafe(32),
        "HEADRACE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "HEADRACE_ARCHIVE_DIR": str(tmp_path / "archive"),
        "HEADRACE_DRAIN_SECONDS": "2",
    }


@pytest.fixture
async def db(mongo: Client, settings_env: dict[str, str]) -> Database:
    """The database of `settings_env`, with the indexes of all services."""
    from headrace.storage.mongo.indexes import make_indexes

    database = mongo[settings_env["HEADRACE_MONGO_DATABASE"]]
    await make_indexes(database)
    return database


@pytest.fixture
def make_settings(settings_env: dict[str, str]) -> MakeSettings:
    """Makes a service's settings from `settings_env`, with fields replaced by name."""

    def make(settings_class: type[S], **overrides: Any) -> S:
        fields = {name.removeprefix("HEADRACE_").lower(): value for name, value in settings_env.items()}
        known = {name: value for name, value in fields.items() if name in settings_class.model_fields}
        return settings_class(**{**known, **overrides})

    return make
