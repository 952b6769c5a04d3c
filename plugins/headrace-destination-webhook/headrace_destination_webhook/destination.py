"""The webhook destination: events as HTTP requests to an address of the customer's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace_destination_webhook.settings import WebhookSettings, signing_key
from headrace_destination_webhook.template import Template, TemplateError
from headrace_sdk import (
    AuthError,
    BatchPolicy,
    Built,
    Capability,
    ConfigError,
    DeleteBatch,
    Delivered,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Manifest,
    Outcomes,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    Skip,
    TransientError,
)

MANIFEST = Manifest(
    name="webhook",
    title="Webhook",
    description="Sends events as JSON to an address of your own, signed if you like.",
    factory="headrace_destination_webhook.destination:Webhook",
    settings=WebhookSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.DELETION}),
    batch=BatchPolicy(max_items=100, max_bytes=1_000_000, max_wait_s=0.2),
    concurrency=16,
    idempotency=Idempotency.KEY,
)
_TRY_AGAIN = frozenset({408, 423, 425})
_LONGEST_HEADER_ID = 100


class Webhook(Destination[WebhookSettings]):
    """Sends events as JSON to an address of the customer's own.

    Each request carries `Idempotency-Key` and `webhook-id`: the message id of a lone event, a digest of the message ids
    of several. The receiver drops what it has seen; a request that is tried again has the same ids.
    """

    manifest = MANIFEST

    def __init__(self, settings: WebhookSettings) -> None:
        """Compile the template and the key."""
        super().__init__(settings)
        self._template = Template(settings.body) if settings.body is not None else None
        secret = settings.signing_secret
        self._key = signing_key(secret.get_secret_value()) if secret is not None else None

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Requests of up to `batch_size` events each."""
        ready: list[tuple[int, EventItem, Any]] = []
        for place, event in enumerate(batch.events):
            try:
                ready.append((place, event, self._body_of(event)))
            except TemplateError as error:
                yield Skip(item=place, reason=str(error), field="body")
        size = self.settings.batch_size
        for start in range(0, len(ready), size):
            part = ready[start : start + size]
            bodies = [body for _, _, body in part]
            yield self._request(
                items=tuple(place for place, _, _ in part),
                identity=_identity([event.message_id for _, event, _ in part]),
                body=msgspec.json.encode(bodies[0] if size == 1 else bodies),
                now_us=batch.now_us,
            )

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A request per person, of type delete: never by the template, which is made for events."""
        for place, subject in enumerate(batch.subjects):
            if not self.settings.deletions:
                yield Skip(item=place, reason="the destination's setting deletions is off", field="deletions")
                continue
            identity = f"delete_{hashlib.sha256(subject.profile_id.encode()).hexdigest()[:40]}"
            profile = {
                "id": subject.profile_id,
                "merged_ids": subject.merged_ids,
                "identifiers": subject.identifiers,
            }
            document = {"type": "delete", "message_id": identity, "profile": profile}
            yield self._request(
                items=(place,), identity=identity, body=msgspec.json.encode(document), now_us=batch.now_us
            )

    def read(self, request: Request, response: Response) -> Outcomes:
        """2xx is delivered; what may pass is tried again; refused credentials and redirects pause the destination."""
        status = response.status
        if 200 <= status < 300:
            return Outcomes.every(request, Delivered())
        after_s = response.retry_after_s()
        if status == 429:
            raise RateLimited("the receiver asks for fewer requests (429)", after_s)
        if status in _TRY_AGAIN or status >= 500:
            raise TransientError(f"the receiver answered {status}", after_s)
        if status in (401, 403, 407):
            raise AuthError(f"the receiver refuses the credentials ({status}): check the headers and the secret")
        if 300 <= status < 400:
            raise ConfigError(f"the address answers with a redirect ({status}): set the address it leads to", "url")
        raise RecordRejected(f"the receiver refused the request ({status})")

    def _body_of(self, event: EventItem) -> Any:
        document = {"event": event.document(), "profile": event.profile.document() if event.profile else None}
        if self._template is not None:
            return self._template.render(document)
        whole = {**event.document(), "profile": document["profile"]}
        return {**whole, "fields": event.fields} if event.fields else whole

    def _request(self, *, items: tuple[int, ...], identity: str, body: bytes, now_us: int) -> Request:
        settings = self.settings
        headers = {"Content-Type": settings.content_type, **settings.headers}
        headers |= {name: value.get_secret_value() for name, value in settings.secret_headers.items()}
        headers |= {"Idempotency-Key": identity, "webhook-id": identity}
        timestamp = str(now_us // 1_000_000)
        headers["webhook-timestamp"] = timestamp
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, identity, timestamp, body)
        return Request(method=settings.method, url=settings.url, headers=headers, body=body, items=items)


def sign(key: bytes, identity: str, timestamp: str, body: bytes) -> str:
    """The value of webhook-signature by Standard Webhooks: version 1, HMAC-SHA256 in Base64."""
    digest = hmac.digest(key, b".".join((identity.encode(), timestamp.encode(), body)), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _identity(message_ids: Sequence[str]) -> str:
    """The id of a request: equal for equal messages, and fit for a header."""
    if len(message_ids) == 1:
        only = message_ids[0]
        if 0 < len(only) <= _LONGEST_HEADER_ID and only.isascii() and only.isprintable() and only == only.strip():
            return only
    digest = hashlib.sha256(msgspec.json.encode(list(message_ids)))
    return f"batch_{digest.hexdigest()[:40]}" if len(message_ids) > 1 else f"msg_{digest.hexdigest()[:40]}"
