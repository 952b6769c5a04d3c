"""Which port each part of a platform on one machine listens on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.embedded.errors import WrongOptions
from headrace.embedded.processes import require_free_port
from headrace.service import SERVICES

_GRPC = {"ingest": 11, "identity": 12, "audience": 13, "sync": 14, "console": 15}
_METRICS = 21
_MONGO = 31
_REDIS = 32
_HIGHEST_BASE = 65_535 - _REDIS


@dataclass(frozen=True)
class Ports:
    """Ports of all parts; counted from a base so that several platforms fit on one machine."""

    base: int

    def __post_init__(self) -> None:
        if not 1 <= self.base <= _HIGHEST_BASE:
            raise WrongOptions(f"--port-base {self.base} is out of range: choose 1 to {_HIGHEST_BASE}")

    @property
    def ingest_http(self) -> int:
        """Port that events are sent to over HTTP."""
        return self.base

    @property
    def console_http(self) -> int:
        """Port of the console."""
        return self.base + 1

    @property
    def grpc(self) -> Mapping[str, int]:
        """GRPC port by service."""
        return {service: self.base + offset for service, offset in _GRPC.items()}

    @property
    def metrics(self) -> Mapping[str, int]:
        """Prometheus port by service."""
        return {service: self.base + _METRICS + place for place, service in enumerate(SERVICES)}

    @property
    def mongo(self) -> int:
        """Port of MongoDB."""
        return self.base + _MONGO

    @property
    def redis(self) -> int:
        """Port of Redis."""
        return self.base + _REDIS

    def require_free(self) -> None:
        """Check that nobody listens on any of them.

        Raises:
            PortInUse: Names the first that is taken.
        """
        purposes = {
            self.ingest_http: "HTTP of ingest",
            self.console_http: "HTTP of the console",
            **{port: f"gRPC of {service}" for service, port in self.grpc.items()},
            **{port: f"metrics of {service}" for service, port in self.metrics.items()},
            self.mongo: "MongoDB",
            self.redis: "Redis",
        }
        for port, purpose in purposes.items():
            require_free_port(
                port, purpose, advice="stop the process that uses it, or choose other ports by --port-base"
            )
