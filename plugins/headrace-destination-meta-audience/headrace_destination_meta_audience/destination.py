"""The Meta Custom Audiences destination: keeps a customer list at Meta equal to an audience."""

from __future__ import annotations

from headrace_destination_meta_audience.settings import MetaAudienceSettings
from headrace_sdk import BatchPolicy, Capability, Destination, Idempotency, Manifest

MANIFEST = Manifest(
    name="meta-audience",
    title="Meta Custom Audiences",
    description="Keeps a customer list at Meta equal to an audience.",
    factory="headrace_destination_meta_audience.destination:MetaAudience",
    settings=MetaAudienceSettings,
    capabilities=frozenset({Capability.LIST_SYNC}),
    batch=BatchPolicy(max_items=10_000, max_bytes=12_000_000, max_wait_s=5.0),
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
)


class MetaAudience(Destination[MetaAudienceSettings]):
    """Keeps a customer list at Meta equal to an audience."""

    manifest = MANIFEST
