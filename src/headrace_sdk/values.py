"""Values of people in the forms that vendors compare them in: trimmed, lower-cased, checked, hashed.

Each rule is a function from a text to a text that raises Unusable for what no vendor can use. Vendors differ: a
connector picks the rules that its vendor's documentation asks for, and says so in its manifest (`Field.normalised`).
`Rule` adds what all of them have in common: white space around a value goes, Unicode is composed (NFC), and a value
that is a SHA-256 already stays one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

__all__ = [
    "Rule",
    "Unusable",
    "advertising_id",
    "birth",
    "country_lower",
    "country_upper",
    "email",
    "email_google",
    "gender",
    "is_sha256",
    "letters",
    "lower",
    "phone_digits",
    "phone_e164",
    "postal_code",
    "sha256",
    "text",
    "us_state",
    "us_zip",
    "words",
]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EMAIL = re.compile(r"[^\s@,;:<>()\[\]\\\"]+@[^\s@.,;:<>()\[\]\\\"/]+(\.[^\s@.,;:<>()\[\]\\\"/]+)+\.?")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_ADVERTISING_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_NO_DEVICE = frozenset({"00000000-0000-0000-0000-000000000000", "0" * 32})
_GOOGLE_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
_KEYS = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "22233344455566677778889999")
_GENDERS = {
    "f": "f", "female": "f", "woman": "f", "girl": "f", "w": "f",
    "m": "m", "male": "m", "man": "m", "boy": "m",
}  # fmt: skip
_US_STATES = {
    "alabama": "al", "alaska": "ak", "arizona": "az", "arkansas": "ar", "california": "ca", "colorado": "co",
    "connecticut": "ct", "delaware": "de", "districtofcolumbia": "dc", "florida": "fl", "georgia": "ga",
    "hawaii": "hi", "idaho": "id", "illinois": "il", "indiana": "in", "iowa": "ia", "kansas": "ks",
    "kentucky": "ky", "louisiana": "la", "maine": "me", "maryland": "md", "massachusetts": "ma", "michigan": "mi",
    "minnesota": "mn", "mississippi": "ms", "missouri": "mo", "montana": "mt", "nebraska": "ne", "nevada": "nv",
    "newhampshire": "nh", "newjersey": "nj", "newmexico": "nm", "newyork": "ny", "northcarolina": "nc",
    "northdakota": "nd", "ohio": "oh", "oklahoma": "ok", "oregon": "or", "pennsylvania": "pa",
    "rhodeisland": "ri", "southcarolina": "sc", "southdakota": "sd", "tennessee": "tn", "texas": "tx",
    "utah": "ut", "vermont": "vt", "virginia": "va", "washington": "wa", "westvirginia": "wv", "wisconsin": "wi",
    "wyoming": "wy",
}  # fmt: skip


class Unusable(ValueError):
    """A value that the vendor cannot use. The text ends a sentence, without the value: "is no e-mail address"."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a field's values go to the vendor.

    Attributes:
        clean: Brings a value into the vendor's form; raises Unusable.
        hashed: True when its SHA-256 is sent, as lower-case hex.
    """

    clean: Callable[[str], str]
    hashed: bool = True

    def apply(self, value: str) -> tuple[str, str]:
        """A value in the vendor's form, and as it is sent.

        Where hashes are sent, a value that is a SHA-256 already is passed through in lower case.

        Raises:
            Unusable: The vendor cannot use it.
        """
        given = unicodedata.normalize("NFC", value.strip())
        if not given:
            raise Unusable("is empty")
        if self.hashed and is_sha256(given):
            return given.lower(), given.lower()
        clean = self.clean(given)
        return clean, sha256(clean) if self.hashed else clean


def sha256(value: str) -> str:
    """SHA-256 of the UTF-8, in lower-case hex."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


def is_sha256(value: str) -> bool:
    """Whether a value is a SHA-256 in hex already."""
    return _SHA256.fullmatch(value) is not None


def email(value: str) -> str:
    """An e-mail address in lower case; dots and `+tag` stay."""
    found = value.lower()
    if not _EMAIL.fullmatch(found):
        raise Unusable("is no e-mail address")
    return found


def email_google(value: str) -> str:
    """An e-mail address as Google compares it: at gmail.com and googlemail.com without dots and `+tag`.

    https://developers.google.com/data-manager/api/devguides/concepts/formatting
    """
    local, _, domain = email(value).rpartition("@")
    if domain in _GOOGLE_DOMAINS:
        local = local.partition("+")[0].replace(".", "")
        if not local:
            raise Unusable("is no e-mail address")
    return f"{local}@{domain}"


def phone_digits(value: str) -> str:
    """A telephone number as its digits with the country code, without leading zeros."""
    digits = "".join(str(unicodedata.digit(mark)) for mark in value if unicodedata.digit(mark, -1) >= 0).lstrip("0")
    if not 7 <= len(digits) <= 16:
        raise Unusable("is no telephone number with country code")
    return digits


def phone_e164(value: str) -> str:
    """A telephone number by E.164, with its plus, which must be there.

    What stands between the digits goes, also a national prefix in brackets, "(0)"; letters are those of the keys.
    """
    found = "".join(mark for mark in value.replace("(0)", "") if mark not in " \t-./()\u00a0\u2011\u2013")
    found = found.upper().translate(_KEYS)
    if not _E164.fullmatch(found):
        raise Unusable("is no telephone number with a plus and the country code (E.164)")
    return found


def letters(value: str) -> str:
    """Lower-case letters of any alphabet, without anything between them."""
    found = "".join(mark for mark in value.lower() if unicodedata.category(mark)[0] in "LM")
    if not found:
        raise Unusable("holds no letters")
    return unicodedata.normalize("NFC", found)


def lower(value: str) -> str:
    """Lower case."""
    return value.lower()


def words(value: str) -> str:
    """Lower-case letters, digits and single spaces: no punctuation and no symbols."""
    kept = "".join(mark for mark in value.lower() if unicodedata.category(mark)[0] not in "PS")
    found = " ".join(kept.split())
    if not found:
        raise Unusable("holds no letters")
    return found


def postal_code(value: str) -> str:
    """Lower case without spaces and dashes; five digits of a United States ZIP+4."""
    if re.fullmatch(r"[0-9]{5}[ -]?-[ ]?[0-9]{4}", value):
        return value[:5]
    code = "".join(mark for mark in value.lower() if mark.isalnum())
    if not code:
        raise Unusable("is no postal code")
    return code


def us_state(value: str) -> str:
    """Two lower-case letters of a state of the United States, given by code or name; letters for other places."""
    found = letters(value)
    return _US_STATES.get(found, found)


def us_zip(value: str) -> str:
    """The first five digits of a ZIP code of the United States, else as `postal_code`."""
    code = postal_code(value)
    return code[:5] if re.fullmatch(r"[0-9]{5,9}", code) else code


def country_lower(value: str) -> str:
    """A two-letter country code by ISO 3166 in lower case."""
    code = value.lower()
    if not re.fullmatch(r"[a-z]{2}", code):
        raise Unusable("is no two-letter country code")
    return code


def country_upper(value: str) -> str:
    """A two-letter country code by ISO 3166 in upper case."""
    return country_lower(value).upper()


def gender(value: str) -> str:
    """Either f or m, which is all that vendors know."""
    found = _GENDERS.get(value.lower().strip("."))
    if found is None:
        raise Unusable("is neither female nor male, which is all that the vendor knows")
    return found


def advertising_id(value: str) -> str:
    """The advertising id of a device in lower case (IDFA, Google's advertising id); not the one of nobody."""
    identity = value.lower()
    if not _ADVERTISING_ID.fullmatch(identity) or identity in _NO_DEVICE:
        raise Unusable("is no advertising id of a device")
    return identity


def text(longest: int) -> Callable[[str], str]:
    """A rule that leaves a text as it is, if it is not too long.

    Args:
        longest: Most characters.
    """

    def check(value: str) -> str:
        if len(value) > longest:
            raise Unusable(f"is longer than {longest} characters")
        return value

    return check


def birth(value: str) -> tuple[str, str, str]:
    """Year, month and day of a date of birth: YYYY-MM-DD (or a time that begins so) or YYYYMMDD, from 1900 on.

    Raises:
        Unusable: It is no such date.
    """
    match = re.match(r"\s*([0-9]{4})([-/.]?)([0-9]{2})\2([0-9]{2})(?![0-9])", value)
    if match is None:
        raise Unusable("is no date of the form YYYY-MM-DD")
    year, month, day = match[1], match[3], match[4]
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        raise Unusable("is no date of the calendar") from None
    if year[:2] not in ("19", "20"):
        raise Unusable("is no year from 1900 on")
    return year, month, day
