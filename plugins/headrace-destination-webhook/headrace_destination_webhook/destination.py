"""The webhook destination: events as HTTP requests to any address."""

from __future__ import annotations

from headrace_destination_webhook.settings import WebhookSettings
from headrace_sdk import BatchPolicy, Capability, Destination, Idempotency, Manifest

MANIFEST = Manifest(
    name="webhook",
    title="Webhook",
    description="Sends events as JSON to an address of your own.",
    factory="headrace_destination_webhook.destination:Webhook",
    settings=WebhookSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC}),
    batch=BatchPolicy(max_items=100, max_bytes=1_000_000, max_wait_s=0.2),
    idempotency=Idempotency.KEY,
)


class Webhook(Destination[WebhookSettings]):
    """Sends events as JSON to an address of the customer's own."""

    manifest = MANIFEST
