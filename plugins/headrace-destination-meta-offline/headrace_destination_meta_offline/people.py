"""Who did it: the user_data of an event, hashed where Meta wants it hashed.

Meta's page on offline events names which of the customer information parameters they take:
https://developers.facebook.com/documentation/ads-commerce/conversions-api/offline-events
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace_sdk import Normalised, RecordRejected
from headrace_sdk import values as v
from headrace_sdk.commerce import text, whole
from headrace_sdk.values import Rule, Unusable

_TOO_BROAD = ({"ct", "country", "st", "zp", "ge"}, {"db"}, {"fn", "ge"}, {"ln", "ge"})
"""Meta refuses an event, and all others of its request, that says of the person nothing beyond one of these:
https://developers.facebook.com/documentation/ads-commerce/conversions-api/best-practices#baseline-requirements-for-matching"""


def _between(first: int, last: int, digits: int) -> Rule:
    """A part of a date, as Meta's own client checks it."""

    def clean(value: str) -> str:
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= digits else -1
        if not first <= number <= last:
            raise Unusable(f"is no number from {first} to {last}")
        return value.zfill(digits)

    return Rule(clean)


_LETTERS = Rule(v.letters)
_RULES: Mapping[str, tuple[str, Rule]] = {
    "email": ("em", Rule(v.email)),
    "phone": ("ph", Rule(v.phone_digits)),
    "first_name": ("fn", _LETTERS),
    "last_name": ("ln", _LETTERS),
    "gender": ("ge", Rule(v.gender)),
    "date_of_birth": ("db", Rule(lambda value: "".join(v.birth(value)))),
    "doby": ("doby", _between(1900, 2100, 4)),
    "dobm": ("dobm", _between(1, 12, 2)),
    "dobd": ("dobd", _between(1, 31, 2)),
    "city": ("ct", _LETTERS),
    "state": ("st", _LETTERS),
    "zip": ("zp", Rule(v.postal_code)),
    "country": ("country", Rule(v.country_lower)),
    "user_id": ("external_id", Rule(v.text(512))),
    "madid": ("madid", Rule(v.advertising_id, hashed=False)),
}
_IN_THE_US = {"state": Rule(v.us_state), "zip": Rule(v.us_zip)}
_MANY = frozenset({"email", "phone", "user_id"})
_ALIASES = {"external_id": "user_id", "dob": "date_of_birth", "postal_code": "zip"}


def normalise(field: str, value: str, *, hash_user_id: bool = True) -> Normalised:
    """A field's value in Meta's form and as it is sent.

    Raises:
        RecordRejected: The field is none of a person, or Meta cannot use the value.
    """
    name = _ALIASES.get(field, field)
    if name not in _RULES:
        raise RecordRejected("is no field of a person", field)
    try:
        normalised, sent = _rule(name, in_the_us=False, hash_user_id=hash_user_id).apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def user_data(fields: Mapping[str, Any], *, hash_user_id: bool) -> dict[str, Any]:
    """The user_data of an event. A value that Meta cannot use is left out; the others may still find the person.

    Args:
        fields: The connector's fields.
        hash_user_id: Whether external ids are hashed.

    Raises:
        RecordRejected: What is left says too little, so that Meta would refuse the event and its whole request.
    """
    problems: list[tuple[str, str]] = []
    country = next(_texts(fields.get("country")), "").lower()
    found: dict[str, Any] = {}
    for name, (key, _) in _RULES.items():
        rule = _rule(name, in_the_us=country == "us", hash_user_id=hash_user_id)
        sent = list(dict.fromkeys(_sent(name, rule, fields.get(name), problems)))
        if sent:
            # Meta takes a text or a list of texts in these: a list only where there are several.
            found[key] = sent if len(sent) > 1 and name in _MANY else sent[0]
    lead = whole(next(_texts(fields.get("lead_id")), ""))
    if lead is not None:
        found["lead_id"] = lead
    _check(found, problems)
    return found


def _check(found: Mapping[str, Any], problems: list[tuple[str, str]]) -> None:
    keys = {"db" if key in ("doby", "dobm", "dobd") else key for key in found}
    if not keys:
        field, reason = problems[0] if problems else ("", "nothing is known of the person")
        raise RecordRejected(f"{field} {reason}".strip(), field)
    if any(keys <= broad for broad in _TOO_BROAD):
        named = ", ".join(sorted(keys))
        raise RecordRejected(f"too little is known of the person ({named} alone): Meta would refuse the whole request")


def _rule(name: str, *, in_the_us: bool, hash_user_id: bool) -> Rule:
    if in_the_us and name in _IN_THE_US:
        return _IN_THE_US[name]
    rule = _RULES[name][1]
    return Rule(rule.clean, hashed=False) if name == "user_id" and not hash_user_id else rule


def _sent(name: str, rule: Rule, value: Any, problems: list[tuple[str, str]]) -> Iterator[str]:
    for given in _texts(value):
        try:
            yield rule.apply(given)[1]
        except Unusable as error:
            problems.append((name, str(error)))


def _texts(value: Any) -> Iterator[str]:
    """A value, or the values of a list, as texts; without empty ones."""
    for one in value if isinstance(value, list) else [value]:
        if found := text(one):
            yield found
