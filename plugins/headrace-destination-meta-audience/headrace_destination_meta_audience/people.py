"""From a member's fields to rows of Meta's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from headrace_destination_meta_audience import normalise as n
from headrace_sdk import Field, Normalised, RecordRejected, Row
from headrace_sdk.values import Unusable, birth, sha256

FIELDS = (
    Field(
        name="email", title="E-mail", hashed=True, many=True,
        default="profile.identifiers.email || profile.traits.email",
        description="Addresses of the person; each makes a row.",
    ),
    Field(
        name="phone", title="Phone", hashed=True, many=True,
        default="profile.identifiers.phone || profile.traits.phone",
        description="Numbers of the person with country code; each makes a row.",
    ),
    Field(
        name="first_name", title="First name", hashed=True,
        default="profile.traits.first_name || profile.traits.firstName",
    ),
    Field(
        name="last_name", title="Last name", hashed=True,
        default="profile.traits.last_name || profile.traits.lastName",
    ),
    Field(name="city", title="City", hashed=True, default="profile.traits.city || profile.traits.address.city"),
    Field(
        name="state", title="State", hashed=True, default="profile.traits.state || profile.traits.address.state",
        description="In the United States the two-letter code or the name, elsewhere the name.",
    ),
    Field(
        name="zip", title="Postal code", hashed=True,
        default="profile.traits.zip || profile.traits.postal_code || profile.traits.address.postalCode",
    ),
    Field(
        name="country", title="Country", hashed=True,
        default="profile.traits.country || profile.traits.address.country",
        description="Two-letter code by ISO 3166.",
    ),
    Field(name="gender", title="Gender", hashed=True, default="profile.traits.gender"),
    Field(
        name="date_of_birth", title="Date of birth", hashed=True,
        default="profile.traits.date_of_birth || profile.traits.birthday",
        description="YYYY-MM-DD. Sent as year, month and day.",
    ),
    Field(name="doby", title="Year of birth", hashed=True, description="YYYY, where the whole date is not known."),
    Field(name="dobm", title="Month of birth", hashed=True, description="MM, where the whole date is not known."),
    Field(name="dobd", title="Day of birth", hashed=True, description="DD, where the whole date is not known."),
    Field(
        name="madid", title="Advertising id", many=True,
        description="IDFA or Android advertising ids; each makes a row. Sent in the clear, as Meta wants it.",
    ),
    Field(
        name="user_id", title="External id",
        description="Your own id of the person. Sent in the clear, as Meta wants it.",
    ),
)  # fmt: skip
_KEYS = {
    "email": n.EMAIL, "phone": n.PHONE, "first_name": n.FN, "last_name": n.LN, "city": n.CT, "state": n.ST,
    "zip": n.ZIP, "country": n.COUNTRY, "gender": n.GEN, "doby": n.DOBY, "dobm": n.DOBM, "dobd": n.DOBD,
    "madid": n.MADID, "user_id": n.EXTERN_ID,
}  # fmt: skip
FINDING = ("email", "phone", "madid", "user_id", "last_name")
"""Fields of which a person needs at least one: without any of them nothing else finds anybody."""
REMOVAL_KEYS = (
    ("email",), ("phone",), ("madid",), ("user_id",),
    ("first_name", "last_name", "zip"),
    ("first_name", "last_name", "city"),
    ("first_name", "last_name", "date_of_birth"),
)  # fmt: skip
"""Meta takes off whom it finds by any of these, whatever else was in the row that was added."""
_ALIASES = {"external_id": "user_id", "dob": "date_of_birth", "postal_code": "zip"}
_MANY = ("email", "phone", "madid")
_BIRTH = (n.DOBY, n.DOBM, n.DOBD)
_PLACES = (n.ZIP.name, n.CT.name, n.DOBY.name)
_LISTED_EMPTY = "has none of e-mail, phone, advertising id, external id, or full name with city, postal code or birth"


def normalise(field: str, value: str) -> Normalised:
    """A field's value in Meta's form and as it is sent; a date of birth as its three parts.

    Raises:
        RecordRejected: The field is not known, or Meta cannot use the value.
    """
    name = _ALIASES.get(field, field)
    try:
        if name == "date_of_birth":
            parts = birth(value)
            return Normalised(normalised="".join(parts), sent=" ".join(map(sha256, parts)))
        if name not in _KEYS:
            raise RecordRejected("is no field of this connector", field)
        normalised, sent = _KEYS[name].apply(value)
        return Normalised(normalised=normalised, sent=sent)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None


def rows_of(fields: Mapping[str, str | Sequence[str]]) -> list[Row]:
    """The rows of a person: the n-th e-mail address with the n-th number and device, each with all that is known once.

    A value that Meta cannot use is left out; the others may still find the person.

    Raises:
        RecordRejected: Nothing is left by which Meta could find the person.
    """
    problems: list[tuple[str, str]] = []
    common = _common(fields, problems)
    columns = [_sent(name, _values(fields, name), problems) for name in _MANY]
    rows = []
    for group in zip_longest(*columns) if any(columns) else [(None,) * len(_MANY)]:
        data = {_KEYS[name].name: sent for name, sent in zip(_MANY, group, strict=True) if sent} | common
        if _finds_somebody(data):
            rows.append(Row.of({key: data[key] for key in n.SCHEMA if key in data}))
    if not rows:
        field, reason = problems[0] if problems else ("", _LISTED_EMPTY)
        raise RecordRejected(f"{field} {reason}".strip(), field)
    return rows


def _common(fields: Mapping[str, str | Sequence[str]], problems: list[tuple[str, str]]) -> dict[str, str]:
    """What is known once of a person, by Meta's key."""
    found: dict[str, str] = {}
    for name, key in _KEYS.items():
        if name not in _MANY:
            for sent in _sent(name, _values(fields, name)[:1], problems):
                found[key.name] = sent
    for value in _values(fields, "date_of_birth")[:1]:
        try:
            found |= {key.name: sha256(part) for key, part in zip(_BIRTH, birth(value), strict=True)}
        except Unusable as error:
            problems.append(("date_of_birth", str(error)))
    if found.get(n.COUNTRY.name) == sha256("us"):
        for name, key, rule in (("state", n.ST, n.US_STATE), ("zip", n.ZIP, n.US_ZIP)):
            if key.name in found:
                found[key.name] = rule.apply(_values(fields, name)[0])[1]
    return found


def _sent(name: str, values: Sequence[str], problems: list[tuple[str, str]]) -> list[str]:
    """Usable values of a field as they are sent, sorted, so that their order in the profile does not matter."""
    found = set()
    for value in values:
        try:
            found.add(_KEYS[name].apply(value)[1])
        except Unusable as error:
            problems.append((name, str(error)))
    return sorted(found)


def _values(fields: Mapping[str, str | Sequence[str]], name: str) -> Sequence[str]:
    value = fields.get(name, ())
    return (value,) if isinstance(value, str) else value


def _finds_somebody(data: Mapping[str, str]) -> bool:
    if any(key.name in data for key in (n.EMAIL, n.PHONE, n.MADID, n.EXTERN_ID)):
        return True
    return n.FN.name in data and n.LN.name in data and any(place in data for place in _PLACES)
