"""Settings of the ingest service, beside those that all services share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from headrace.settings import ServiceSettings
from headrace_ingest.countries import read_table
from headrace_ingest.limits import Limits
from headrace_ingest.location import networks_in


class Settings(ServiceSettings):
    """What the ingest service reads from HEADRACE_* variables."""

    http_port: int = Field(8080, ge=0, le=65535, description="HTTP port of ingest; 0 takes a free one.")
    public_url: str = Field(
        "", description="URL under which browsers reach ingest, for their settings; empty: as they asked for it."
    )
    max_message_bytes: int = Field(32 * 1024, ge=1024, description="Greatest size of one message, in bytes.")
    max_batch_bytes: int = Field(
        512 * 1024, ge=1024, description="Greatest size of one request's body, unpacked, in bytes."
    )
    max_batch_messages: int = Field(2_500, ge=1, description="Most messages in one batch.")
    max_depth: int = Field(64, ge=8, le=200, description="Deepest nesting of objects and arrays in a message.")
    body_seconds: float = Field(30.0, gt=0, description="How long a client may take to send a body, in seconds.")
    commit_linger_seconds: float = Field(
        0.002, ge=0, le=1, description="How long the first event of a group commit waits for others, in seconds."
    )
    commit_max_events: int = Field(1_000, ge=1, description="Events of one group commit, about.")
    commit_parallel: int = Field(2, ge=1, description="Group commits in flight at a time.")
    commit_timeout_seconds: float = Field(
        5.0, gt=0, description="After how long a group commit without an answer is given up (503), in seconds."
    )
    queue_max_events: int = Field(
        20_000, ge=1, description="Events that may wait for a group commit; more are refused (429)."
    )
    queue_max_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Bytes of requests that may be in work; more are refused (429)."
    )
    stream_backlog: int = Field(
        1_000, ge=1, description="Segments per partition that may wait in Redis; the others wait in the log."
    )
    sweep_seconds: float = Field(
        1.0, gt=0, description="How often segments that are not on their stream are looked for, in seconds."
    )
    sweep_grace_seconds: float = Field(
        2.0, gt=0, description="Age at which a segment that is not on its stream is sent by the sweeper, in seconds."
    )
    source_cache_seconds: float = Field(
        1.0, ge=0, description="How long a replica may use an older state of a source, in seconds."
    )
    tombstone_seconds: float = Field(
        1.0, gt=0, description="How often ingest asks identity which people were deleted or suppressed, in seconds."
    )
    segment_days: float = Field(7.0, gt=0, description="How long finished segments are kept, in days.")
    raw_message_days: float = Field(
        28.0, gt=0, description="How long raw messages and refused messages are kept, in days."
    )
    rejected_body_bytes: int = Field(
        512 * 1024, ge=1024, le=8 * 1024 * 1024, description="How much of a refused body is kept, in bytes."
    )

    country_table: str = Field(
        "",
        description="File in MaxMind's DB format that gives the country of an IP address; "
        "empty: no country is looked for.",
    )
    country_table_seconds: float = Field(
        30.0, gt=0, description="How often ingest looks whether that file was replaced, in seconds."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of proxies in front of ingest, with commas between; "
        "X-Forwarded-For and X-Forwarded-Proto are believed from these only.",
    )

    @field_validator("country_table")
    @classmethod
    def _is_a_table(cls, given: str) -> str:
        """Read at once: whoever set it should be told before anything starts, not by a service that ends."""
        if given:
            read_table(Path(given))
        return given

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: str) -> str:
        networks_in(given)
        return given

    def limits(self) -> Limits:
        """What one message and one batch may be."""
        return Limits(
            message_bytes=self.max_message_bytes,
            batch_bytes=self.max_batch_bytes,
            batch_messages=self.max_batch_messages,
            depth=self.max_depth,
        )
