"""Settings that all services share, read from HEADRACE_* environment variables.

Each service's own settings.py derives from ServiceSettings. A variable that starts with HEADRACE_ and
that no service knows is an error: a misspelt setting must not pass silently.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What every service needs to find the stores, the other services and its own ports."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore", frozen=True)

    mongo_url: str = Field(
        "mongodb://127.0.0.1:8111/?replicaSet=headrace", description="MongoDB replica set or cluster."
    )
    mongo_database: str = Field("headrace", description="Database of all collections.")
    mongo_driver: Literal["pymongo", "motor"] = Field("pymongo", description="MongoDB driver.")
    redis_url: str = Field("redis://127.0.0.1:8112/0", description="Redis 6.2 or newer.")
    host: str = Field("127.0.0.1", description="Address that the service listens on.")
    grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 takes a free one.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus port; 0 takes a free one.")
    ingest_address: str = Field("127.0.0.1:8091", description="gRPC address of ingest.")
    identity_address: str = Field("127.0.0.1:8092", description="gRPC address of identity.")
    audience_address: str = Field("127.0.0.1:8093", description="gRPC address of audience.")
    sync_address: str = Field("127.0.0.1:8094", description="gRPC address of sync.")
    workspace_address: str = Field("127.0.0.1:8095", description="gRPC address of console (WorkspaceService).")
    service_token: SecretStr = Field(
        description="Secret that services show each other; at least 32 characters.", min_length=32
    )
    master_key: SecretStr = Field(description="Key that seals secrets at rest: 32 bytes in base64.")
    partitions: int = Field(
        64, ge=1, le=1024, description="Partitions of profiles; the same everywhere, never changed."
    )
    event_partitions: int = Field(8, ge=1, le=1024, description="Partitions of the events stream; the same everywhere.")
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of new traces that are sampled, when an OTLP endpoint is set."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line that is written."
    )
    drain_seconds: float = Field(10.0, ge=0, description="How long calls in progress may take after SIGTERM.")
