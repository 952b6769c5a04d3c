"""Services alone: some `headrace serve` processes on stores of their own, without the rest of the platform."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.embedded.stores import EmbeddedStores
from headrace.settings import ServiceSettings
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.indexes import make_indexes
from tests.benchmarks.bare import free_port

DATABASE = "headrace"


@dataclass
class Alone:
    """The stores and the addresses of the services."""

    stores: EmbeddedStores
    settings: ServiceSettings
    folder: Path
    environment: Mapping[str, str]
    grpc: dict[str, str] = field(default_factory=dict)
    http_port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def serve(self, services: Sequence[str]) -> None:
        """Start services and wait until they are ready; they end with the block."""
        for service in services:
            port = free_port()
            own = {**self.environment, "HEADRACE_GRPC_PORT": str(port), "HEADRACE_METRICS_PORT": str(free_port())}
            if service == "ingest":
                self.http_port = free_port()
                own["HEADRACE_HTTP_PORT"] = str(self.http_port)
            if service == "audience":
                own["HEADRACE_ARCHIVE_DIR"] = str(self.folder / "archive")
            with (self.folder / f"{service}.log").open("wb") as log:
                self.processes[service] = subprocess.Popen(
                    [sys.executable, "-m", "headrace.cli.main", "serve", service],
                    env={**os.environ, **own}, stdout=log, stderr=log,
                )  # fmt: skip
            self.grpc[service] = f"127.0.0.1:{port}"
        for service in services:
            _wait_until_ready(self.grpc[service], self.folder / f"{service}.log")

    def stop(self) -> None:
        """End all services, the last one first."""
        for process in reversed(self.processes.values()):
            _stop(process)

    def resident_mib(self, service: str) -> float:
        """Memory of a service's process."""
        status = Path(f"/proc/{self.processes[service].pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


@contextmanager
def services_alone(
    folder: Path, services: Sequence[str], more: Mapping[str, str] | None = None, *, cache_gb: float = 0.5
) -> Iterator[Alone]:
    """Serve inside the block.

    Args:
        folder: For data and logs.
        services: Names of the services.
        more: Settings beside those that they need.
        cache_gb: Memory that MongoDB may use as cache, in GB.
    """
    with ExitStack() as stack:
        stores = EmbeddedStores(folder / "stores", cache_gb=cache_gb)
        stores.start()
        stack.callback(stores.stop)
        environment = {
            "HEADRACE_MONGO_URL": stores.mongo_url,
            "HEADRACE_MONGO_DATABASE": DATABASE,
            "HEADRACE_REDIS_URL": stores.redis_url,
            "HEADRACE_SERVICE_TOKEN": secrets.token_urlsafe(32),
            "HEADRACE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            **(more or {}),
        }
        fields = {name.removeprefix("HEADRACE_").lower(): value for name, value in environment.items()}
        shared = {name: value for name, value in fields.items() if name in ServiceSettings.model_fields}
        alone = Alone(stores, ServiceSettings.model_validate(shared), folder, environment)
        _make_indexes(stores)
        stack.callback(alone.stop)
        alone.serve(services)
        yield alone


def _make_indexes(stores: EmbeddedStores) -> None:
    async def make() -> None:
        client = mongo_client.connect(stores.mongo_url)
        await make_indexes(client[DATABASE])
        await mongo_client.close(client)

    with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop already
        pool.submit(lambda: asyncio.run(make())).result()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(address: str, log: Path) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.1)
    raise RuntimeError(f"the service did not become ready: {log.read_text()[-2000:]}")
