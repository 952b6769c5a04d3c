"""Identifiers of people: how a value is written so that equal ones are equal, and which are valid.

Only what holds for everybody stands here. Which values a workspace does not want to identify
anybody is a matter of its identity rules.
"""

from __future__ import annotations

import re
from functools import lru_cache

import phonenumbers

USER_ID = "user_id"
EMAIL = "email"
PHONE = "phone"
ANONYMOUS_ID = "anonymous_id"

MAX_VALUE_LENGTH = 512
MAX_NAMESPACE_LENGTH = 100

CLICK_ID_NAMESPACES = frozenset(
    {
        "_kx",
        "dclid",
        "fbc",
        "fbclid",
        "ga_session_id",
        "gbraid",
        "gclid",
        "li_fat_id",
        "msclkid",
        "ttclid",
        "twclid",
        "wbraid",
    }
)
"""Namespaces whose values name a click or a visit, not a person: they never identify anybody."""

_NAMESPACE = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_EMAIL = re.compile(
    r"(?=.{3,254}$)"
    r"(?!\.)[^\s@\"(),:;<>\[\\\]\x00-\x1f\x7f]{1,64}(?<!\.)"
    r"@(?:[^\W_](?:[^\W_]|-){0,62}\.)+[^\W\d_](?:[^\W_]|-){0,61}[^\W_]"
)


def normalise(namespace: str, value: str, default_country: str | None) -> str | None:
    """The one way of writing an identifier's value, so that equal identifiers are equal strings.

    An email is trimmed and lower-cased, a phone number is written as E.164, every other value is trimmed.

    Args:
        namespace: Namespace such as "user_id" or "email".
        value: The value as it came.
        default_country: Two capital letters; the country of phone numbers without a country code. Without one
            such numbers are not valid.

    Returns:
        The normalised value, or None when it is not valid in its namespace: empty, longer than 512 characters,
        an email or a phone number that is none, or a namespace that is no name.
    """
    trimmed = value.strip()
    if not trimmed or len(trimmed) > MAX_VALUE_LENGTH or not _NAMESPACE.fullmatch(namespace):
        return None
    if namespace == EMAIL:
        return _email(trimmed)
    if namespace == PHONE:
        return _phone(trimmed, default_country)
    return trimmed


def _email(text: str) -> str | None:
    address = text.lower()
    if ".." in address or not _EMAIL.fullmatch(address) or "-." in address or address[address.index("@") + 1] == "-":
        return None
    return address


@lru_cache(maxsize=65_536)  # parsing a number costs 100 µs, and the same people come again and again
def _phone(text: str, default_country: str | None) -> str | None:
    try:
        number = phonenumbers.parse(text, default_country)
    except phonenumbers.NumberParseException:
        return None
    # An extension reaches another person behind the same number, and E.164 cannot write it.
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def is_country(code: str) -> bool:
    """Whether two capital letters name a country that has phone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS
