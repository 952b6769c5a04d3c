"""Settings of the identity service."""

from __future__ import annotations

from pydantic import Field

from headrace.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the identity service can be told, beside what every service is told."""

    identity_lanes: int = Field(
        2, ge=1, le=64, description="Micro-batches that a replica of identity works on at a time; each has its streams."
    )
    identity_batch_events: int = Field(
        1_000, ge=1, le=10_000, description="Events in a micro-batch of identity, at most."
    )
    identity_claim_idle_seconds: float = Field(
        10.0, ge=0.1, description="After how long identity takes over what another replica left unacknowledged."
    )
    identity_reassign_events: int = Field(
        50_000,
        ge=1,
        le=1_000_000,
        description="Events that undoing a merge, a manual link or the like may concern, at most.",
    )
    deletion_wait_hours: float = Field(
        24.0, ge=0, le=8_760, description="How long the deletion of a person waits and can be cancelled, in hours."
    )
    deletion_give_up_days: float = Field(
        7.0, ge=0, description="After how long a deletion ends although somebody could not be told, in days."
    )
    deletion_seconds: float = Field(
        1.0, gt=0, description="How often identity looks for deletions that are due, in seconds."
    )
    resolved_stream_entries: int = Field(
        10_000, ge=100, description="About how many entries each stream of resolved events keeps."
    )
