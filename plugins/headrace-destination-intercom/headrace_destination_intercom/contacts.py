"""Contacts as Intercom has them.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io/contacts/createcontact
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace_sdk import Normalised, RecordRejected, values
from headrace_sdk.commerce import amount, text
from headrace_sdk.values import Rule, Unusable

_IDENTIFIERS = {
    "user_id": ("external_id", Rule(values.text(255), hashed=False)),
    "email": ("email", Rule(values.email, hashed=False)),
    "phone": ("phone", Rule(values.phone_e164, hashed=False)),
}
"""Field to Intercom's name and the rule of its values."""
FINDING = ("external_id", "email")
"""Of these Intercom needs one for a user."""
_KNOWN_TRAITS = frozenset({
    "email", "phone", "name", "firstname", "lastname", "avatar", "createdat", "company", "address", "consent", "userid",
})  # fmt: skip
_MOST_ATTRIBUTES = 100
_MOST_FILTERS = 15
"""https://developers.intercom.com/docs/references/rest-api/api.intercom.io/contacts/searchcontacts"""


def normalise(field: str, value: str) -> Normalised:
    """A field's value as Intercom takes it.

    Raises:
        RecordRejected: The field has no rule, or Intercom cannot use the value.
    """
    if field not in _IDENTIFIERS:
        raise RecordRejected("is no identifier of this connector", field)
    try:
        found = _IDENTIFIERS[field][1].apply(value)[1]
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=found, sent=found)


def identifiers_of(fields: Mapping[str, Any]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Intercom's identifiers by its names, and what cannot be used, each a field and why."""
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


def user_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A contact of the role user.

    Raises:
        RecordRejected: Nothing is known by which Intercom could find it.
    """
    identifiers, problems = identifiers_of(fields)
    if not set(FINDING) & set(identifiers):
        field, reason = problems[0] if problems else ("", "has neither an external id nor an e-mail address")
        raise RecordRejected(f"{field} {reason}".strip(), field)
    name = text(fields.get("name")) or " ".join(
        part for part in (text(fields.get("first_name")), text(fields.get("last_name"))) if part
    )
    found: dict[str, Any] = {"role": "user", **identifiers}
    if name:
        found["name"] = name
    if avatar := text(fields.get("avatar")):
        found["avatar"] = avatar
    if (moment := _seconds(fields.get("signed_up_at"))) is not None:
        found["signed_up_at"] = moment
    consent = text(fields.get("email_consent")).lower()
    if consent in ("granted", "denied"):
        found["unsubscribed_from_emails"] = consent == "denied"
    return found


def attributes_of(value: Any) -> dict[str, str | int | float | bool]:
    """Custom attributes: texts, numbers and booleans that have no field of their own."""
    given = value.items() if isinstance(value, Mapping) else ()
    found = {
        name: one
        for name, one in given
        if isinstance(one, str | int | float | bool) and name.replace("_", "").lower() not in _KNOWN_TRAITS
    }
    return dict(list(found.items())[:_MOST_ATTRIBUTES])


def searches(wanted: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The bodies that find contacts by any of these values, in POSTs so that none stands in a URL.

    Args:
        wanted: Values by "external_id" and "email".
    """
    filters = [
        {"field": name, "operator": "=", "value": one} for name in FINDING for one in sorted(set(wanted.get(name, ())))
    ]
    parts = [filters[start : start + _MOST_FILTERS] for start in range(0, len(filters), _MOST_FILTERS)]
    queries = [part[0] if len(part) == 1 else {"operator": "OR", "value": part} for part in parts]
    return [{"query": query, "pagination": {"per_page": 150}} for query in queries]


def _seconds(value: Any) -> int | None:
    """A time as seconds since 1970; None when it is none."""
    if (number := amount(value)) is not None:
        return int(number // 1000 if number > 10**11 else number) if number > 0 else None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
