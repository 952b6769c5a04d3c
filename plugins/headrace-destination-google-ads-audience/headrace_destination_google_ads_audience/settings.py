"""Settings of the Google Ads audience destination."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import Field, field_validator

from headrace_sdk.settings import Address, Settings, Token, Word


class KeyType(StrEnum):
    """What a list holds of people; Google fixes it when the list is made."""

    CONTACT = "contact"
    """E-mail addresses, telephone numbers, names with addresses."""
    USER_ID = "user_id"
    """Ids of the advertiser's own."""
    MOBILE = "mobile"
    """Advertising ids of devices."""


class Consent(StrEnum):
    """What holds for people who said nothing themselves."""

    UNSPECIFIED = "unspecified"
    GRANTED = "granted"


class GoogleAdsAudienceSettings(Settings):
    """Which list, and who asks."""

    customer_id: str = Field(
        title="Google Ads account",
        description="Customer id of the account that owns the list, with or without dashes.",
    )
    user_list_id: str = Field(
        pattern=r"^[0-9]{1,20}$",
        title="List",
        description="Id of a Customer Match list of the account.",
    )
    key_type: KeyType = Field(
        KeyType.CONTACT,
        title="What the list holds",
        description="As the list was made: contact data, your own user ids, or advertising ids of devices.",
    )
    login_customer_id: str = Field(
        "",
        title="Manager account",
        description="Customer id of the manager account through which the user reaches the account; empty for none.",
    )
    client_id: Word = Field(title="OAuth client id", description="Of a Google Cloud project.")
    client_secret: Token = Field(title="OAuth client secret", description="That belongs to the client id.")
    refresh_token: Token = Field(
        title="Refresh token",
        description="Given for the scope https://www.googleapis.com/auth/datamanager.",
    )
    terms_accepted: bool = Field(
        True,
        title="Customer Match terms",
        description="You accept Google's Customer Match policy (https://support.google.com/adspolicy/answer/6299717); "
        "without it Google takes no contact data and no devices.",
    )
    consent_ad_user_data: Consent = Field(
        Consent.UNSPECIFIED,
        title="Consent to ad user data",
        description="Of people who said nothing of it. Who denied it is never sent.",
    )
    consent_ad_personalization: Consent = Field(
        Consent.UNSPECIFIED,
        title="Consent to ad personalisation",
        description="Of people who said nothing of it. Who denied it is never sent.",
    )
    membership_days: int = Field(
        540, ge=1, le=540, title="Days on the list", description="For lists that are made here; 540 is Google's most."
    )
    patience_hours: int = Field(
        6,
        ge=0,
        le=6,
        title="Hours to wait for the end",
        description="Google works on a request for half an hour or longer, and says then what it could not use. After "
        "this time it counts as taken, with a warning that its end was not seen. The platform follows no job longer "
        "than 6 hours.",
    )
    base_url: Address = Field(
        "https://datamanager.googleapis.com",
        title="Address",
        description="Where the Data Manager API is; others are for tests.",
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
