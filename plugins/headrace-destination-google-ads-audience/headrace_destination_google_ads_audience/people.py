"""From a member's fields to members of Google's list.

https://developers.google.com/data-manager/api/devguides/concepts/formatting and
https://developers.google.com/data-manager/api/reference/rest/v1/AudienceMember . Values are as Google's own library
(google-ads-datamanager-util) makes them. For names the reference also says "no punctuation", which the library leaves
in: the library decides, since its digests are those that Google publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_destination_google_ads_audience.settings import KeyType
from headrace_sdk import Field, Normalised, RecordRejected, Row, Subject, values
from headrace_sdk.values import Rule, Unusable

MOST_IDENTIFIERS = 10
"""https://developers.google.com/data-manager/api/devguides/limits"""

FIELDS = (
    Field(
        name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron+x@Gmail.com",
        default="profile.identifiers.email || profile.traits.email",
        normalised="lower case; at gmail.com and googlemail.com without dots and +tag",
        description="Lists of contact data.",
    ),
    Field(
        name="phone", title="Phone", hashed=True, many=True, example="+49 171 1234567",
        default="profile.identifiers.phone || profile.traits.phone", normalised="E.164 with its plus",
        description="Lists of contact data.",
    ),
    Field(
        name="first_name", title="First name", hashed=True, example="Ada",
        default="profile.traits.first_name || profile.traits.firstName", normalised="lower case",
        description="Lists of contact data; only together with last name, postal code and country.",
    ),
    Field(
        name="last_name", title="Last name", hashed=True, example="Byron",
        default="profile.traits.last_name || profile.traits.lastName", normalised="lower case",
        description="Lists of contact data; only together with first name, postal code and country.",
    ),
    Field(
        name="zip", title="Postal code", example="SW1Y 4JH", normalised="trimmed",
        default="profile.traits.zip || profile.traits.postal_code || profile.traits.address.postalCode",
        description="Sent in the clear, as Google wants it.",
    ),
    Field(
        name="country", title="Country", example="gb", normalised="two upper-case letters by ISO 3166",
        default="profile.traits.country || profile.traits.address.country",
        description="Sent in the clear, as Google wants it.",
    ),
    Field(
        name="user_id", title="User id", many=True, example="u-1001",
        default="profile.identifiers.user_id",
        description="Lists of user ids: the id that your tags also report. Sent in the clear, as Google wants it.",
    ),
    Field(
        name="mobile_id", title="Advertising id", many=True, anonymous=True,
        default="profile.identifiers.idfa || profile.identifiers.aaid || profile.identifiers.madid",
        example="aebe52e7-03ee-455a-b3c4-e57283966239",
        description="Lists of devices: IDFA or Android advertising ids. Sent in the clear, as Google wants it.",
    ),
    Field(
        name="ad_user_data", title="Consent: ad user data", default="profile.consents.ad_user_data",
        description="granted or denied. Who denied it is left out.", example="granted",
    ),
    Field(
        name="ad_personalization", title="Consent: ad personalisation", default="profile.consents.ad_personalization",
        description="granted or denied. Who denied it is left out.", example="granted",
    ),
)  # fmt: skip


def _device(value: str) -> str:
    """An advertising id as it was given: Google's page says nothing about its case."""
    values.advertising_id(value)
    return value


_RULES = {
    "email": Rule(values.email_google),
    "phone": Rule(values.phone_e164),
    "first_name": Rule(values.lower),
    "last_name": Rule(values.lower),
    "zip": Rule(values.text(100), hashed=False),
    "country": Rule(values.country_upper, hashed=False),
    "user_id": Rule(values.text(255), hashed=False),
    "mobile_id": Rule(_device, hashed=False),
    # Customer Match takes neither; Google's library hashes them so for other uses.
    "city": Rule(values.words),
    "state": Rule(values.words),
}
_ADDRESS = {"first_name": "givenName", "last_name": "familyName", "country": "regionCode", "zip": "postalCode"}
_CONSENTS = {"ad_user_data": "adUserData", "ad_personalization": "adPersonalization"}
_NOTHING = {
    KeyType.CONTACT: "has none of e-mail, phone, or full name with postal code and country",
    KeyType.USER_ID: "has no user id",
    KeyType.MOBILE: "has no advertising id",
}


def normalise(field: str, value: str) -> Normalised:
    """A field's value in Google's form, and as it is sent.

    Raises:
        RecordRejected: The field is not known, or Google cannot use the value.
    """
    if field in _CONSENTS:
        said = value.strip().lower()
        if said not in ("granted", "denied"):
            raise RecordRejected("is neither granted nor denied", field)
        return Normalised(normalised=said, sent=f"CONSENT_{said.upper()}")
    if field not in _RULES:
        raise RecordRejected("is no field of this connector", field)
    try:
        clean, sent = _RULES[field].apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=clean, sent=sent)


def rows_of(fields: Mapping[str, str | Sequence[str]], key_type: KeyType) -> list[Row]:
    """The members of the list for a person: one, unless Google wants more of them.

    A value that Google cannot use is left out; the others may still find the person.

    Raises:
        RecordRejected: The person denied the use of data for ads, or nothing is left that finds them.
    """
    consent = _consent(fields)
    problems: list[RecordRejected] = []
    members = _members(fields, key_type, problems)
    if not members:
        first = problems[0] if problems else RecordRejected(_NOTHING[key_type])
        raise RecordRejected(f"{first.field} {first.reason}".strip(), first.field)
    return [Row.of({**member, "consent": consent} if consent else member) for member in members]


def members_of(subject: Subject, key_type: KeyType) -> list[dict[str, Any]]:
    """Everything by which the list may hold a person who is to be forgotten."""
    fields: dict[str, Sequence[str]] = dict(subject.identifiers)
    fields["mobile_id"] = [one for name in ("idfa", "aaid", "madid") for one in subject.identifiers.get(name, ())]
    return _members(fields, key_type, [])


def _members(
    fields: Mapping[str, str | Sequence[str]], key_type: KeyType, problems: list[RecordRejected]
) -> list[dict[str, Any]]:
    if key_type is KeyType.USER_ID:
        return [{"userIdData": {"userId": one}} for one in _sent("user_id", fields, problems)]
    if key_type is KeyType.MOBILE:
        return [{"mobileData": {"mobileIds": part}} for part in _parts(_sent("mobile_id", fields, problems))]
    identifiers: list[dict[str, Any]] = [{"emailAddress": one} for one in _sent("email", fields, problems)]
    identifiers += [{"phoneNumber": one} for one in _sent("phone", fields, problems)]
    found = {sent_as: _sent(name, fields, problems)[:1] for name, sent_as in _ADDRESS.items()}
    if all(found.values()):
        identifiers.append({"address": {sent_as: one for sent_as, (one,) in found.items()}})
    return [{"userData": {"userIdentifiers": part}} for part in _parts(identifiers)]


def _parts(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """As few parts as Google's limit allows."""
    return (items[start : start + MOST_IDENTIFIERS] for start in range(0, len(items), MOST_IDENTIFIERS))


def _sent(name: str, fields: Mapping[str, str | Sequence[str]], problems: list[RecordRejected]) -> list[str]:
    """Usable values of a field as they are sent, sorted, so that their order in the profile does not matter."""
    given = fields.get(name, ())
    found = set()
    for value in (given,) if isinstance(given, str) else given:
        try:
            found.add(normalise(name, value).sent)
        except RecordRejected as error:
            problems.append(error)
    return sorted(found)


def _consent(fields: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """What the person said.

    Raises:
        RecordRejected: They denied one of both: Google refuses such people, and asks to take them off the list.
    """
    found = {}
    for name, sent_as in _CONSENTS.items():
        given = fields.get(name)
        if isinstance(given, str) and given:
            said = normalise(name, given)
            if said.normalised == "denied":
                raise RecordRejected(f"{name} is denied", name)
            found[sent_as] = said.sent
    return found
