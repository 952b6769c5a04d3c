"""User-provided data, hashed as Google compares it.

https://developers.google.com/analytics/devguides/collection/ga4/uid-data . The page says that the rules are those of
Google Ads; for e-mail addresses it names the dots of gmail.com alone, and Google's own library for Ads
(google-ads-datamanager-util) also takes the +tag off there: so does this connector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.values import Rule, Unusable

_DIGITS = re.compile(r"\d")


def _no_digits(value: str) -> str:
    return values.words(_DIGITS.sub("", value))


def _zip(value: str) -> str:
    code = re.sub(r"[.~]", "", value).strip()
    if not code:
        raise Unusable("is no postal code")
    return code


RULES = {
    "email": Rule(values.email_google),
    "phone": Rule(values.phone_e164),
    "first_name": Rule(_no_digits),
    "last_name": Rule(_no_digits),
    "street": Rule(values.words),
    "city": Rule(_no_digits, hashed=False),
    "state": Rule(_no_digits, hashed=False),
    "zip": Rule(_zip, hashed=False),
    "country": Rule(values.country_upper, hashed=False),
}
_ADDRESS = {
    "first_name": "sha256_first_name",
    "last_name": "sha256_last_name",
    "street": "sha256_street",
    "city": "city",
    "state": "region",
    "zip": "postal_code",
    "country": "country",
}
_MANY = {"email": "sha256_email_address", "phone": "sha256_phone_number"}


def normalise(field: str, value: str) -> Normalised:
    """A field's value in Google's form, and as it is sent.

    Raises:
        RecordRejected: Google cannot use the value.
    """
    rule = RULES.get(field)
    if rule is None:
        return Normalised(normalised=value.strip(), sent=value.strip())
    try:
        clean, sent = rule.apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=clean, sent=sent)


def user_data(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The member `user_data`; empty when nothing of the person can be used."""
    found: dict[str, Any] = {}
    for name, sent_as in _MANY.items():
        digests = list(dict.fromkeys(_sent(RULES[name].apply, fields.get(name))))
        if digests:
            found[sent_as] = digests
    address = {}
    for name, sent_as in _ADDRESS.items():
        for sent in _sent(RULES[name].apply, fields.get(name))[:1]:
            address[sent_as] = sent
    if "sha256_first_name" in address or "sha256_last_name" in address or "sha256_street" in address:
        found["address"] = [address]
    return found


def _sent(apply: Callable[[str], tuple[str, str]], given: Any) -> list[str]:
    """Usable values of a field as they are sent; the others find nobody and are left out."""
    found = []
    for value in given if isinstance(given, list) else [given]:
        if isinstance(value, str):
            try:
                found.append(apply(value)[1])
            except Unusable:
                continue
    return found
