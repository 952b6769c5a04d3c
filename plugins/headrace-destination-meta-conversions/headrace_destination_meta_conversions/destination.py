"""The Meta Conversions API destination: sends events to a pixel or dataset."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any

from headrace_destination_meta_conversions import answers, events, people
from headrace_destination_meta_conversions.fields import FIELDS, FINDING
from headrace_destination_meta_conversions.settings import VERSION_ENDS, MetaConversionsSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Bearer,
    Built,
    Capability,
    Check,
    ConnectorError,
    Destination,
    EventBatch,
    Idempotency,
    Manifest,
    Normalised,
    Note,
    Outcomes,
    RecordRejected,
    Request,
    Response,
    Skip,
)

MAX_EVENTS = 1_000
"""https://developers.facebook.com/documentation/ads-commerce/conversions-api/using-the-api#batch-requests"""

MANIFEST = Manifest(
    name="meta-conversions",
    title="Meta Conversions API",
    description="Sends events to a pixel or dataset at Meta. Identifiers of people are sent as SHA-256.",
    factory="headrace_destination_meta_conversions.destination:MetaConversions",
    settings=MetaConversionsSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_EVENTS, max_bytes=8_000_000, max_wait_s=2.0),
    concurrency=4,
    timeout_s=30.0,
    idempotency=Idempotency.KEY,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(FINDING,),
    events=events.STANDARD,
)


class MetaConversions(Destination[MetaConversionsSettings]):
    """Sends events to a pixel or dataset at Meta."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """POST to the pixel's events, up to 1,000 each."""
        places: list[int] = []
        data: list[dict[str, Any]] = []
        for place, event in enumerate(batch.events):
            try:
                made = events.make(event, self.settings, batch.now_us)
            except RecordRejected as refused:
                yield Skip(item=place, reason=refused.reason, field=refused.field)
                continue
            yield from (Note(item=place, reason=remark) for remark in made.remarks)
            places.append(place)
            data.append(made.data)
        for start in range(0, len(places), MAX_EVENTS):
            yield self._events(places[start : start + MAX_EVENTS], data[start : start + MAX_EVENTS])

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Meta's answer means, see `answers`."""
        return answers.read(request, response, "pixel")

    def check(self) -> Iterable[Check]:
        """Whether the pixel is there and may be read: a read changes nothing."""
        proof = self._proof()
        url = self._url("?fields=id,name,is_unavailable") + (f"&appsecret_proof={proof}" if proof else "")
        request = Request(method="GET", url=url, items=(), secrets=(proof,) if proof else ())
        yield Check(title="May use the pixel", request=request)

    def read_check(self, check: Check, response: Response) -> str:
        """What Meta says of the pixel."""
        answer = response.json_object()
        error = answer.get("error")
        try:
            if isinstance(error, dict) or not 200 <= response.status < 300:
                answers.raise_error(error if isinstance(error, dict) else {}, response, "pixel")
        except ConnectorError as problem:
            return problem.reason
        return "Meta says that the pixel is unavailable." if answer.get("is_unavailable") is True else ""

    def normalise(self, field: str, value: str) -> Normalised:
        """The value of a person's field as Meta compares it, and its SHA-256."""
        return people.normalise(field, value, hash_user_id=self.settings.hash_user_id)

    def _events(self, places: Sequence[int], data: Sequence[dict[str, Any]]) -> Request:
        body: dict[str, Any] = {"data": data}
        if self.settings.test_event_code:
            body["test_event_code"] = self.settings.test_event_code
        proof = self._proof()
        if proof:
            body["appsecret_proof"] = proof
        return Request(
            method="POST",
            url=self._url("/events"),
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=tuple(places),
            secrets=(proof,) if proof else (),
        )

    def _url(self, rest: str) -> str:
        settings = self.settings
        return f"{settings.base_url}/{settings.api_version}/{settings.pixel_id}{rest}"

    def _proof(self) -> str:
        """HMAC of the token with the app's secret; empty without one.

        https://developers.facebook.com/docs/graph-api/guides/secure-requests
        """
        settings = self.settings
        if settings.app_secret is None:
            return ""
        key, token = settings.app_secret.get_secret_value(), settings.access_token.get_secret_value()
        return hmac.new(key.encode(), token.encode(), hashlib.sha256).hexdigest()
