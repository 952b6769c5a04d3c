"""What the settings of most connectors have in common: `Settings` to derive from, and types for tokens and addresses.

class MySettings(Settings):
token: Token = Field(title="Token", description="Made under Account > API.")
base_url: Address = Field("https://api.vendor.example", title="Address", description="Where the API is.")
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

__all__ = ["Address", "Settings", "Token", "Word", "absolute_url", "one_word"]

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class Settings(BaseModel):
    """Base of a connector's settings: they cannot be changed, unknown names are refused, errors do not show values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def one_word(text: str) -> str:
    """The text, when it can go into a header as it is.

    Raises:
        ValueError: It has other characters than printable ASCII ones, or spaces.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII characters without spaces")
    return text


def absolute_url(url: str) -> str:
    """The address without the slash at its end.

    Raises:
        ValueError: It is no absolute http or https address, has a query, a fragment or credentials, or a host in a form
            that is not read in the same way everywhere, such as full-width digits or an IPv6 address with a zone.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) and not parts.query
        usable = usable and not parts.fragment
    except ValueError:  # brackets that are none of an IPv6 address
        usable = False
    if not usable or "@" in url or " " in url or not url.isprintable():
        raise ValueError("must be an absolute http or https address without query")
    return url.rstrip("/")


def _secret_word(secret: SecretStr) -> SecretStr:
    one_word(secret.get_secret_value())
    return secret


Word = Annotated[str, Field(min_length=1), AfterValidator(one_word)]
"""A name that goes into a header, such as a client id: printable ASCII characters without spaces."""

Token = Annotated[SecretStr, Field(min_length=1), AfterValidator(_secret_word)]
"""A secret that goes into a header: printable ASCII characters without spaces."""

Address = Annotated[str, AfterValidator(absolute_url)]
"""Where an API is: an absolute http or https address without query, given without the slash at its end."""
