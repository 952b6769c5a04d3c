"""The Google Analytics 4 destination: events by the Measurement Protocol.

https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from headrace_destination_google_analytics_4 import answers, events, params, people
from headrace_destination_google_analytics_4.fields import FIELDS
from headrace_destination_google_analytics_4.settings import GoogleAnalyticsSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Manifest,
    Normalised,
    Note,
    Outcomes,
    Request,
    Response,
    Skip,
)
from headrace_sdk.auth import ApiKey

OLDEST_US = 72 * 3600 * 1_000_000
_ENFORCE = "ENFORCE_RECOMMENDATIONS"
_GRANTED = {"granted": "GRANTED", "true": "GRANTED", "denied": "DENIED", "false": "DENIED"}

MANIFEST = Manifest(
    name="google-analytics-4",
    title="Google Analytics 4",
    description="Sends events to a web or app stream by the Measurement Protocol.",
    factory="headrace_destination_google_analytics_4.destination:GoogleAnalytics4",
    settings=GoogleAnalyticsSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=100, max_bytes=129_999, max_wait_s=0.5),
    concurrency=8,
    idempotency=Idempotency.NONE,
    auth=ApiKey(setting="api_secret", query="api_secret"),
    events=events.STANDARD_EVENTS,
    not_deleted="All events: the Measurement Protocol deletes nothing; ask in Google Analytics for their deletion.",
)


class GoogleAnalytics4(Destination[GoogleAnalyticsSettings]):
    """Sends events to a stream of Google Analytics."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """A request per event: a request speaks of one client, and Google says nothing about the events in it."""
        for place, event in enumerate(batch.events):
            yield from self._event(place, event, batch.now_us)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Google's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """An event that is right, to the validation server: it counts nothing, and does not look at the API secret."""
        who = {"app_instance_id": "0" * 32} if self.settings.is_app else {"client_id": "1234567890.1700000000"}
        event = {"name": "headrace_check", "params": {"engagement_time_msec": 1}}
        yield Check(
            title="Google's validation server takes an event (it does not check the API secret)",
            request=self._request(
                {**who, "validation_behavior": _ENFORCE, "events": [event]}, (), answers.VALIDATION_PATH
            ),
        )

    def read_check(self, check: Check, response: Response) -> str:
        """What the validation server says."""
        return answers.read_check(response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Google compares it, and what is sent."""
        return people.normalise(field, value)

    def _event(self, place: int, event: EventItem, now_us: int) -> Iterable[Built]:
        name, reason = events.name_of(event, self.settings.event_names, is_app=self.settings.is_app)
        if reason:
            yield Skip(item=place, reason=reason)
            return
        who = "app_instance_id" if self.settings.is_app else "client_id"
        identity = _text(event.fields.get(who))
        if not identity:
            yield Skip(item=place, reason=f"has no {who.replace('_', ' ')}", field=who)
            return
        is_late = 0 < event.timestamp_us < now_us - OLDEST_US
        if is_late and not self.settings.send_late_events:
            yield Skip(item=place, reason="is older than the 72 hours that Google Analytics takes")
            return
        remarks = params.Remarks()
        body = {who: identity, **self._envelope(event, now_us, remarks)}
        body["events"] = [self._own(name, event, remarks)]
        yield self._request(body, (place,), answers.VALIDATION_PATH if self.settings.validation_only else "/mp/collect")
        if is_late:
            yield Note(item=place, reason="is older than 72 hours: Google counts it as if it were 72 hours old")
        if sentence := remarks.sentence():
            yield Note(item=place, reason=sentence)
        for reason in _missing(name, body["events"][0]["params"]):
            yield Note(item=place, reason=reason)

    def _own(self, name: str, event: EventItem, remarks: params.Remarks) -> dict[str, Any]:
        found = params.params_of(events.known(name), event.fields, is_app=self.settings.is_app, remarks=remarks)
        return {"name": name, "params": found}

    def _envelope(self, event: EventItem, now_us: int, remarks: params.Remarks) -> dict[str, Any]:
        """What stands beside the event."""
        fields = event.fields
        found: dict[str, Any] = {}
        if user_id := _text(fields.get("user_id")):
            found["user_id"] = user_id
        if event.timestamp_us:
            # Google wants moments in the past: a sender's clock that is ahead is set back.
            found["timestamp_micros"] = min(event.timestamp_us, now_us)
        if properties := params.user_properties_of(fields.get("user_properties"), remarks):
            found["user_properties"] = properties
        consent = _consent(fields, remarks)
        if consent:
            found["consent"] = consent
        may_identify = self.settings.send_user_data and consent.get("ad_user_data") != "DENIED"
        if may_identify and (data := people.user_data(fields)):
            found["user_data"] = data
        for name in ("user_location", "device"):
            if isinstance(fields.get(name), Mapping):
                found[name] = {key: value for key, value in fields[name].items() if isinstance(value, str) and value}
        for name in ("user_agent", "ip_override"):
            if text := _text(fields.get(name)):
                found[name] = text
        if self.settings.validation_only:
            found["validation_behavior"] = _ENFORCE
        return found

    def _request(self, body: Mapping[str, Any], items: tuple[int, ...], path: str) -> Request:
        settings = self.settings
        stream = (
            ("firebase_app_id", settings.firebase_app_id)
            if settings.is_app
            else ("measurement_id", settings.measurement_id)
        )
        return Request(
            method="POST",
            url=f"{settings.base_url}{path}?{stream[0]}={quote(stream[1], safe='')}",
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=items,
        )


def _consent(fields: Mapping[str, Any], remarks: params.Remarks) -> dict[str, str]:
    found = {}
    for name in ("ad_user_data", "ad_personalization"):
        value = fields.get(name)
        if value is None or value == "":
            continue
        said = _GRANTED.get(str(value).strip().lower())
        if said:
            found[name] = said
        else:
            remarks.left_out.append(name)
    return found


def _missing(name: str, found: Mapping[str, Any]) -> Iterable[str]:
    """What Google needs for its reports and does not get; it takes the event all the same."""
    if "value" in found and "currency" not in found:
        yield "has a value without a currency: Google does not count it as revenue"
    if name in ("purchase", "refund") and "transaction_id" not in found:
        yield "has no order id: Google cannot tell it from another one"
    if name == "purchase" and "items" not in found:
        yield "has no products, which Google wants for a purchase"


def _text(value: Any) -> str:
    """A text or number as trimmed text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()
