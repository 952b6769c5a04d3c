"""Custom events of HubSpot, which must have been defined there.

https://developers.hubspot.com/docs/api-reference/latest/events/send-event-data/send-event-occurrence
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headrace_destination_hubspot import contacts
from headrace_sdk import EventItem, RecordRejected, iso_time
from headrace_sdk.commerce import event_name, text

MOST = 500
_MOST_PROPERTIES = 50
_LONGEST_NAME = 50


def name_of(event: EventItem, chosen: Mapping[str, str], portal_id: str) -> tuple[str, str]:
    """HubSpot's full name of an event, or why it is left out.

    Args:
        event: The event.
        chosen: The setting event_names.
        portal_id: The account, without which only chosen names are known.
    """
    if event.kind not in ("track", "page", "screen"):
        return "", f"HubSpot has no {event.kind} events"
    said = event.name.strip() or (event.kind if event.kind != "track" else "")
    if not said:
        return "", "has no name"
    found = event_name(said, (), chosen)
    if found == "":
        return "", "the setting event_names leaves it out"
    if found is None and event.kind != "track":
        return "", f"name {event.kind} events in the setting event_names to send them"
    if found is None and not portal_id:
        return "", "is not in the setting event_names, and no hub id is set"
    name = found if found is not None else re.sub(r"[^a-z0-9]+", "_", said.lower()).strip("_")[:_LONGEST_NAME]
    if not name:
        return "", "has no name that HubSpot could take"
    return name if not portal_id or re.match(r"pe[0-9]+_", name) else f"pe{portal_id}_{name}", ""


def occurrence_of(event: EventItem, name: str, now_us: int) -> dict[str, Any]:
    """An event as HubSpot has it.

    Raises:
        RecordRejected: HubSpot would not know of whom it is.
    """
    fields = event.fields
    utk = text(fields.get("utk"))
    try:
        who = {"email": contacts.email_of(fields)}
    except RecordRejected:
        if not utk:
            raise
        who = {}
    if utk:
        who["utk"] = utk
    found: dict[str, Any] = {
        "eventName": name,
        **who,
        "occurredAt": iso_time(event.timestamp_us if 0 < event.timestamp_us <= now_us else now_us),
        "uuid": text(fields.get("event_id")) or event.message_id,
    }
    properties = dict(list(contacts.texts_of(fields.get("properties")).items())[:_MOST_PROPERTIES])
    return {**found, "properties": properties} if properties else found
