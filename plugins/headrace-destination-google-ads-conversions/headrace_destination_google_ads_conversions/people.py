"""User identifiers, hashed as Google compares them.

https://developers.google.com/google-ads/api/reference/rpc/latest/UserIdentifier and
https://developers.google.com/data-manager/api/devguides/concepts/formatting
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.values import Rule, Unusable

MOST_IDENTIFIERS = 5
"""Of a conversion or an enhancement, says the reference."""
_SOURCE = {"userIdentifierSource": "FIRST_PARTY"}

_RULES = {
    "email": Rule(values.email_google),
    "phone": Rule(values.phone_e164),
    "caller_id": Rule(values.phone_e164, hashed=False),
    "first_name": Rule(values.lower),
    "last_name": Rule(values.lower),
    "street": Rule(values.lower),
    "city": Rule(values.words, hashed=False),
    "state": Rule(values.words, hashed=False),
    "zip": Rule(values.text(100), hashed=False),
    "country": Rule(values.country_upper, hashed=False),
}
_ADDRESS = {
    "first_name": "hashedFirstName",
    "last_name": "hashedLastName",
    "street": "hashedStreetAddress",
    "city": "city",
    "state": "state",
    "country": "countryCode",
    "zip": "postalCode",
}
_WHOLE = frozenset({"hashedFirstName", "hashedLastName", "countryCode", "postalCode"})
"""What an address must have, as Google's own sample has it (upload_enhanced_conversions_for_web)."""


def normalise(field: str, value: str) -> Normalised:
    """A field's value in Google's form, and as it is sent.

    Raises:
        RecordRejected: Google cannot use the value.
    """
    rule = _RULES.get(field)
    if rule is None:
        return Normalised(normalised=value.strip(), sent=value.strip())
    try:
        clean, sent = rule.apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=clean, sent=sent)


def identifiers(fields: Mapping[str, Any], *, with_address: bool) -> list[dict[str, Any]]:
    """The user identifiers of a person, at most five.

    Args:
        fields: The connector's fields.
        with_address: True for enhancements; clicks take e-mail and phone alone.
    """
    found: list[dict[str, Any]] = []
    address = {sent_as: one for name, sent_as in _ADDRESS.items() for one in sent(name, fields)[:1]}
    if with_address and address.keys() >= _WHOLE:
        found.append({**_SOURCE, "addressInfo": address})
    contacts = [{**_SOURCE, "hashedEmail": one} for one in sent("email", fields)]
    contacts += [{**_SOURCE, "hashedPhoneNumber": one} for one in sent("phone", fields)]
    return [*contacts[: MOST_IDENTIFIERS - len(found)], *found]


def sent(name: str, fields: Mapping[str, Any]) -> list[str]:
    """Usable values of a field as they are sent; the others find nobody and are left out."""
    given = fields.get(name)
    found = []
    for value in given if isinstance(given, list) else [given]:
        if isinstance(value, str):
            try:
                found.append(normalise(name, value).sent)
            except RecordRejected:
                continue
    return list(dict.fromkeys(found))
