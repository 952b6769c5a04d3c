"""A whole platform on this machine: stores, indexes, services, first workspace, ready file."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.embedded.folder import DataFolder, write_private_json
from headrace.embedded.nursery import Nursery
from headrace.embedded.options import Options
from headrace.embedded.ports import Ports
from headrace.embedded.services import (
    HOST,
    SETTINGS_PREFIX,
    end_leftovers,
    environment_of,
    fixed_settings,
    refuse_fixed,
    service_part,
)
from headrace.embedded.stores import EmbeddedStores
from headrace.embedded.supervisor import Part, Say, Supervisor
from headrace.embedded.workspace import open_workspace
from headrace.service import SERVICES, settings_class
from headrace.settings import ServiceSettings
from headrace.storage.mongo import client as mongo

READY_FILE = "ready.json"

_STORES = ("mongod", "redis-server")
_STORES_STOP_S = 20.0
_KILL_MARGIN_S = 5.0


@dataclass(frozen=True)
class Platform:
    """A platform that serves."""

    ingest_http: str
    console_http: str
    grpc: Mapping[str, str]
    """gRPC address by service; the console's is called workspace."""
    workspace: str
    write_key: str
    api_token: str
    data_dir: Path
    """Folder of data, logs and keys."""
    keys_path: Path
    """File that keeps the API token."""
    supervisor: Supervisor

    @property
    def ready_path(self) -> Path:
        """The ready file in the data folder."""
        return self.data_dir / READY_FILE

    def as_json(self) -> dict[str, Any]:
        """What the ready file holds."""
        return {
            "ingest_http": self.ingest_http,
            "console_http": self.console_http,
            "grpc": dict(self.grpc),
            "workspace": self.workspace,
            "write_key": self.write_key,
            "api_token": self.api_token,
        }


@asynccontextmanager
async def open_platform(options: Options, nursery: Nursery, say: Say) -> AsyncIterator[Platform]:
    """Run everything inside the block; at its end drain the services, then stop the stores. Data is kept.

    Cancelling the end of the block stops the services at once.

    Args:
        options: How to run it.
        nursery: Forks the services; the caller closes it.
        say: Takes sentences for the person at the terminal.

    Raises:
        EmbeddedError: It cannot run here; the text says why and what to do.
        pydantic.ValidationError: A setting in the environment is wrong.
    """
    async with AsyncExitStack() as stack:
        data_dir = options.data_dir
        if options.ephemeral:
            data_dir = Path(tempfile.mkdtemp(prefix="headrace-"))
            stack.callback(shutil.rmtree, data_dir, ignore_errors=True)
        folder = DataFolder(data_dir)
        stack.callback(folder.release)
        ready_paths = [folder.path / READY_FILE, *([options.ready_file] if options.ready_file else [])]
        for path in ready_paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        end_leftovers(folder)
        ports = Ports(options.port_base)
        ports.require_free()
        stores = EmbeddedStores(folder.path, mongo_port=ports.mongo, redis_port=ports.redis)
        fixed = fixed_settings(ports, stores)
        refuse_fixed(options.environment, fixed)
        platform = await stack.enter_async_context(_serving(options, nursery, folder, ports, stores, fixed, say))
        for path in ready_paths:
            write_private_json(path, platform.as_json())
            stack.callback(path.unlink, missing_ok=True)
        yield platform


@asynccontextmanager
async def _serving(
    options: Options,
    nursery: Nursery,
    folder: DataFolder,
    ports: Ports,
    stores: EmbeddedStores,
    fixed: Mapping[str, str],
    say: Say,
) -> AsyncIterator[Platform]:
    environments = {
        service: environment_of(
            service, ports=ports, fixed=fixed, folder=folder, secrets=folder.secrets(), environment=options.environment
        )
        for service in SERVICES
    }
    settings = {service: _settings(settings_class(service), environments[service]) for service in SERVICES}["console"]
    folder.require_layout(partitions=settings.partitions, event_partitions=settings.event_partitions)
    service_parts = [
        service_part(service, ports=ports, folder=folder, environment=environments[service], nursery=nursery)
        for service in SERVICES
    ]
    stores_first = store_parts(stores)
    supervisor = Supervisor(say)
    try:
        # Services are started as early as they can be: loading their code takes longer than MongoDB needs to come up.
        supervisor.start([*stores_first, *service_parts])
        await asyncio.gather(*(supervisor.wait_ready(part) for part in stores_first))
        await _make_indexes(settings)
        await asyncio.gather(*(supervisor.wait_ready(part) for part in service_parts))
        grpc_addresses = {
            "workspace" if service == "console" else service: f"{HOST}:{port}" for service, port in ports.grpc.items()
        }
        keys_path = folder.path / "keys.json"
        keys = await open_workspace(
            workspace_address=grpc_addresses["workspace"],
            ingest_address=grpc_addresses["ingest"],
            service_token=settings.service_token.get_secret_value(),
            keys_path=keys_path,
        )
        yield Platform(
            ingest_http=f"http://{HOST}:{ports.ingest_http}",
            console_http=f"http://{HOST}:{ports.console_http}",
            grpc=grpc_addresses,
            **keys._asdict(),
            data_dir=folder.path,
            keys_path=keys_path,
            supervisor=supervisor,
        )
    finally:
        await _stop(supervisor, settings.drain_seconds + _KILL_MARGIN_S)


async def _stop(supervisor: Supervisor, drain_s: float) -> None:
    try:
        await supervisor.stop(SERVICES, drain_s)
    finally:
        await supervisor.stop(_STORES, _STORES_STOP_S)


def store_parts(stores: EmbeddedStores) -> Sequence[Part]:
    """The stores as parts for the supervisor."""

    async def mongod_ready() -> bool:
        return await asyncio.to_thread(stores.mongod_serves)

    async def redis_ready() -> bool:
        return await asyncio.to_thread(stores.redis_serves)

    return [
        Part("redis-server", stores.spawn_redis, redis_ready),
        Part("mongod", stores.spawn_mongod, mongod_ready),
    ]


def _settings(kind: type[ServiceSettings], environment: Mapping[str, str]) -> ServiceSettings:
    """A service's settings as it will read them: what is wrong with them is found before anything is started."""
    fields = {name: environment.get(f"{SETTINGS_PREFIX}{name.upper()}") for name in kind.model_fields}
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    return kind(**given)


async def _make_indexes(settings: ServiceSettings) -> None:
    from headrace.storage.mongo.indexes import make_indexes

    client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver)
    try:
        await make_indexes(client[settings.mongo_database])
    finally:
        await mongo.close(client)
