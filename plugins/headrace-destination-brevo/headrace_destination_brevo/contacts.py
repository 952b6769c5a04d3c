"""Contacts: who they are, their attributes, members of a list.

https://developers.brevo.com/reference/create-contact
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace_destination_brevo.settings import BrevoSettings
from headrace_sdk import Normalised, RecordRejected, Row, Subject, values
from headrace_sdk.commerce import text
from headrace_sdk.values import Rule, Unusable, sha256

EMAIL = Rule(values.email, hashed=False)
PHONE = Rule(values.phone_e164, hashed=False)
_RULES = {"email": EMAIL, "phone": PHONE}


def normalise(field: str, value: str) -> Normalised:
    """A field's value in Brevo's form.

    Raises:
        RecordRejected: The field has no rule, or Brevo cannot use the value.
    """
    if field not in _RULES:
        raise RecordRejected("goes to Brevo as it is", field)
    try:
        normalised, sent = _RULES[field].apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def usable(rule: Rule, value: Any) -> str:
    """The first value that a rule takes, in Brevo's form; empty when there is none."""
    for one in value if isinstance(value, list) else [value]:
        try:
            return rule.apply(text(one))[1]
        except Unusable:
            continue
    return ""


def contact_of(fields: Mapping[str, Any], settings: BrevoSettings) -> tuple[dict[str, Any], list[str]]:
    """A contact with its attributes, and what is left out of it; without identifier when nobody can be found by it."""
    found: dict[str, Any] = {}
    email, phone = usable(EMAIL, fields.get("email")), usable(PHONE, fields.get("phone"))
    problems = [
        f"{name} cannot be used"
        for name, made in (("email", email), ("phone", phone))
        if not made and fields.get(name) not in (None, "", [])
    ]
    if email:
        found["email"] = email
    if settings.uses_ext_id and (id := text(fields.get("user_id"))):
        found["ext_id"] = id
    given = fields.get("traits")
    traits = given if isinstance(given, Mapping) else {}
    attributes: dict[str, Any] = {}
    for name, key in settings.attribute_names.items():
        value = phone if name == "phone" else fields[name] if fields.get(name) else traits.get(name)
        if (isinstance(value, str | int | float | bool) and value != "") or (
            isinstance(value, list) and value and all(isinstance(one, str) for one in value)
        ):
            attributes[key] = value
    if attributes:
        found["attributes"] = attributes
    return found, problems


def rows_of(fields: Mapping[str, str | Sequence[str]], settings: BrevoSettings) -> list[Row]:
    """A row per e-mail address of a member, with what else is known in each.

    Raises:
        RecordRejected: The member has no usable address, or the settings name no list.
    """
    if not settings.list_id:
        raise RecordRejected("the setting list_id is empty", "list_id")
    given = fields.get("email", ())
    emails = {usable(EMAIL, one) for one in ((given,) if isinstance(given, str) else given)}
    rows = []
    for email in sorted(emails - {""}):
        data, _ = contact_of({**fields, "email": email}, settings)
        if len(emails - {""}) > 1:  # an own id and a number are those of one contact alone
            data.pop("ext_id", None)
            data.get("attributes", {}).pop("SMS", None)
        rows.append(Row(key=sha256(email), data=data))
    if not rows:
        raise RecordRejected("has no usable e-mail address", "email")
    return rows


def identifiers_of(subject: Subject, settings: BrevoSettings) -> list[tuple[str, str]]:
    """All by which Brevo may know a person: kind of identifier and value."""
    emails = [usable(EMAIL, one) for one in subject.identifiers.get("email", ())]
    phones = [usable(PHONE, one) for one in subject.identifiers.get("phone", ())]
    ids = subject.identifiers.get("user_id", ()) if settings.uses_ext_id else ()
    found = [("email_id", one) for one in emails] + [("ext_id", one) for one in ids]
    return [pair for pair in dict.fromkeys([*found, *(("phone_id", one) for one in phones)]) if pair[1]]
