"""Bodies of Klaviyo's requests about profiles: single, in bulk, subscriptions, deletion.

https://developers.klaviyo.com/en/reference/create_or_update_profile
https://developers.klaviyo.com/en/reference/bulk_import_profiles
https://developers.klaviyo.com/en/reference/bulk_subscribe_profiles
https://developers.klaviyo.com/en/reference/bulk_unsubscribe_profiles
https://developers.klaviyo.com/en/reference/request_profile_deletion
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

PATH = "/api/profiles"
IMPORT_PATH = "/api/profile-import"
BULK_PATH = "/api/profile-bulk-import-jobs"
SUBSCRIBE_PATH = "/api/profile-subscription-bulk-create-jobs"
UNSUBSCRIBE_PATH = "/api/profile-subscription-bulk-delete-jobs"
DELETE_PATH = "/api/data-privacy-deletion-jobs"

MOST_FOUND = 100
"""Profiles of a page."""
_LONGEST_SEARCH = 4_000
"""Characters of identifiers in an address."""
EMAIL, SMS = "email", "sms"
_IDENTIFIER = {EMAIL: "email", SMS: "phone_number"}


def search(name: str, values: Iterable[str]) -> str:
    """The address that finds profiles by one of these values of an identifier. What else they hold is not asked for.

    https://developers.klaviyo.com/en/reference/get_profiles
    """
    wanted = quote(f"any({name},[{','.join(map(_quoted, values))}])", safe="")
    return f"{PATH}?fields%5Bprofile%5D=created&page%5Bsize%5D={MOST_FOUND}&filter={wanted}"


def parts(found: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """(place, value) pairs, as many together as an address and a page have room for."""
    part: list[tuple[int, str]] = []
    size = 0
    for place, value in found:
        length = len(quote(_quoted(value), safe=""))
        if part and (len(part) == MOST_FOUND or size + length > _LONGEST_SEARCH):
            yield part
            part, size = [], 0
        part.append((place, value))
        size += length
    if part:
        yield part


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def profile(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A profile as JSON:API has it."""
    return {"type": "profile", "attributes": dict(attributes)}


def single(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The body that makes a profile, or brings it up to date."""
    return {"data": profile(attributes)}


def bulk(profiles: Iterable[Mapping[str, Any]], list_id: str = "") -> dict[str, Any]:
    """The body that does so for many, and puts them onto a list."""
    data: dict[str, Any] = {
        "type": "profile-bulk-import-job",
        "attributes": {"profiles": {"data": [profile(one) for one in profiles]}},
    }
    if list_id:
        data["relationships"] = {"lists": {"data": [{"type": "list", "id": list_id}]}}
    return {"data": data}


def subscribed(identifiers: Mapping[str, str], channels: Sequence[str], consent: str) -> dict[str, Any]:
    """A person's subscriptions to marketing.

    Args:
        identifiers: Klaviyo's identifiers by its names.
        channels: EMAIL, SMS or both; those of which the identifier is not known are left out.
        consent: "SUBSCRIBED" or "UNSUBSCRIBED".
    """
    known = [channel for channel in channels if _IDENTIFIER[channel] in identifiers]
    return {
        **{_IDENTIFIER[channel]: identifiers[_IDENTIFIER[channel]] for channel in known},
        "subscriptions": {channel: {"marketing": {"consent": consent}} for channel in known},
    }


def reachable(identifiers: Mapping[str, str], channels: Iterable[str]) -> list[str]:
    """The channels by which Klaviyo could reach the person."""
    return [channel for channel in channels if _IDENTIFIER[channel] in identifiers]


def subscriptions(path: str, people: Iterable[Mapping[str, Any]], list_id: str) -> dict[str, Any]:
    """The body that subscribes or unsubscribes people.

    Who subscribes by a list comes onto it, by its opt-in process. Nobody is unsubscribed by list: Klaviyo would do so
    for the whole account where somebody is not on it, and for that list alone where they are.
    """
    kind = path.removeprefix("/api/").removesuffix("s")
    data: dict[str, Any] = {"type": kind, "attributes": {"profiles": {"data": [profile(one) for one in people]}}}
    if list_id and path == SUBSCRIBE_PATH:
        data["relationships"] = {"list": {"data": {"type": "list", "id": list_id}}}
    return {"data": data}


def deletion(name: str, value: str) -> dict[str, Any]:
    """The body that asks Klaviyo to forget whom it knows by an identifier: one a request.

    Args:
        name: "email", "phone_number" or "id".
        value: The identifier.
    """
    found: dict[str, Any] = {"type": "profile"}
    found |= {"id": value} if name == "id" else {"attributes": {name: value}}
    return {"data": {"type": "data-privacy-deletion-job", "attributes": {"profile": {"data": found}}}}
