"""Settings of the Google Ads conversions destination."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import Field, field_validator

from headrace_sdk.settings import Address, Settings, Token, Word

DEFAULT_VERSION = "v26"
VERSION_ENDS = {
    "v20": "2026-06-10", "v21": "2026-08-05", "v22": "2026-10-07",
    # Google has told the month alone so far, and as a projection: the first day of it.
    "v23": "2027-02-01", "v24": "2027-05-01", "v25": "2027-08-01", "v26": "2027-11-01",
}  # fmt: skip
"""Days from which Google does not answer a version, as far as it has said so: https://developers.google.com/ads/blog
(sunset reminders). Each lives about a year: https://developers.google.com/google-ads/api/docs/sunset-dates"""

_ACTION = re.compile(r"(?:customers/[0-9]{1,20}/conversionActions/)?([0-9]{1,20})")


class Kind(StrEnum):
    """What an event tells Google."""

    CLICK = "click"
    """A conversion after a click on an ad."""
    CALL = "call"
    """A conversion after a call."""
    ENHANCEMENT = "enhancement"
    """Who made a conversion that the website's tag has reported, found by its order id."""
    RESTATEMENT = "restatement"
    """Another value of a conversion that was reported."""
    RETRACTION = "retraction"
    """That a conversion did not come about after all."""


class ConsentDefault(StrEnum):
    """What holds for people who said nothing themselves."""

    UNSPECIFIED = "unspecified"
    GRANTED = "granted"


class Environment(StrEnum):
    """Where conversions were recorded."""

    UNSPECIFIED = "unspecified"
    APP = "app"
    WEB = "web"


class ConversionEvent(Settings):
    """What becomes of an event."""

    conversion_action: str = Field(
        title="Conversion action", description="Its id, or its resource name customers/.../conversionActions/..."
    )
    kind: Kind = Field(Kind.CLICK, title="Kind", description="What the event tells Google.")

    @field_validator("conversion_action")
    @classmethod
    def _id(cls, value: str) -> str:
        match = _ACTION.fullmatch(value.strip())
        if not match:
            raise ValueError("must be the id of a conversion action, or its resource name")
        return match[1]


class GoogleAdsConversionsSettings(Settings):
    """Which account, and which events are conversions."""

    customer_id: str = Field(
        title="Google Ads account",
        description="Customer id of the account that owns the conversion actions, with or without dashes.",
    )
    events: dict[str, ConversionEvent] = Field(
        min_length=1,
        title="Conversions",
        description='Event name to {"conversion_action", "kind"}. Other events are left out.',
    )
    login_customer_id: str = Field(
        "",
        title="Manager account",
        description="Customer id of the manager account through which the user reaches the account; empty for none.",
    )
    developer_token: Token = Field(
        title="Developer token", description="From the API centre of a Google Ads manager account."
    )
    client_id: Word = Field(title="OAuth client id", description="Of a Google Cloud project.")
    client_secret: Token = Field(title="OAuth client secret", description="That belongs to the client id.")
    refresh_token: Token = Field(
        title="Refresh token",
        description="Given for the scope https://www.googleapis.com/auth/adwords.",
    )
    send_user_identifiers: bool = Field(
        True,
        title="Send hashed contact data",
        description="SHA-256 of e-mail and phone with clicks: the account must have accepted the customer data terms "
        "and turned on enhanced conversions for leads. Enhancements always carry it.",
    )
    send_cart: bool = Field(
        False, title="Send products", description="With clicks, for accounts that are linked to a Merchant Center."
    )
    merchant_id: str = Field(
        "", pattern=r"^[0-9]{0,20}$", title="Merchant Center id", description="Of the products, if they are sent."
    )
    feed_country: str = Field(
        "", pattern=r"^([A-Z]{2})?$", title="Country of the feed", description="In which the products are, such as DE."
    )
    feed_language: str = Field(
        "", pattern=r"^([a-z]{2})?$", title="Language of the feed", description="In which the products are, such as de."
    )
    environment: Environment = Field(
        Environment.UNSPECIFIED, title="Where conversions are recorded", description="In an app or on the web."
    )
    consent_ad_user_data: ConsentDefault = Field(
        ConsentDefault.UNSPECIFIED, title="Consent to ad user data", description="Of people who said nothing of it."
    )
    validate_only: bool = Field(False, title="Check only", description="Google checks everything and counts nothing.")
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^v[0-9]{1,3}$",
        title="API version",
        description="Version of the Google Ads API. Each lives about a year.",
    )
    base_url: Address = Field(
        "https://googleads.googleapis.com",
        title="Address",
        description="Where the Google Ads API is; others are for tests.",
    )
    token_url: Address = Field(
        "https://oauth2.googleapis.com/token",
        title="Token address",
        description="Where access tokens are given; others are for tests.",
    )

    @field_validator("customer_id", "login_customer_id")
    @classmethod
    def _account(cls, value: str, info: object) -> str:
        digits = value.replace("-", "").replace(" ", "")
        optional = getattr(info, "field_name", "") == "login_customer_id"
        if not re.fullmatch(r"[0-9]{10}", digits) and not (optional and not digits):
            raise ValueError("must be a customer id of ten digits, such as 123-456-7890")
        return digits
