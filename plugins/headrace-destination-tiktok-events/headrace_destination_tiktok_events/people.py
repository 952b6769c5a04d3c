"""The person of an event, as TikTok matches people: e-mail, phone and own ids as SHA-256, the visit in the clear.

As TikTok's own tag does it, which also keeps the case of an external id: https://github.com/tiktok/gtm-template-eapi
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.commerce import text
from headrace_sdk.values import Rule, Unusable


def _without_spaces(value: str) -> str:
    found = "".join(value.split()).lower()
    if not found:
        raise Unusable("is empty")
    return found


_RULES = {
    "email": ("email", Rule(values.email)),
    "phone": ("phone", Rule(values.phone_e164)),
    "user_id": ("external_id", Rule(values.text(512))),
    "first_name": ("first_name", Rule(_without_spaces)),
    "last_name": ("last_name", Rule(_without_spaces)),
    "city": ("city", Rule(values.letters, hashed=False)),
    "state": ("state", Rule(values.letters, hashed=False)),
    "zip": ("zip_code", Rule(values.postal_code)),
    "country": ("country", Rule(values.country_lower, hashed=False)),
}
"""Field to TikTok's name and the rule of its values."""
_MANY = ("email", "phone", "user_id")
_VISIT = ("ttclid", "ttp", "ip", "user_agent", "locale")
_DEVICE = ("idfa", "idfv", "gaid", "att_status")
_NO_DEVICE = frozenset("0-")


def normalise(field: str, value: str) -> Normalised:
    """A field's value in TikTok's form and as it is sent.

    Raises:
        RecordRejected: The field has no rule, or TikTok cannot use the value.
    """
    name = "user_id" if field == "external_id" else field
    if name not in _RULES:
        raise RecordRejected("is no field of a person", field)
    try:
        normalised, sent = _RULES[name][1].apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def user_of(fields: Mapping[str, Any], *, is_app: bool) -> tuple[dict[str, Any], list[str]]:
    """The object `user`, and what cannot be used, each a field and its reason.

    Several e-mail addresses, phone numbers or ids go as a list, one as a text.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, (key, rule) in _RULES.items():
        sent: list[str] = []
        for value in _texts(fields.get(name)):
            try:
                digest = rule.apply(value)[1]
            except Unusable as error:
                problems.append(f"{name} {error}")
                continue
            if digest not in sent:
                sent.append(digest)
        if sent:
            found[key] = sent if name in _MANY and len(sent) > 1 else sent[0]
    for name in (*_VISIT, *(_DEVICE if is_app else ())):
        value = text(fields.get(name))
        if value and not (name in _DEVICE and set(value) <= _NO_DEVICE):
            found[name] = value
    if "ttclid" not in found and (click := _click_in(text(fields.get("page_url")))):
        found["ttclid"] = click
    return found, problems


def _texts(value: Any) -> list[str]:
    given = value if isinstance(value, list) else [value]
    return [found for found in map(text, given) if found]


def _click_in(url: str) -> str:
    """The click id in a page's address; empty when there is none, or the address is none."""
    try:
        return parse_qs(urlsplit(url).query).get("ttclid", [""])[0].strip()
    except ValueError:
        return ""
