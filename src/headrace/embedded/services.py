"""The five services as child processes: their settings, their commands, and whether they serve."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from headrace.embedded.errors import WrongOptions
from headrace.embedded.folder import DataFolder, Secrets
from headrace.embedded.nursery import Nursery
from headrace.embedded.ports import Ports
from headrace.embedded.processes import Process, end_leftover
from headrace.embedded.stores import EmbeddedStores
from headrace.embedded.supervisor import Part
from headrace.service import SERVICES

HOST = "127.0.0.1"
SETTINGS_PREFIX = "HEADRACE_"
ADDRESS_SETTINGS = {
    "ingest": "HEADRACE_INGEST_ADDRESS",
    "identity": "HEADRACE_IDENTITY_ADDRESS",
    "audience": "HEADRACE_AUDIENCE_ADDRESS",
    "sync": "HEADRACE_SYNC_ADDRESS",
    "console": "HEADRACE_WORKSPACE_ADDRESS",
}
"""Setting that tells the other services where a service is."""

_HTTP_PORT_SETTINGS = {"ingest": "HEADRACE_HTTP_PORT", "console": "HEADRACE_CONSOLE_HTTP_PORT"}
_PROBE_S = 1.0
_MAX_LOG_BYTES = 32 * 1024 * 1024


def fixed_settings(ports: Ports, stores: EmbeddedStores) -> dict[str, str]:
    """The settings that follow from running everything on one machine."""
    return {
        "HEADRACE_MONGO_URL": stores.mongo_url,
        "HEADRACE_REDIS_URL": stores.redis_url,
        "HEADRACE_HOST": HOST,
        **{ADDRESS_SETTINGS[service]: f"{HOST}:{port}" for service, port in ports.grpc.items()},
    }


def refuse_fixed(environment: Mapping[str, str], fixed: Mapping[str, str]) -> None:
    """Refuse variables that would be overridden.

    Raises:
        WrongOptions: Names them.
    """
    own = {*fixed, "HEADRACE_GRPC_PORT", "HEADRACE_METRICS_PORT", *_HTTP_PORT_SETTINGS.values()}
    clash = sorted(own & environment.keys())
    if clash:
        raise WrongOptions(
            f"{', '.join(clash)} cannot be set here, because all parts run on this machine: unset it, choose ports by "
            f"--port-base, or run single services by `headrace serve`"
        )


def environment_of(
    service: str,
    *,
    ports: Ports,
    fixed: Mapping[str, str],
    folder: DataFolder,
    secrets: Secrets,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of a service; what the user set wins over what is only a default here."""
    defaults = {
        "HEADRACE_SERVICE_TOKEN": secrets.service_token,
        "HEADRACE_MASTER_KEY": secrets.master_key,
        "HEADRACE_ARCHIVE_DIR": str(folder.path / "archive"),
    }
    own = {
        "HEADRACE_GRPC_PORT": str(ports.grpc[service]),
        "HEADRACE_METRICS_PORT": str(ports.metrics[service]),
    }
    http_ports = {"ingest": ports.ingest_http, "console": ports.console_http}
    if service in http_ports:
        own[_HTTP_PORT_SETTINGS[service]] = str(http_ports[service])
    return {**defaults, **environment, **fixed, **own}


def service_part(
    service: str,
    *,
    ports: Ports,
    folder: DataFolder,
    environment: Mapping[str, str],
    nursery: Nursery,
) -> Part:
    """A service as a part for the supervisor."""
    pid_path = folder.pids / f"{service}.pid"
    log_path = folder.logs / f"{service}.log"

    def spawn() -> Process:
        end_leftover(pid_path)
        if log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
        return nursery.spawn(service, environment=environment, log_path=log_path, pid_path=pid_path)

    async def is_ready() -> bool:
        if not await grpc_ready(f"{HOST}:{ports.grpc[service]}"):
            return False
        return service != "ingest" or await asyncio.to_thread(_http_ready, ports.ingest_http)

    return Part(service, spawn, is_ready)


def end_leftovers(folder: DataFolder) -> None:
    """End what an earlier run left behind: services before stores, so that none complains."""
    for name in (*SERVICES, "redis-server", "mongod"):
        end_leftover(folder.pids / f"{name}.pid")


async def grpc_ready(address: str) -> bool:
    """Whether the service at an address says that it is ready."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service="readiness"), timeout=_PROBE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


def _http_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
