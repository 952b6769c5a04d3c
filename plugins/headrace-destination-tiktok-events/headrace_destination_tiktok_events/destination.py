"""The TikTok Events API destination: events of a website, an app, shops or a CRM.

https://business-api.tiktok.com/portal/docs?id=1771101276978178
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headrace_destination_tiktok_events import answers, events, people
from headrace_destination_tiktok_events.fields import FIELDS, FIND_SOMEBODY
from headrace_destination_tiktok_events.properties import properties_of
from headrace_destination_tiktok_events.settings import VERSION_ENDS, TikTokEventsSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Built,
    Capability,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Manifest,
    Normalised,
    Note,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Skip,
)
from headrace_sdk.auth import ApiKey
from headrace_sdk.commerce import text

MAX_EVENTS = 1_000
_MATCHING = frozenset({
    "email", "phone", "external_id", "ttclid", "ttp", "ip", "user_agent", "idfa", "idfv", "gaid",
})  # fmt: skip

MANIFEST = Manifest(
    name="tiktok-events",
    title="TikTok Events API",
    description="Sends events of a website, an app, shops or a CRM. Identifiers of people are sent as SHA-256.",
    factory="headrace_destination_tiktok_events.destination:TikTokEvents",
    settings=TikTokEventsSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_EVENTS, max_bytes=4_000_000, max_wait_s=1.0),
    limits=(RateLimit(count=10, per_s=1.0),),
    timeout_s=60.0,
    idempotency=Idempotency.KEY,
    auth=ApiKey(setting="access_token", header="Access-Token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(FIND_SOMEBODY,),
    events=events.STANDARD_EVENTS,
    not_deleted="All events: the Events API deletes nothing; ask TikTok for their deletion.",
)


class TikTokEvents(Destination[TikTokEventsSettings]):
    """Sends events to an event source of TikTok."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """POST of up to 1,000 events."""
        items: list[int] = []
        data: list[dict[str, Any]] = []
        for place, event in enumerate(batch.events):
            name, reason = events.name_of(event, self.settings.event_names)
            user, problems = people.user_of(event.fields, is_app=self.settings.event_source == "app")
            lead = self._lead(event.fields)
            if not reason and not _MATCHING & set(user) and "lead_id" not in lead:
                reason = problems[0] if problems else "has nothing by which TikTok could find the person"
            if reason:
                yield Skip(item=place, reason=reason)
                continue
            if problems:
                yield Note(item=place, reason=f"left out: {'; '.join(problems)}")
            made = self._event(name, event, user, lead, batch.now_us)
            yield from _missing(place, name, made)
            items.append(place)
            data.append(made)
            if len(items) == MAX_EVENTS:
                yield self._request(items, data)
                items, data = [], []
        if items:
            yield self._request(items, data)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What TikTok's answer means, see `answers`."""
        return answers.read(request, response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as TikTok compares it, and as it is sent."""
        return people.normalise(field, value)

    def _event(
        self, name: str, event: EventItem, user: Mapping[str, Any], lead: Mapping[str, str], now_us: int
    ) -> dict[str, Any]:
        fields = event.fields
        # A sender's clock that is ahead is set back: an event cannot be later than its sending.
        moment_us = min(event.timestamp_us, now_us) if event.timestamp_us > 0 else now_us
        found: dict[str, Any] = {
            "event": name,
            "event_time": moment_us // 1_000_000,
            "event_id": text(fields.get("event_id")) or event.message_id,
            "user": dict(user),
        }
        if properties := properties_of(name, fields):
            found["properties"] = properties
        source = self.settings.event_source
        if source == "web" and (page := _texts(fields, {"page_url": "url", "page_referrer": "referrer"})):
            found["page"] = page
        if source == "app":
            names = {"app_id": "app_id", "app_name": "app_name", "app_version": "app_version"}
            if app := _texts(fields, names):
                found["app"] = app
            if isinstance(fields.get("ad"), Mapping) and fields["ad"]:
                found["ad"] = fields["ad"]
        if lead:
            found["lead"] = dict(lead)
        if fields.get("limited_data_use") is True or self.settings.limited_data_use:
            found["limited_data_use"] = True
        return found

    def _lead(self, fields: Mapping[str, Any]) -> dict[str, str]:
        if self.settings.event_source != "crm":
            return {}
        return _texts(fields, {"lead_id": "lead_id", "lead_event_source": "lead_event_source"})

    def _request(self, items: list[int], data: list[dict[str, Any]]) -> Request:
        settings = self.settings
        body: dict[str, Any] = {"event_source": settings.event_source, "event_source_id": settings.event_source_id}
        if settings.test_event_code:
            body["test_event_code"] = settings.test_event_code
        body |= {"partner_name": "Headrace", "data": data}
        return Request(
            method="POST",
            url=f"{settings.base_url}/open_api/{settings.api_version}/event/track/",
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=tuple(items),
        )


def _texts(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Fields that hold text, by TikTok's names."""
    return {key: found for name, key in names.items() if (found := text(fields.get(name)))}


def _missing(place: int, name: str, event: Mapping[str, Any]) -> Iterable[Note]:
    """What TikTok needs to count a purchase's value; it takes the event all the same."""
    properties = event.get("properties", {})
    if name == events.PURCHASE and not {"value", "currency"} <= set(properties):
        yield Note(item=place, reason="has no value with a currency: TikTok cannot count its worth")
    elif "value" in properties and "currency" not in properties:
        yield Note(item=place, reason="has a value without a currency")
