"""Contacts as HubSpot has them, in batches of a hundred, each known by its e-mail address.

https://developers.hubspot.com/docs/api-reference/latest/crm/objects/contacts/batch/upsert-contacts
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.commerce import text
from headrace_sdk.values import Rule, Unusable

MOST = 100
_EMAIL = Rule(values.email, hashed=False)
_NAMES = {
    "first_name": "firstname", "last_name": "lastname", "phone": "phone", "company": "company", "title": "jobtitle",
    "website": "website", "address": "address", "city": "city", "state": "state", "zip": "zip", "country": "country",
}  # fmt: skip
"""Field to HubSpot's property."""
_PROPERTY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_LONGEST = 65_536


def normalise(field: str, value: str) -> Normalised:
    """A field's value as HubSpot takes it.

    Raises:
        RecordRejected: The field has no rule, or HubSpot cannot use the value.
    """
    if field != "email":
        raise RecordRejected("is not normalised", field)
    try:
        found = _EMAIL.apply(value)[1]
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=found, sent=found)


def email_of(fields: Mapping[str, Any]) -> str:
    """The address by which HubSpot knows the contact.

    Raises:
        RecordRejected: There is none.
    """
    given = text(fields.get("email"))
    if not given:
        raise RecordRejected("has no e-mail address, by which HubSpot knows contacts", "email")
    return normalise("email", given).sent


def properties_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a contact, by HubSpot's internal names; all values are text."""
    found = {name: value[:_LONGEST] for field, name in _NAMES.items() if (value := text(fields.get(field)))}
    return {**found, **texts_of(fields.get("contact_properties"))}


def texts_of(value: Any) -> dict[str, str]:
    """Properties by HubSpot's form of their names, as text; what is an object goes as JSON."""
    given = value.items() if isinstance(value, Mapping) else ()
    found: dict[str, str] = {}
    for name, one in given:
        internal = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
        if one is None or one == "" or not _PROPERTY.fullmatch(internal):
            continue
        said = one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, separators=(",", ":"))
        found[internal] = said[:_LONGEST]
    return found


Contact = tuple[int, str, Mapping[str, str]]
"""Place in the batch, e-mail address, properties."""


def parts(contacts: Sequence[Contact]) -> Iterable[list[Contact]]:
    """Contacts in parts that HubSpot takes: a hundred at most, no address twice in one."""
    rest = list(contacts)
    while rest:
        taken: dict[str, Contact] = {}
        later: list[Contact] = []
        for contact in rest:
            if contact[1] in taken or len(taken) == MOST:
                later.append(contact)
            else:
                taken[contact[1]] = contact
        yield list(taken.values())
        rest = later


def upsert(contacts: Iterable[Contact]) -> dict[str, Any]:
    """The body that makes contacts, or brings them up to date. Answers name them by the trace id: their places."""
    return {
        "inputs": [
            {
                "id": email,
                "idProperty": "email",
                "objectWriteTraceId": str(number),
                "properties": {"email": email, **properties},
            }
            for number, (_, email, properties) in enumerate(contacts)
        ]
    }


def look_up(contacts: Iterable[Contact]) -> dict[str, Any]:
    """The body that asks for HubSpot's ids of contacts, in a POST so that no address stands in a URL."""
    return {
        "idProperty": "email",
        "properties": ["email"],
        "propertiesWithHistory": [],
        "inputs": [{"id": email} for _, email, _ in contacts],
    }
