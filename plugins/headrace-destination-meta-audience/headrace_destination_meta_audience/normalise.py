"""Values as Meta compares them in Custom Audiences, and as they are sent: mostly as SHA-256.

The rules are those of Meta's page on customer file custom audiences. Where the page is silent, the cases of
tests/cases/normalisation_meta.json decide. Names, cities and states keep letters of every alphabet, as the page says;
Meta's own Python client drops everything but a to z there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace_sdk import values
from headrace_sdk.values import Rule, Unusable


@dataclass(frozen=True, slots=True)
class Key:
    """A column of Meta's table.

    Attributes:
        name: As Meta calls it.
        rule: How its values are sent.
    """

    name: str
    rule: Rule

    def apply(self, value: str) -> tuple[str, str]:
        """A value in Meta's form, and as it is sent; raises Unusable."""
        return self.rule.apply(value)


def _year(text: str) -> str:
    if not re.fullmatch(r"(19|20)[0-9]{2}", text):
        raise Unusable("is no year from 1900 on")
    return text


def _two_digits(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise Unusable("is no number of one or two digits")
    return text.zfill(2)


EMAIL = Key("EMAIL", Rule(values.email))
PHONE = Key("PHONE", Rule(values.phone_digits))
FN = Key("FN", Rule(values.letters))
LN = Key("LN", Rule(values.letters))
CT = Key("CT", Rule(values.letters))
ST = Key("ST", Rule(values.letters))
ZIP = Key("ZIP", Rule(values.postal_code))
COUNTRY = Key("COUNTRY", Rule(values.country_lower))
GEN = Key("GEN", Rule(values.gender))
DOBY = Key("DOBY", Rule(_year))
DOBM = Key("DOBM", Rule(_two_digits))
DOBD = Key("DOBD", Rule(_two_digits))
MADID = Key("MADID", Rule(values.advertising_id, hashed=False))
EXTERN_ID = Key("EXTERN_ID", Rule(values.text(255), hashed=False))

US_STATE = Rule(values.us_state)
US_ZIP = Rule(values.us_zip)
"""Where the country is the United States, Meta wants the code of the state and five digits."""

SCHEMA = tuple(
    key.name for key in (EXTERN_ID, EMAIL, PHONE, MADID, FN, LN, GEN, DOBY, DOBM, DOBD, CT, ST, ZIP, COUNTRY)
)
"""The columns of each request, always all and in this order: so a row is the same row whenever it is sent."""
