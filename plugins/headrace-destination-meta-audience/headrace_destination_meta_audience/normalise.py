"""Values as Meta compares them in Custom Audiences, and as they are sent: mostly as SHA-256.

The rules are those of Meta's page on customer file custom audiences. Where the page is silent, the cases of
tests/cases/normalisation_meta.json decide. Names, cities and states keep letters of every alphabet, as the page says;
Meta's own Python client drops everything but a to z there.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EMAIL = re.compile(r"[^\s@,;:<>()\[\]\\\"]+@[^\s@.,;:<>()\[\]\\\"/]+(\.[^\s@.,;:<>()\[\]\\\"/]+)+")
_MADID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_GENDERS = {
    "f": "f", "female": "f", "woman": "f", "girl": "f", "w": "f",
    "m": "m", "male": "m", "man": "m", "boy": "m",
}  # fmt: skip
_NO_DEVICE = frozenset({"00000000-0000-0000-0000-000000000000", "0" * 32})


class Unusable(ValueError):
    """A value that Meta cannot use. The text is a sentence without the value."""


@dataclass(frozen=True, slots=True)
class Key:
    """A column of Meta's table.

    Attributes:
        name: As Meta calls it.
        clean: Brings a value into Meta's form; raises Unusable.
        hashed: True when the SHA-256 is sent.
    """

    name: str
    clean: Callable[[str], str]
    hashed: bool = True

    def apply(self, value: str) -> tuple[str, str]:
        """A value in Meta's form, and as it is sent. A value that is a SHA-256 already stays one.

        Raises:
            Unusable: Meta cannot use it.
        """
        text = unicodedata.normalize("NFC", value.strip())
        if not text:
            raise Unusable("is empty")
        if self.hashed and _SHA256.fullmatch(text):
            return text.lower(), text.lower()
        clean = self.clean(text)
        return clean, hashed(clean) if self.hashed else clean


def hashed(text: str) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _email(text: str) -> str:
    text = text.lower()
    if not _EMAIL.fullmatch(text):
        raise Unusable("is no e-mail address")
    return text


def _phone(text: str) -> str:
    """Digits with the country code, without leading zeros."""
    digits = "".join(str(unicodedata.digit(mark)) for mark in text if unicodedata.digit(mark, -1) >= 0).lstrip("0")
    if not 7 <= len(digits) <= 16:
        raise Unusable("is no telephone number with country code")
    return digits


def _letters(text: str) -> str:
    """Lower-case letters of any alphabet, without anything between them."""
    letters = "".join(mark for mark in text.lower() if unicodedata.category(mark)[0] in "LM")
    if not letters:
        raise Unusable("holds no letters")
    return unicodedata.normalize("NFC", letters)


def _zip(text: str) -> str:
    """Lower case, without spaces and dashes; five digits for the United States."""
    if re.fullmatch(r"[0-9]{5}[ -]?-[ ]?[0-9]{4}", text):
        return text[:5]
    code = "".join(mark for mark in text.lower() if mark.isalnum())
    if not code:
        raise Unusable("is no postal code")
    return code


def _country(text: str) -> str:
    code = text.lower()
    if not re.fullmatch(r"[a-z]{2}", code):
        raise Unusable("is no two-letter country code")
    return code


def _gender(text: str) -> str:
    found = _GENDERS.get(text.lower().strip("."))
    if found is None:
        raise Unusable("is neither female nor male, which is all that Meta knows")
    return found


def _year(text: str) -> str:
    if not re.fullmatch(r"(19|20)[0-9]{2}", text):
        raise Unusable("is no year from 1900 on")
    return text


def _two_digits(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise Unusable("is no number of one or two digits")
    return text.zfill(2)


def _device(text: str) -> str:
    identity = text.lower()
    if not _MADID.fullmatch(identity) or identity in _NO_DEVICE:
        raise Unusable("is no advertising id of a device")
    return identity


def _as_is(text: str) -> str:
    if len(text) > 255:
        raise Unusable("is longer than 255 characters")
    return text


EMAIL = Key("EMAIL", _email)
PHONE = Key("PHONE", _phone)
FN = Key("FN", _letters)
LN = Key("LN", _letters)
CT = Key("CT", _letters)
ST = Key("ST", _letters)
ZIP = Key("ZIP", _zip)
COUNTRY = Key("COUNTRY", _country)
GEN = Key("GEN", _gender)
DOBY = Key("DOBY", _year)
DOBM = Key("DOBM", _two_digits)
DOBD = Key("DOBD", _two_digits)
MADID = Key("MADID", _device, hashed=False)
EXTERN_ID = Key("EXTERN_ID", _as_is, hashed=False)

SCHEMA = tuple(
    key.name for key in (EXTERN_ID, EMAIL, PHONE, MADID, FN, LN, GEN, DOBY, DOBM, DOBD, CT, ST, ZIP, COUNTRY)
)
"""The columns of each request, always all and in this order: so a row is the same row whenever it is sent."""


def birth(value: str) -> tuple[str, str, str]:
    """Year, month and day of a date of birth: YYYY-MM-DD (or a time that begins so) or YYYYMMDD.

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
    return _year(year), month, day


US_STATES = {
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
"""Code of each state of the United States, where Meta wants the code; elsewhere it wants the name."""
