"""From a member's fields to rows of TikTok's mapping: SHA-256 of e-mail addresses, phone numbers and device ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from headrace_sdk import Field, Normalised, RecordRejected, Row, Subject, values
from headrace_sdk.values import Rule, Unusable

FIELDS = (
    Field(name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron@Example.com",
          default="profile.identifiers.email || profile.traits.email",
          normalised="lower case; dots and +tag stay", description="Addresses of the person; each makes a row."),
    Field(name="phone", title="Phone", hashed=True, many=True, example="+49 171 1234567",
          default="profile.identifiers.phone || profile.traits.phone", normalised="E.164 with its plus",
          description="Numbers of the person with country code; each makes a row."),
    Field(name="idfa", title="IDFA", hashed=True, many=True, anonymous=True,
          example="AEBE52E7-03EE-455A-B3C4-E57283966239", default="profile.identifiers.idfa", normalised="lower case",
          description="Advertising ids of Apple devices; each makes a row."),
    Field(name="gaid", title="Google advertising id", hashed=True, many=True, anonymous=True,
          example="38400000-8cf0-11bd-b23e-10b96e40000d", default="profile.identifiers.gaid", normalised="lower case",
          description="Advertising ids of Android devices; each makes a row."),
)  # fmt: skip
_COLUMNS = {
    "email": ("EMAIL_SHA256", Rule(values.email)),
    "phone": ("PHONE_SHA256", Rule(values.phone_e164)),
    "idfa": ("IDFA_SHA256", Rule(values.advertising_id)),
    "gaid": ("AAID_SHA256", Rule(values.advertising_id)),
}
"""Field to TikTok's column and the rule of its values."""

SCHEMA = tuple(column for column, _ in _COLUMNS.values())
"""All columns in the order in which requests have them."""


def normalise(field: str, value: str) -> Normalised:
    """A field's value in TikTok's form and as it is sent.

    Raises:
        RecordRejected: The field is not known, or TikTok cannot use the value.
    """
    if field not in _COLUMNS:
        raise RecordRejected("is no field of this connector", field)
    try:
        normalised, sent = _COLUMNS[field][1].apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def rows_of(fields: Mapping[str, str | Sequence[str]]) -> list[Row]:
    """The rows of a person: the n-th e-mail address with the n-th number and devices.

    A value that TikTok cannot use is left out; the others may still find the person.

    Raises:
        RecordRejected: Nothing is left by which TikTok could find the person.
    """
    problems: list[tuple[str, str]] = []
    columns = [_sent(name, fields.get(name, ()), problems) for name in _COLUMNS]
    rows = [
        Row.of({column: sent for column, sent in zip(SCHEMA, group, strict=True) if sent})
        for group in zip_longest(*columns)
    ]
    if not rows:
        field, reason = problems[0] if problems else ("", "has none of e-mail address, phone number and advertising id")
        raise RecordRejected(f"{field} {reason}".strip(), field)
    return rows


def rows_of_subject(subject: Subject) -> list[dict[str, str]]:
    """A row per identifier of somebody who is to be forgotten."""
    found = []
    for name, (column, _) in _COLUMNS.items():
        found += [{column: sent} for sent in _sent(name, subject.identifiers.get(name, ()), [])]
    return found


def _sent(name: str, given: str | Sequence[str], problems: list[tuple[str, str]]) -> list[str]:
    """Usable values of a field as they are sent, sorted, so that their order in the profile does not matter."""
    found = set()
    for value in (given,) if isinstance(given, str) else given:
        try:
            found.add(_COLUMNS[name][1].apply(value)[1])
        except Unusable as error:
            problems.append((name, str(error)))
    return sorted(found)
