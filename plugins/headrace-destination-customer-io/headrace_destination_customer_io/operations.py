"""What is sent of an event: an operation of the Track API v2, or an anonymous event of v1.

https://docs.customer.io/integrations/api/track/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace_destination_customer_io.settings import CustomerIoSettings
from headrace_sdk import EventItem
from headrace_sdk.commerce import event_name, text, whole

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LONGEST_ID = 150
_LONGEST_NAME = 100
_LONGEST_ATTRIBUTE_NAME = 150
_LONGEST_VALUE = 1_000
_MOST_ATTRIBUTES = 300
"""All in bytes but the last: https://docs.customer.io/integrations/api/track/"""
_ACTIONS = {"track": "event", "page": "page", "screen": "screen"}
_NAMED = ("phone", "first_name", "last_name")
_SPELLINGS = {"firstName": "first_name", "lastName": "last_name", "createdAt": "created_at"}


def first(value: Any) -> str:
    """The first text of several, or the one there is."""
    return text(value[0] if isinstance(value, list) and value else value)


def too_long(id: str) -> bool:
    """Whether Customer.io takes no id like this."""
    return len(id.encode("utf-8", "replace")) > _LONGEST_ID


def person_of(fields: Mapping[str, Any], settings: CustomerIoSettings) -> dict[str, str]:
    """The one identifier by which a person is found, or none."""
    known = {"id": first(fields.get("user_id")), "email": first(fields.get("email")).lower()}
    names = ("id", "email") if settings.identify_by == "id" else ("email", "id")
    return next(({name: known[name]} for name in names if known[name] and not too_long(known[name])), {})


def operation_of(event: EventItem, settings: CustomerIoSettings, now_us: int) -> tuple[dict[str, Any], str, list[str]]:
    """An operation of the batch, or the reason why there is none; and what is remarkable in it.

    An operation without a `type` is an anonymous event, which goes alone.

    Args:
        event: The event.
        settings: Of the destination.
        now_us: The clock, in microseconds since 1970 UTC.
    """
    fields = event.fields
    person = person_of(fields, settings)
    match event.kind:
        case "identify":
            return _identify(event, person, now_us)
        case "group":
            return _group(fields, person, settings)
        case "alias":
            return _merge(event, person)
    name, reason = _name_of(event, settings)
    if reason:
        return {}, reason, []
    common = {"id": ulid_of(event, now_us), "timestamp": moment_us_of(event, now_us) // 1_000_000}
    given = fields.get("properties")
    data = {key: value for key, value in given.items() if value is not None} if isinstance(given, Mapping) else {}
    action = _ACTIONS[event.kind]
    if person:
        operation = {"type": "person", "identifiers": person, "action": action, "name": name, **common}
        return {**operation, "attributes": data}, "", []
    anonymous = text(fields.get("anonymous_id"))
    if not anonymous or too_long(anonymous):
        return {}, "has no user id, e-mail address or anonymous id that Customer.io takes", []
    return {"anonymous_id": anonymous, "name": name, "type": action, **common, "data": data}, "", []


def moment_us_of(event: EventItem, now_us: int) -> int:
    """When an event happened. A sender's clock that is ahead is set back to when the event came."""
    latest = event.received_at_us if event.received_at_us > 0 else now_us
    return min(event.timestamp_us, latest) if event.timestamp_us > 0 else latest


def ulid_of(event: EventItem, now_us: int) -> str:
    """A ULID that is the same whenever the event is sent: its moment, and 80 bits of its id's SHA-256.

    https://github.com/ulid/spec
    """
    id = text(event.fields.get("event_id")) or event.message_id
    digest = hashlib.sha256(id.encode("utf-8", "replace")).digest()
    number = (moment_us_of(event, now_us) // 1_000) << 80 | int.from_bytes(digest[:10], "big")
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in range(25, -1, -1))


def _name_of(event: EventItem, settings: CustomerIoSettings) -> tuple[str, str]:
    name = event.name.strip()
    chosen = event_name(name, (), settings.event_names) if name else None
    if chosen == "":
        return "", "the setting event_names leaves it out"
    found = chosen or name or (text(event.fields.get("page_url")) if event.kind == "page" else "")
    if not found:
        return "", "has no name"
    # A page is named by its address where it has no name, which may be long: the beginning finds it as well.
    if event.kind == "page" and not name:
        found = found.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
    if len(found.encode("utf-8", "replace")) > _LONGEST_NAME:
        return "", f"its name is longer than {_LONGEST_NAME} bytes"
    return found, ""


def _identify(event: EventItem, person: dict[str, str], now_us: int) -> tuple[dict[str, Any], str, list[str]]:
    if not person:
        return {}, "has no user id and no e-mail address", []
    fields = event.fields
    attributes, remarks = _attributes(fields.get("traits"), own={*_NAMED, "email", "created_at", "anonymous_id"})
    for name in _NAMED:
        if value := text(fields.get(name)):
            attributes[name] = value
    if "id" in person and (email := first(fields.get("email")).lower()):
        attributes["email"] = email
    if (created := _seconds(fields.get("created_at"))) is not None:
        attributes["created_at"] = created
    if anonymous := text(fields.get("anonymous_id")):
        attributes["anonymous_id"] = anonymous
    if isinstance(fields.get("unsubscribed"), bool):
        attributes["unsubscribed"] = fields["unsubscribed"]
    if len(attributes) > _MOST_ATTRIBUTES:
        return {}, f"has more than {_MOST_ATTRIBUTES} attributes", []
    operation = {"type": "person", "identifiers": person, "action": "identify", "attributes": attributes}
    return {**operation, "timestamp": moment_us_of(event, now_us) // 1_000_000}, "", remarks


def _group(
    fields: Mapping[str, Any], person: dict[str, str], settings: CustomerIoSettings
) -> tuple[dict[str, Any], str, list[str]]:
    group = text(fields.get("group_id"))
    if not settings.object_type_id:
        return {}, "the setting object_type_id is empty: no groups are sent", []
    if not group or too_long(group):
        return {}, "has no group id that Customer.io takes", []
    attributes, remarks = _attributes(fields.get("traits"), own=set())
    if len(attributes) > _MOST_ATTRIBUTES:
        return {}, f"has more than {_MOST_ATTRIBUTES} attributes", []
    operation: dict[str, Any] = {
        "type": "object",
        "identifiers": {"object_type_id": settings.object_type_id, "object_id": group},
        "action": "identify",
        "attributes": attributes,
    }
    if person:
        operation["cio_relationships"] = [{"identifiers": person}]
    return operation, "", remarks


def _merge(event: EventItem, person: dict[str, str]) -> tuple[dict[str, Any], str, list[str]]:
    """Two people become one: the former id's person is merged into the other, for good."""
    former = event.previous_id.strip()
    secondary = {"email" if "@" in former else "id": former}
    if not person or not former or too_long(former) or secondary == person:
        return {}, "has no two ids to merge", []
    return {"type": "person", "action": "merge", "primary": person, "secondary": secondary}, "", []


def _attributes(given: Any, *, own: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Traits as attributes, without those that have a field of their own; and what is left out."""
    found: dict[str, Any] = {}
    remarks = []
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if _SPELLINGS.get(name, name) in own or value is None:
            continue
        is_long = isinstance(value, str) and len(value.encode("utf-8", "replace")) > _LONGEST_VALUE
        if is_long or len(name.encode("utf-8", "replace")) > _LONGEST_ATTRIBUTE_NAME:
            remarks.append("an attribute is left out: names have at most 150 bytes, values 1,000")
        else:
            found[name] = value
    return found, remarks[:1]


def _seconds(value: Any) -> int | None:
    """A time as whole seconds since 1970, as Customer.io takes `created_at`."""
    if (number := whole(value)) is not None:
        return number // 1_000 if number > 100_000_000_000 else number
    try:
        moment = datetime.fromisoformat(text(value))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
