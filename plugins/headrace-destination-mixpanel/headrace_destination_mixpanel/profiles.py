"""Profiles of people and groups, as /engage and /groups take them.

https://docs.mixpanel.com/reference/profile-batch-update
https://docs.mixpanel.com/reference/group-batch-update
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_destination_mixpanel import events
from headrace_destination_mixpanel.settings import MixpanelSettings
from headrace_sdk import EventItem, RecordRejected, Row, Subject
from headrace_sdk.commerce import text
from headrace_sdk.values import sha256

_RESERVED = {
    "email": "$email", "phone": "$phone", "first_name": "$first_name", "last_name": "$last_name", "name": "$name",
    "avatar": "$avatar", "created_at": "$created",
}  # fmt: skip
"""Field to Mixpanel's name of a profile property."""
_SPELLINGS = {"firstName": "first_name", "lastName": "last_name", "createdAt": "created_at"}


def profile_of(event: EventItem, settings: MixpanelSettings) -> tuple[dict[str, Any], str]:
    """An update of a person's profile, or the reason why there is none."""
    who = events.distinct_id_of(*events.user_of(event), settings)
    if not who:
        return {}, "has no user id and no device id that Mixpanel takes"
    properties = _others(event.fields.get("traits"))
    for name, key in _RESERVED.items():
        if value := text(event.fields.get(name)):
            properties[key] = value
    if not properties:
        return {}, "has no traits to set"
    update: dict[str, Any] = {"$token": settings.project_token, "$distinct_id": who, "$set": properties}
    if ip := text(event.fields.get("ip")):
        update["$ip"] = ip
    return update, ""


def group_of(event: EventItem, settings: MixpanelSettings) -> tuple[dict[str, Any], str]:
    """An update of a group's profile, or the reason why there is none."""
    if not settings.group_key:
        return {}, "the setting group_key is empty: no groups are sent"
    group = text(event.fields.get("group_id"))
    if not group:
        return {}, "has no group id"
    given = event.fields.get("traits")
    properties = {**given} if isinstance(given, Mapping) else {}
    if name := text(properties.pop("name", None)):
        properties["$name"] = name
    return {
        "$token": settings.project_token, "$group_key": settings.group_key, "$group_id": group, "$set": properties,
    }, ""  # fmt: skip


def rows_of(fields: Mapping[str, Any], settings: MixpanelSettings) -> list[Row]:
    """A row per user id of a member.

    Raises:
        RecordRejected: The member has no user id, or the settings name no audience.
    """
    if not settings.audience:
        raise RecordRejected("the setting audience is empty: it names the audience at Mixpanel", "user_id")
    given = fields.get("user_id", ())
    ids = {one.strip() for one in ((given,) if isinstance(given, str) else given)}
    usable = sorted(one for one in ids if events.is_somebody(one))
    if not usable:
        raise RecordRejected("has no user id", "user_id")
    return [Row(key=sha256(one), data={"distinct_id": one}) for one in usable]


def membership(data: Mapping[str, Any], settings: MixpanelSettings, *, joins: bool) -> dict[str, Any]:
    """An update that puts somebody on an audience, or takes them off.

    https://docs.mixpanel.com/reference/user-profile-union
    https://docs.mixpanel.com/reference/profile-remove-from-list-property
    """
    who = {"$token": settings.project_token, "$distinct_id": data["distinct_id"], "$ignore_time": True}
    if joins:
        return {**who, "$union": {settings.audience_property: [settings.audience]}}
    return {**who, "$remove": {settings.audience_property: settings.audience}}


def deletion(distinct_id: str, settings: MixpanelSettings) -> dict[str, Any]:
    """An update that deletes a profile, which Mixpanel finds by any id that was joined to it.

    https://docs.mixpanel.com/reference/delete-profile
    """
    return {
        "$token": settings.project_token, "$distinct_id": distinct_id, "$delete": "null", "$ignore_alias": False,
    }  # fmt: skip


def ids_of(subject: Subject, settings: MixpanelSettings) -> list[str]:
    """All distinct ids by which Mixpanel may know a person."""
    users = subject.identifiers.get("user_id", ())
    devices = subject.identifiers.get("anonymous_id", ())
    found = [*users, *(events.distinct_id_of("", device, settings) for device in devices)]
    return [one for one in dict.fromkeys(found) if events.is_somebody(one)]


def _others(traits: Any) -> dict[str, Any]:
    """Traits that have no name of Mixpanel's own."""
    if not isinstance(traits, Mapping):
        return {}
    return {
        key: value
        for key, value in traits.items()
        if _SPELLINGS.get(key, key) not in _RESERVED and value is not None and not key.startswith("$")
    }
