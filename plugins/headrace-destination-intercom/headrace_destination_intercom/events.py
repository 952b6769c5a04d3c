"""Events as Intercom has them: a name, a second and a person.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io/data-events/createdataevent
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_destination_intercom import contacts
from headrace_sdk import EventItem, RecordRejected
from headrace_sdk.commerce import event_name

_MOST_METADATA = 20
_LONGEST_NAME = 190
_AMOUNT, _LINK = frozenset({"amount", "currency"}), frozenset({"url", "value"})


def name_of(event: EventItem, chosen: Mapping[str, str]) -> tuple[str, str]:
    """Intercom's name of an event, or why it is left out.

    Args:
        event: The event.
        chosen: The setting event_names.
    """
    if event.kind not in ("track", "page", "screen"):
        return "", f"Intercom has no {event.kind} events"
    name = event.name.strip()
    found = event_name(name or event.kind, (), chosen)
    if found == "":
        return "", "the setting event_names leaves it out"
    if found is None and event.kind != "track":
        return "", f"name {event.kind} events in the setting event_names to send them"
    found = found or name
    return (found[:_LONGEST_NAME], "") if found else ("", "has no name")


def body_of(event: EventItem, name: str, now_us: int) -> dict[str, Any]:
    """An event, of whom Intercom finds by external id, else by e-mail address.

    Raises:
        RecordRejected: Nothing is known by which Intercom could find the person.
    """
    who, problems = contacts.identifiers_of(event.fields)
    found: dict[str, Any] = {
        "event_name": name,
        "created_at": _moment_of(event, now_us) // 1_000_000,
    }
    if "external_id" in who:
        found["user_id"] = who["external_id"]
    elif "email" in who:
        found["email"] = who["email"]
    else:
        field, reason = problems[0] if problems else ("", "has neither an external id nor an e-mail address")
        raise RecordRejected(f"{field} {reason}".strip(), field)
    metadata = _metadata(event.fields.get("metadata"))
    return {**found, "metadata": metadata} if metadata else found


def _moment_of(event: EventItem, now_us: int) -> int:
    """When an event happened, in microseconds since 1970.

    Intercom knows repetitions by it, so it is the same at each try: a time that is none, or that had not come when
    Headrace received the event, gives way to that of receipt.
    """
    received_us = event.received_at_us or now_us
    return event.timestamp_us if 0 < event.timestamp_us <= received_us else received_us


def _metadata(value: Any) -> dict[str, Any]:
    given = value.items() if isinstance(value, Mapping) else ()
    return dict([(name, one) for name, one in given if _is_kept(one)][:_MOST_METADATA])


def _is_kept(value: Any) -> bool:
    """Whether Intercom has a form for a value: a scalar, an amount of money, a link."""
    if isinstance(value, Mapping):
        return set(value) in (_AMOUNT, _LINK)
    return isinstance(value, str | int | float | bool)
