"""Events as /import takes them.

https://docs.mixpanel.com/reference/import-events
https://docs.mixpanel.com/docs/tracking-methods/id-management/identifying-users-simplified
https://docs.mixpanel.com/docs/data-structure/property-reference/reserved-properties
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from headrace_destination_mixpanel.settings import MixpanelSettings
from headrace_sdk import EventItem
from headrace_sdk.commerce import event_name, text
from headrace_sdk.values import sha256

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")
_NOBODY = frozenset({
    "00000000-0000-0000-0000-000000000000", "anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined",
    "unknown", "<nil>", "0", "-1", "true", "false", "[]", "{}",
})  # fmt: skip
"""What Mixpanel takes for no id of anybody."""
_FIRST_MS = 365 * 86_400_000
"""Mixpanel refuses what happened before 1971."""
_RESERVED = ("token", "bucket", "$bucket", "distinct_id", "$distinct_id", "time", "$time", "$insert_id")
_CONTEXT = {
    "$current_url": ("page", "url"),
    "$referrer": ("page", "referrer"),
    "utm_source": ("campaign", "source"),
    "utm_medium": ("campaign", "medium"),
    "utm_campaign": ("campaign", "name"),
    "utm_term": ("campaign", "term"),
    "utm_content": ("campaign", "content"),
    "$os": ("os", "name"),
    "$os_version": ("os", "version"),
    "$manufacturer": ("device", "manufacturer"),
    "$model": ("device", "model"),
    "$screen_width": ("screen", "width"),
    "$screen_height": ("screen", "height"),
    "$screen_dpi": ("screen", "density"),
    "$app_version_string": ("app", "version"),
    "$app_build_number": ("app", "build"),
    "$carrier": ("network", "carrier"),
    "$wifi": ("network", "wifi"),
    "$bluetooth_enabled": ("network", "bluetooth"),
}
"""Mixpanel's default properties, by their place in Segment's context."""


def name_of(event: EventItem, settings: MixpanelSettings) -> tuple[str, str]:
    """Mixpanel's name of an event, or "" and the reason why it is left out."""
    name = event.name.strip()
    chosen = event_name(name, (), settings.event_names) if name else None
    if chosen == "":
        return "", "the setting event_names leaves it out"
    if chosen is None and event.kind in ("page", "screen"):
        chosen = settings.page_event if event.kind == "page" else settings.screen_event
        if not chosen:
            return "", f"the setting {event.kind}_event is empty"
    return (chosen or name, "") if chosen or name else ("", "has no name")


def user_of(event: EventItem) -> tuple[str, str]:
    """User id and device id of an event; empty where there is none, or Mixpanel takes it for nobody's."""
    given = event.fields.get("user_id")
    user = text(given[0] if isinstance(given, list) and given else given)
    return _somebody(user), _somebody(text(event.fields.get("anonymous_id")))


def distinct_id_of(user: str, device: str, settings: MixpanelSettings) -> str:
    """The distinct id that Mixpanel gives to somebody: the user id, else that of the device."""
    if user or not device:
        return user
    return f"$device:{device}" if settings.id_merge == "simplified" else device


def import_of(
    event: EventItem, name: str, settings: MixpanelSettings, now_us: int
) -> tuple[dict[str, Any], str, list[str]]:
    """An event of /import, or the reason why it is left out; and what is remarkable in it.

    Args:
        event: The event.
        name: Its name at Mixpanel.
        settings: Of the destination.
        now_us: The clock, in microseconds since 1970 UTC.
    """
    fields = event.fields
    moment_ms = moment_us_of(event, now_us) // 1_000
    if moment_ms < _FIRST_MS:
        return {}, "happened before 1971, which Mixpanel refuses", []
    given = fields.get("properties")
    properties = {**given} if isinstance(given, Mapping) else {}
    if properties.get("$ignore"):
        return {}, "its property $ignore would make Mixpanel drop it unseen", []
    remarks = [f"the property {key} is Mixpanel's own" for key in _RESERVED if properties.pop(key, None) is not None]
    if event.kind in ("page", "screen") and event.name.strip():
        properties.setdefault("name", event.name.strip())
    properties |= {key: value for key, value in _context_of(fields.get("context")) if key not in properties}
    if settings.group_key and (group := text(fields.get("group_id"))):
        properties.setdefault(settings.group_key, group)
    user, device = user_of(event)
    if not user and not device:
        remarks.append("has no user id and no device id: Mixpanel counts it, but not as anybody's")
    properties |= {
        "time": moment_ms,
        "distinct_id": distinct_id_of(user, device, settings),
        "$insert_id": insert_id_of(text(fields.get("event_id")) or event.message_id),
        "ip": text(fields.get("ip")) or 0,  # 0: no place is made of the address that this comes from
    }
    if settings.id_merge == "simplified":
        properties |= {key: value for key, value in (("$user_id", user), ("$device_id", device)) if value}
    return {"event": name, "properties": properties}, "", remarks


def merge_of(event: EventItem, settings: MixpanelSettings) -> tuple[dict[str, Any], str]:
    """Two ids of a person as /import joins them, or the reason why it is left out.

    https://docs.mixpanel.com/reference/identity-merge
    """
    if settings.id_merge == "simplified":
        return {}, "Mixpanel joins no two ids in projects with the simplified identity merge"
    user, device = user_of(event)
    ids = [_somebody(event.previous_id.strip()), user or device]
    if not all(ids) or ids[0] == ids[1]:
        return {}, "has no two ids to join"
    return _merge(ids, settings), ""


def joined_of(event: EventItem, settings: MixpanelSettings) -> dict[str, Any]:
    """What joins the device of an identify event to its user; empty where Mixpanel needs no word for it.

    https://docs.mixpanel.com/reference/identity-merge
    """
    user, device = user_of(event)
    if event.kind != "identify" or settings.id_merge == "simplified" or not user or not device or user == device:
        return {}
    return _merge([device, user], settings)


def moment_us_of(event: EventItem, now_us: int) -> int:
    """When an event happened. A sender's clock that is ahead is set back to when the event came.

    The moment is a part of what Mixpanel knows duplicates by, so it depends on nothing that another try could change.
    """
    latest = event.received_at_us if event.received_at_us > 0 else now_us
    return min(event.timestamp_us, latest) if event.timestamp_us > 0 else latest


def insert_id_of(id: str) -> str:
    """An id as $insert_id takes it; where it is none, the beginning of its SHA-256, as Mixpanel advises."""
    return id if _INSERT_ID.fullmatch(id) and is_somebody(id) else sha256(id)[:36]


def _merge(ids: list[str], settings: MixpanelSettings) -> dict[str, Any]:
    return {"event": "$merge", "properties": {"$distinct_ids": ids, "token": settings.project_token}}


def is_somebody(id: str) -> bool:
    """Whether Mixpanel takes an id as one of somebody."""
    return bool(id) and id.lower() not in _NOBODY


def _somebody(id: str) -> str:
    return id if is_somebody(id) else ""


def _context_of(context: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(context, Mapping):
        return
    for key, (part, member) in _CONTEXT.items():
        inner = context.get(part)
        value = inner.get(member) if isinstance(inner, Mapping) else None
        if isinstance(value, str | int | float) and value != "":
            yield key, value
