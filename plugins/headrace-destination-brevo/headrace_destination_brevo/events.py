"""Events as /events/batch takes them.

https://developers.brevo.com/reference/create-batch-events
https://developers.brevo.com/docs/event-endpoints
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace_destination_brevo import contacts
from headrace_destination_brevo.settings import BrevoSettings
from headrace_sdk import EventItem, iso_time
from headrace_sdk.commerce import event_name, text

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 255
_LARGEST = 50_000
"""Bytes of an event's properties."""


def event_of(event: EventItem, settings: BrevoSettings, now_us: int) -> tuple[dict[str, Any], str]:
    """An event, or the reason why it is left out."""
    name, reason = _name_of(event, settings)
    if reason:
        return {}, reason
    fields = event.fields
    known = {
        "email_id": contacts.usable(contacts.EMAIL, fields.get("email")),
        "ext_id": text(fields.get("user_id")) if settings.uses_ext_id else "",
        "phone_id": contacts.usable(contacts.PHONE, fields.get("phone")),
    }
    if known["email_id"] or known["ext_id"]:
        known["phone_id"] = ""  # a number is found last: several contacts may have had it
    identifiers = {key: value for key, value in known.items() if value}
    if not identifiers:
        return {}, "has no e-mail address, user id or phone number by which Brevo finds contacts"
    made: dict[str, Any] = {
        "event_name": name,
        "event_date": iso_time(moment_us_of(event, now_us)),
        "identifiers": identifiers,
    }
    properties = _properties_of(event)
    if len(json.dumps(properties, ensure_ascii=False).encode("utf-8", "replace")) > _LARGEST:
        return {}, "has properties of more than 50 KB"
    if properties:
        made["event_properties"] = properties
    given = fields.get("contact_properties")
    if isinstance(given, Mapping):
        own = {key: value for key, value in given.items() if isinstance(value, str | int | float | bool)}
        if own:
            made["contact_properties"] = own
    return made, ""


def moment_us_of(event: EventItem, now_us: int) -> int:
    """When an event happened. A sender's clock that is ahead is set back to when the event came."""
    latest = event.received_at_us if event.received_at_us > 0 else now_us
    return min(event.timestamp_us, latest) if event.timestamp_us > 0 else latest


def _name_of(event: EventItem, settings: BrevoSettings) -> tuple[str, str]:
    if event.kind not in ("track", "page", "screen"):
        return "", f"Brevo has nothing for {event.kind} events"
    name = event.name.strip()
    chosen = event_name(name, (), settings.event_names) if name else None
    if chosen == "":
        return "", "the setting event_names leaves it out"
    if chosen is None and event.kind != "track":
        chosen = settings.page_event if event.kind == "page" else settings.screen_event
        if not chosen:
            return "", f"the setting {event.kind}_event is empty"
    found = _spelled(chosen or name)
    return (found, "") if found.strip("_-") else ("", "has no name that Brevo takes")


def _properties_of(event: EventItem) -> dict[str, Any]:
    given = event.fields.get("properties")
    properties = dict(_cleaned(given)) if isinstance(given, Mapping) else {}
    if event.kind in ("page", "screen") and event.name.strip():
        properties.setdefault("name", event.name.strip())
    return properties


def _cleaned(value: Any) -> Any:
    """A value whose names are spelled as Brevo takes them, without nulls."""
    if isinstance(value, Mapping):
        pairs = ((_spelled(name), _cleaned(inner)) for name, inner in value.items() if inner is not None)
        return {name: inner for name, inner in pairs if name}
    return [_cleaned(inner) for inner in value if inner is not None] if isinstance(value, list) else value


def _spelled(name: str) -> str:
    """Letters, digits, dashes and underscores: everything else becomes an underscore."""
    return _FOREIGN.sub("_", name.strip())[:_LONGEST_NAME]
