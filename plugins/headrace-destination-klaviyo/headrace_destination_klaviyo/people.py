"""A person as a profile of Klaviyo's: identifiers and attributes in the clear.

https://developers.klaviyo.com/en/reference/profiles_api_overview
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.commerce import amount, text
from headrace_sdk.values import Rule, Unusable

LONGEST_ID = 255
_IDENTIFIERS = {
    "email": ("email", Rule(values.email, hashed=False)),
    "phone": ("phone_number", Rule(values.phone_e164, hashed=False)),
    "user_id": ("external_id", Rule(values.text(LONGEST_ID), hashed=False)),
}
"""Field to Klaviyo's name and the rule of its values."""
_TEXTS = ("first_name", "last_name", "organization", "title", "image", "locale")
_PLACES = {
    "address1": "address1", "address2": "address2", "city": "city", "state": "region", "zip": "zip",
    "country": "country", "timezone": "timezone", "ip": "ip",
}  # fmt: skip
_KNOWN_TRAITS = frozenset({
    "email", "phone", "firstname", "lastname", "organization", "company", "title", "image", "avatar", "locale",
    "address", "address1", "address2", "city", "region", "state", "zip", "postalcode", "country", "latitude",
    "longitude", "timezone", "consent",
})  # fmt: skip
_MOST_PROPERTIES = 400


def normalise(field: str, value: str) -> Normalised:
    """A field's value as Klaviyo takes it.

    Raises:
        RecordRejected: The field has no rule, or Klaviyo cannot use the value.
    """
    if field not in _IDENTIFIERS:
        raise RecordRejected("is no identifier of this connector", field)
    try:
        found = _IDENTIFIERS[field][1].apply(value)[1]
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=found, sent=found)


def identifiers_of(fields: Mapping[str, Any]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Klaviyo's identifiers by its names, and what cannot be used, each a field and why."""
    found: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for field, (name, _) in _IDENTIFIERS.items():
        if not (value := text(fields.get(field))):
            continue
        try:
            found[name] = normalise(field, value).sent
        except RecordRejected as error:
            problems.append((field, error.reason))
    return found, problems


def attributes_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a person besides identifiers and properties."""
    found: dict[str, Any] = {name: value for name in _TEXTS if (value := text(fields.get(name)))}
    location: dict[str, Any] = {name: value for field, name in _PLACES.items() if (value := text(fields.get(field)))}
    for name in ("latitude", "longitude"):
        if (degrees := amount(fields.get(name))) is not None:
            location[name] = degrees
    return {**found, "location": location} if location else found


def properties_of(value: Any) -> dict[str, Any]:
    """Properties of a profile: what has no field of its own."""
    given = value.items() if isinstance(value, Mapping) else ()
    kept = {name: one for name, one in given if one is not None and _folded(name) not in _KNOWN_TRAITS}
    return dict(list(kept.items())[:_MOST_PROPERTIES])


def _folded(name: str) -> str:
    return name.replace("_", "").lower()
