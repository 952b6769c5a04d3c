"""An event as Klaviyo has it: a metric, its properties and the profile.

https://developers.klaviyo.com/en/reference/create_event
https://developers.klaviyo.com/en/reference/bulk_create_events
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace_destination_klaviyo import people, profiles
from headrace_sdk import EventItem, StandardEvent, iso_time
from headrace_sdk.commerce import amount, currency, event_name, text

EVENT_PATH = "/api/events"
BULK_PATH = "/api/event-bulk-create-jobs"

STANDARD_EVENTS = (
    StandardEvent(name="Viewed Product", names=("Product Viewed",)),
    StandardEvent(name="Added to Cart", names=("Product Added",)),
    StandardEvent(name="Started Checkout", names=("Checkout Started",)),
    StandardEvent(name="Placed Order", names=("Order Completed",)),
    StandardEvent(name="Fulfilled Order", names=("Order Fulfilled", "Order Shipped")),
    StandardEvent(name="Cancelled Order", names=("Order Cancelled",)),
    StandardEvent(name="Refunded Order", names=("Order Refunded",)),
)
"""https://developers.klaviyo.com/en/docs/guide_to_integrating_a_platform_without_a_pre_built_klaviyo_integration"""

_CONSENT = (StandardEvent(name="consent", names=("trackConsent", "Segment Consent Preference Updated")),)
_LONGEST_NAME = 127
_MOST_PROPERTIES = 400
_YEAR_US = 365 * 86_400_000_000
_FIRST_US = 662_688_000_000_000  # the year 1991: Klaviyo takes what is after 1990


def is_consent(event: EventItem) -> bool:
    """Whether an event says what the person allows."""
    return event.kind == "track" and event_name(event.name, _CONSENT, {}) is not None


def metric_of(event: EventItem, chosen: Mapping[str, str]) -> tuple[str, str]:
    """The metric of an event, or why it is left out.

    Args:
        event: The event.
        chosen: The setting event_names.
    """
    if event.kind not in ("track", "page", "screen"):
        return "", f"Klaviyo has no {event.kind} events"
    name = event.name.strip()
    found = event_name(name or event.kind, STANDARD_EVENTS, chosen)
    if found == "":
        return "", "the setting event_names leaves it out"
    if found is None and event.kind in ("page", "screen"):
        kind = event.kind.capitalize()
        found = f"Viewed {name} {kind}" if name else f"Viewed {kind}"
    found = found or name
    if not found:
        return "", "has no name"
    return found[:_LONGEST_NAME], ""


def attributes_of(event: EventItem, metric: str, now_us: int) -> dict[str, Any]:
    """An event's attributes, without the profile.

    Args:
        event: The event.
        metric: Its name at Klaviyo.
        now_us: The host's clock: a moment that Klaviyo does not take becomes this one.
    """
    fields = event.fields
    given = fields.get("properties")
    properties = {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else {}
    right = _FIRST_US < event.timestamp_us < now_us + _YEAR_US
    found: dict[str, Any] = {
        "properties": dict(list(properties.items())[:_MOST_PROPERTIES]),
        "metric": {"data": {"type": "metric", "attributes": {"name": metric}}},
        "time": iso_time(event.timestamp_us if right else now_us),
        "unique_id": text(fields.get("event_id")) or event.message_id,
    }
    if (value := amount(fields.get("value"))) is not None:
        found["value"] = value
        if code := currency(fields.get("currency")):
            found["value_currency"] = code
    return found


def profile_of(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The attributes of the profile to which an event belongs, empty without an identifier, and what is not usable."""
    identifiers, problems = people.identifiers_of(fields)
    found: dict[str, Any] = dict(identifiers)
    if anonymous := text(fields.get("anonymous_id"))[: people.LONGEST_ID]:
        found["anonymous_id"] = anonymous
    return ({**found, **people.attributes_of(fields)} if found else {}), problems


def single(event: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """The body that records an event."""
    attributes = {**event, "profile": {"data": profiles.profile(profile)}}
    return {"data": {"type": "event", "attributes": attributes}}


def bulk(events: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """The body that records many, each with its profile."""
    data = [
        {
            "type": "event-bulk-create",
            "attributes": {
                "profile": {"data": profiles.profile(profile)},
                "events": {"data": [{"type": "event", "attributes": dict(event)}]},
            },
        }
        for event, profile in events
    ]
    return {"data": {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": data}}}}
