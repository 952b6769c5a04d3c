"""The Meta offline conversions destination: sends events of stores and CRMs to a dataset."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any

from headrace_destination_meta_conversions import answers
from headrace_destination_meta_conversions.settings import VERSION_ENDS

from headrace_destination_meta_offline import events, people
from headrace_destination_meta_offline.fields import FIELDS, FINDING
from headrace_destination_meta_offline.settings import MetaOfflineSettings
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
    Outcomes,
    RecordRejected,
    Request,
    Response,
    Skip,
    Sources,
)

MAX_EVENTS = 1_000
"""https://developers.facebook.com/documentation/ads-commerce/conversions-api/using-the-api#batch-requests"""

MANIFEST = Manifest(
    name="meta-offline",
    title="Meta offline conversions",
    description="Sends conversions of stores and CRMs to a dataset at Meta. Identifiers of people are sent as SHA-256.",
    factory="headrace_destination_meta_offline.destination:MetaOffline",
    settings=MetaOfflineSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_EVENTS, max_bytes=8_000_000, max_wait_s=2.0),
    concurrency=4,
    timeout_s=30.0,
    idempotency=Idempotency.KEY,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(FINDING,),
    events=events.STANDARD,
    sources=Sources.OFFLINE,
)


class MetaOffline(Destination[MetaOfflineSettings]):
    """Sends conversions of stores and CRMs to a dataset at Meta."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """POST to the dataset's events, up to 1,000 each."""
        places: list[int] = []
        data: list[dict[str, Any]] = []
        for place, event in enumerate(batch.events):
            try:
                data.append(events.make(event, self.settings, batch.now_us))
            except RecordRejected as refused:
                yield Skip(item=place, reason=refused.reason, field=refused.field)
                continue
            places.append(place)
        for start in range(0, len(places), MAX_EVENTS):
            yield self._events(places[start : start + MAX_EVENTS], data[start : start + MAX_EVENTS])

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Meta's answer means, see `answers`."""
        return answers.read(request, response, "dataset")

    def check(self) -> Iterable[Check]:
        """Whether the dataset is there and takes offline events: a read changes nothing."""
        proof = self._proof()
        url = self._url("?fields=id,name,is_consolidated_container") + (f"&appsecret_proof={proof}" if proof else "")
        request = Request(method="GET", url=url, items=(), secrets=(proof,) if proof else ())
        yield Check(title="May use the dataset", request=request)

    def read_check(self, check: Check, response: Response) -> str:
        """What Meta says of the dataset."""
        answer = response.json_object()
        error = answer.get("error")
        try:
            if isinstance(error, dict) or not 200 <= response.status < 300:
                answers.raise_error(error if isinstance(error, dict) else {}, response, "dataset")
        except ConnectorError as problem:
            return problem.reason
        if answer.get("is_consolidated_container") is False:
            return "Meta says that this is no dataset for offline events: make one of it in Events Manager."
        return ""

    def normalise(self, field: str, value: str) -> Normalised:
        """The value of a person's field as Meta compares it, and its SHA-256."""
        return people.normalise(field, value, hash_user_id=self.settings.hash_user_id)

    def _events(self, places: Sequence[int], data: Sequence[dict[str, Any]]) -> Request:
        body: dict[str, Any] = {"data": data}
        if self.settings.test_event_code:
            body["test_event_code"] = self.settings.test_event_code
        if self.settings.upload_tag:
            body["upload_tag"] = self.settings.upload_tag
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
        return f"{settings.base_url}/{settings.api_version}/{settings.dataset_id}{rest}"

    def _proof(self) -> str:
        """HMAC of the token with the app's secret; empty without one.

        https://developers.facebook.com/docs/graph-api/guides/secure-requests
        """
        settings = self.settings
        if settings.app_secret is None:
            return ""
        key, token = settings.app_secret.get_secret_value(), settings.access_token.get_secret_value()
        return hmac.new(key.encode(), token.encode(), hashlib.sha256).hexdigest()
