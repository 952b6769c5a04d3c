"""Who did it: the user_data of an event, hashed where Meta wants it hashed.

https://developers.facebook.com/documentation/ads-commerce/conversions-api/parameters/customer-information-parameters
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headrace_sdk import Normalised, RecordRejected
from headrace_sdk import values as v
from headrace_sdk.commerce import text, whole
from headrace_sdk.values import Rule, Unusable

_FB_COOKIE = re.compile(r"fb\.[0-9]\.[0-9]{10,16}\..+")
_TOO_BROAD = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)
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


def _birth(value: str) -> str:
    return "".join(v.birth(value))


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise Unusable("is no IP address") from None


def _cookie(value: str) -> str:
    if not _FB_COOKIE.fullmatch(value) or not value.isprintable():
        raise Unusable("is no value of Meta's cookies (fb.1.TIME.ID)")
    return value


def _click(value: str) -> str:
    if len(value) > 1_000 or not value.isprintable() or " " in value:
        raise Unusable("is no click id")
    return value


_LETTERS = Rule(v.letters)
_PLAIN = Rule(v.text(512), hashed=False)
_RULES: Mapping[str, tuple[str, Rule]] = {
    "email": ("em", Rule(v.email)),
    "phone": ("ph", Rule(v.phone_digits)),
    "first_name": ("fn", _LETTERS),
    "last_name": ("ln", _LETTERS),
    "gender": ("ge", Rule(v.gender)),
    "date_of_birth": ("db", Rule(_birth)),
    "doby": ("doby", _between(1900, 2100, 4)),
    "dobm": ("dobm", _between(1, 12, 2)),
    "dobd": ("dobd", _between(1, 31, 2)),
    "city": ("ct", _LETTERS),
    "state": ("st", _LETTERS),
    "zip": ("zp", Rule(v.postal_code)),
    "country": ("country", Rule(v.country_lower)),
    "user_id": ("external_id", Rule(v.text(512))),
    "ip": ("client_ip_address", Rule(_ip_address, hashed=False)),
    "user_agent": ("client_user_agent", _PLAIN),
    "fbc": ("fbc", Rule(_cookie, hashed=False)),
    "fbp": ("fbp", Rule(_cookie, hashed=False)),
    "madid": ("madid", Rule(v.advertising_id, hashed=False)),
    "subscription_id": ("subscription_id", _PLAIN),
}
_IN_THE_US = {"state": Rule(v.us_state), "zip": Rule(v.us_zip)}
_MANY = frozenset({"email", "phone", "user_id"})
_NUMBERS = ("lead_id", "fb_login_id")
_ALIASES = {"external_id": "user_id", "dob": "date_of_birth", "postal_code": "zip"}


def normalise(field: str, value: str, *, hash_user_id: bool = True) -> Normalised:
    """A field's value in Meta's form and as it is sent.

    Raises:
        RecordRejected: The field is none of a person, or Meta cannot use the value.
    """
    name = _ALIASES.get(field, field)
    if name == "fbclid":
        rule = Rule(_click, hashed=False)
    elif name in _NUMBERS:
        rule = _PLAIN
    elif name in _RULES:
        rule = _rule(name, in_the_us=False, hash_user_id=hash_user_id)
    else:
        raise RecordRejected("is no field of a person", field)
    try:
        normalised, sent = rule.apply(value)
    except Unusable as error:
        raise RecordRejected(str(error), field) from None
    return Normalised(normalised=normalised, sent=sent)


def user_data(fields: Mapping[str, Any], *, timestamp_us: int, hash_user_id: bool) -> dict[str, Any]:
    """The user_data of an event. A value that Meta cannot use is left out; the others may still find the person.

    Args:
        fields: The connector's fields.
        timestamp_us: When the event happened: the time of a click of which only the id is known.
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
    for name in _NUMBERS:
        number = whole(next(_texts(fields.get(name)), ""))
        if number is not None:
            found[name] = number
    if "fbc" not in found and (click := _click_id(fields)):
        found["fbc"] = f"fb.1.{timestamp_us // 1000}.{click}"
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


def _click_id(fields: Mapping[str, Any]) -> str:
    """The id of the click: as it was given, else in the address of the event's page; "" for none."""
    given = next(_texts(fields.get("fbclid")), "")
    if not given:
        url = text(fields.get("event_source_url"))
        try:
            given = parse_qs(urlsplit(url).query, max_num_fields=100).get("fbclid", [""])[-1] if "?" in url else ""
        except ValueError:
            return ""  # an address that is none
    try:
        return _click(given.strip())
    except Unusable:
        return ""
