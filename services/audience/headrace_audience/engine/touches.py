"""How an event reached a person: campaign, device, browser, operating system, platform and country, by its context.

========  ==============================================================================================================
campaign  `context.campaign` (source, medium, name, term, content, id), else the `utm_...` of `context.page`
device    "mobile", "tablet", "desktop", "tv" or "bot"; see `engine.agents`
browser   "Chrome", "Chrome Mobile", "Mobile Safari", "Firefox", "Edge"
os        "iOS", "Android", "Windows", "Mac OS X", "Linux"
platform  "ios" or "android" for apps, "web" for browsers
country   `context.location.country`, else that of the zone `context.timezone`, by IANA's table; ISO 3166 in two letters
========  ==============================================================================================================

Ingest sets `context.location.country` by the IP address, where it has a table and the sender says no country. A
campaign is written as a whole: one without a term has none, whatever the campaign before it had.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.predicates import decode_object
from headrace_audience.engine.agents import technology_in
from headrace_audience.language.definition import CAMPAIGN_PARTS

DEVICES = ("mobile", "tablet", "desktop", "tv", "bot")
PLATFORMS = ("ios", "android", "web")
"""All kinds of devices and platforms that there are."""

PARTS = ("campaign", "page", "userAgent", "userAgentData", "device", "os", "location", "timezone")
"""Keys of a context that tell it."""

RULES = "1"
"""Counts the changes of the rules in this module and in `engine.agents`."""


def _rules() -> str:
    """A short text that changes with the rules, and with the tables that they look things up in."""
    tables = (version(name) for name in ("ua-parser", "ua-parser-builtins", "crawler-user-agents", "tzdata"))
    return hashlib.blake2b("/".join([RULES, *tables]).encode(), digest_size=4).hexdigest()


TOUCH_RULES = _rules()
"""What is derived by other rules or tables than these is derived again: states of touches, and the archive's column."""

_says_something = re.compile(b'utm_|"(?:%s)"' % "|".join(part for part in PARTS if part != "page").encode()).search
_UTM = {"utm_campaign": "name", **{f"utm_{part}": part for part in CAMPAIGN_PARTS if part != "name"}}
_MOST = 1_000
"""Longer addresses are looked at so far."""


class _Parts(msgspec.Struct):
    """The parts of a context; what else is in it is passed over."""

    campaign: Any = None
    page: Any = None
    userAgent: Any = None  # noqa: N815  # the keys in the JSON
    userAgentData: Any = None  # noqa: N815
    device: Any = None
    os: Any = None
    location: Any = None
    timezone: Any = None


_decode = msgspec.json.Decoder(_Parts).decode


def touch_of(event: Event) -> dict[str, Any]:
    """What an event says, by the names in TOUCHES; empty when it says nothing."""
    parts = touch_parts(event)
    return touch_in(parts) if parts else {}


def touch_parts(event: Event) -> dict[str, Any]:
    """The parts of an event's context that touch_in() looks at, decoded."""
    context = event.context
    if not context or _says_something(context) is None:
        return {}
    try:
        found: Any = _decode(context)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        context_object = decode_object(context)
        return {part: context_object[part] for part in PARTS if context_object.get(part) is not None}
    return {part: value for part in PARTS if (value := getattr(found, part)) is not None}


def touch_json(event: Event) -> bytes:
    """What an event says as a JSON object; empty when it says nothing."""
    touch = touch_of(event)
    return msgspec.json.encode(touch) if touch else b""


def touch_in(context: Mapping[str, Any]) -> dict[str, Any]:
    """What a context says, by the names in TOUCHES."""
    found: dict[str, Any] = dict(technology_in(context))
    campaign, country = _campaign(context), _country(context)
    if campaign:
        found["campaign"] = campaign
    if country:
        found["country"] = country
    return found


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _inside(context: Mapping[str, Any], part: str, key: str) -> Any:
    value = context.get(part)
    return value.get(key) if isinstance(value, dict) else None


def _campaign(context: Mapping[str, Any]) -> dict[str, str]:
    own = context.get("campaign")
    if isinstance(own, dict):
        return {part: said for part in CAMPAIGN_PARTS if (said := _text(own.get(part)))}
    address = _text(_inside(context, "page", "search")) or _text(_inside(context, "page", "url"))
    return dict(_campaign_of(address[:_MOST])) if "utm_" in address else {}


@lru_cache(maxsize=10_000)  # a campaign's address comes with every page view that it led to
def _campaign_of(address: str) -> tuple[tuple[str, str], ...]:
    try:
        query = urlsplit(address).query
    except ValueError:  # a broken host, such as "http://[": then there is no query to read
        return ()
    said = {key.lower(): value.strip() for key, value in reversed(parse_qsl(query))}
    return tuple((part, said[key]) for key, part in _UTM.items() if said.get(key))


def _country(context: Mapping[str, Any]) -> str | None:
    said = _text(_inside(context, "location", "country"))
    if said:
        return said.upper() if len(said) == 2 else said
    return _countries().get(_text(context.get("timezone")))


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    """The country of each zone, also by its other names."""
    zones = files("tzdata").joinpath("zoneinfo")
    rows = [line.split("\t") for line in zones.joinpath("zone.tab").read_text().splitlines() if line[:1] != "#"]
    found = {row[2]: row[0] for row in rows}
    for line in zones.joinpath("tzdata.zi").read_text().splitlines():
        if line.startswith("L "):
            _, zone, other = line.split(" ")
            if zone in found:
                found.setdefault(other, found[zone])
    return found


@lru_cache(maxsize=1)
def countries() -> Mapping[str, str]:
    """The names of all countries, by their two letters (ISO 3166)."""
    table = files("tzdata").joinpath("zoneinfo", "iso3166.tab").read_text()
    return dict(line.split("\t", 1) for line in table.splitlines() if line[:1] != "#")
