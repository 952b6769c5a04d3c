"""From a member's fields to an element of LinkedIn's segment users.

https://learn.microsoft.com/en-us/linkedin/marketing/matched-audiences/create-and-manage-segment-users
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace_sdk import Field, Normalised, RecordRejected, Row, Subject, values
from headrace_sdk.values import Rule, Unusable

FIELDS = (
    Field(name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron@Example.com",
          default="profile.identifiers.email || profile.traits.email",
          normalised="lower case; dots and +tag stay", description="All of them find one member."),
    Field(name="gaid", title="Google advertising id", many=True, anonymous=True, default="profile.identifiers.gaid",
          example="38400000-8cf0-11bd-b23e-10b96e40000d", normalised="lower case",
          description="Of Android devices. Sent in the clear, as LinkedIn wants it."),
    Field(name="first_name", title="First name", example="Ada",
          description="Such as profile.traits.first_name. Sent in the clear and only with the last name."),
    Field(name="last_name", title="Last name", example="Byron", description="Such as profile.traits.last_name."),
    Field(name="job_title", title="Job title", description="Such as profile.traits.title."),
    Field(name="company", title="Company", description="Such as profile.traits.company."),
    Field(name="country", title="Country", example="GB", normalised="two upper-case letters by ISO 3166",
          description="Such as profile.traits.country."),
)  # fmt: skip
_SHA512 = re.compile(r"[0-9a-fA-F]{128}")
_RULES = {
    "email": Rule(values.email),
    "gaid": Rule(values.advertising_id, hashed=False),
    "first_name": Rule(values.text(255), hashed=False),
    "last_name": Rule(values.text(255), hashed=False),
    "job_title": Rule(values.text(255), hashed=False),
    "company": Rule(values.text(255), hashed=False),
    "country": Rule(values.country_upper, hashed=False),
}
_INFO = {
    "first_name": "firstName",
    "last_name": "lastName",
    "job_title": "title",
    "company": "company",
    "country": "country",
}


def normalise(field: str, value: str) -> Normalised:
    """A field's value in LinkedIn's form and as it is sent; a SHA-512 of an address is passed through.

    Raises:
        RecordRejected: The field is not known, or LinkedIn cannot use the value.
    """
    if field not in _RULES:
        raise RecordRejected("is no field of this connector", field)
    try:
        normalised, sent = _apply(field, value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def rows_of(fields: Mapping[str, str | Sequence[str]]) -> list[Row]:
    """The row of a person, with all their ids. A value that LinkedIn cannot use is left out.

    Raises:
        RecordRejected: Nothing is left by which LinkedIn could find the person.
    """
    problems: list[tuple[str, str]] = []
    data: dict[str, Any] = {}
    if ids := [*_ids("email", fields.get("email", ()), problems), *_ids("gaid", fields.get("gaid", ()), problems)]:
        data["userIds"] = ids
    data |= _info(fields, problems)
    if "userIds" not in data and "firstName" not in data:
        field, reason = problems[0] if problems else ("", "has none of e-mail address, advertising id and full name")
        raise RecordRejected(f"{field} {reason}".strip(), field)
    return [Row.of(data)]


def ids_of_subject(subject: Subject) -> list[dict[str, str]]:
    """All ids of somebody who is to be forgotten."""
    known = subject.identifiers
    return [*_ids("email", known.get("email", ()), []), *_ids("gaid", known.get("gaid", ()), [])]


def _info(fields: Mapping[str, str | Sequence[str]], problems: list[tuple[str, str]]) -> dict[str, str]:
    """Name, title, company and country; no name without the other one, which LinkedIn could not use."""
    found: dict[str, str] = {}
    for name, key in _INFO.items():
        given = fields.get(name, ())
        for value in (given,) if isinstance(given, str) else given[:1]:
            try:
                found[key] = _apply(name, value)[1]
            except Unusable as error:
                problems.append((name, str(error)))
    if not {"firstName", "lastName"} <= set(found):
        found.pop("firstName", None)
        found.pop("lastName", None)
    return found


def _ids(name: str, given: str | Sequence[str], problems: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Usable ids as they are sent, sorted, so that their order in the profile does not matter."""
    found: set[str] = set()
    for value in (given,) if isinstance(given, str) else given:
        try:
            found.add(_apply(name, value)[1])
        except Unusable as error:
            problems.append((name, str(error)))
    return [{"idType": _kind(name, value), "idValue": value} for value in sorted(found)]


def _kind(name: str, value: str) -> str:
    if name == "gaid":
        return "GOOGLE_AID"
    return "SHA512_EMAIL" if _SHA512.fullmatch(value) else "SHA256_EMAIL"


def _apply(name: str, value: str) -> tuple[str, str]:
    if name == "email" and _SHA512.fullmatch(value.strip()):
        return value.strip().lower(), value.strip().lower()
    return _RULES[name].apply(value)
