"""The person of an event, as LinkedIn matches members.

https://learn.microsoft.com/en-us/linkedin/marketing/integrations/ads-reporting/conversions-api-schema
https://learn.microsoft.com/en-us/linkedin/marketing/conversions/custom-matching-identifiers
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.commerce import text
from headrace_sdk.values import Rule, Unusable

_EMAIL = Rule(values.email)
_COUNTRY = Rule(values.country_upper, hashed=False)
_IDS = {
    "li_fat_id": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID",
    "acxiom_id": "ACXIOM_ID",
    "oracle_moat_id": "ORACLE_MOAT_ID",
    "gaid": "GOOGLE_AID",
}
_INFO = {"first_name": "firstName", "last_name": "lastName", "job_title": "title", "company": "companyName"}
_NO_DEVICE = frozenset("0-")


def normalise(field: str, value: str) -> Normalised:
    """A field's value in LinkedIn's form and as it is sent.

    Raises:
        RecordRejected: The field has no rule, or LinkedIn cannot use the value.
    """
    rules = {"email": _EMAIL, "country": _COUNTRY}
    if field not in rules:
        raise RecordRejected("is sent as it is", field)
    try:
        normalised, sent = rules[field].apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def user_of(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The object `user`, and what cannot be used, each a field and its reason. Empty when nobody can be found by it.

    `userIds` is always there, as LinkedIn requires it even where a name or an external id finds the member.
    """
    problems: list[str] = []
    ids: list[dict[str, str]] = []
    given = fields.get("email")
    for address in given if isinstance(given, list) else [given]:
        try:
            digest = _EMAIL.apply(text(address))[1] if text(address) else ""
        except Unusable as error:
            problems.append(f"email {error}")
            continue
        found = {"idType": "SHA256_EMAIL", "idValue": digest}
        if digest and found not in ids:
            ids.append(found)
    for name, kind in _IDS.items():
        value = text(fields.get(name))
        if name == "li_fat_id" and not value:
            value = _click_in(text(fields.get("page_url")))
        if value and not set(value) <= _NO_DEVICE:
            ids.append({"idType": kind, "idValue": value})
    user: dict[str, Any] = {"userIds": ids}
    if info := _info(fields, problems):
        user["userInfo"] = info
    if own := text(fields.get("user_id")):
        user["externalIds"] = [own]
    return (user if ids or len(user) > 1 else {}), problems


def _info(fields: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    """Name, title, company and country; empty without both names, which LinkedIn requires."""
    found = {key: value for name, key in _INFO.items() if (value := text(fields.get(name)))}
    if "firstName" not in found or "lastName" not in found:
        return {}
    if country := text(fields.get("country")):
        try:
            found["countryCode"] = _COUNTRY.apply(country)[1]
        except Unusable as error:
            problems.append(f"country {error}")
    return found


def _click_in(url: str) -> str:
    """The click id in a page's address; empty when there is none, or the address is none."""
    try:
        return parse_qs(urlsplit(url).query).get("li_fat_id", [""])[0].strip()
    except ValueError:
        return ""
