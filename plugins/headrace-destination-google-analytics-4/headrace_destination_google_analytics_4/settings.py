"""Settings of the Google Analytics 4 destination."""

from __future__ import annotations

from pydantic import Field, model_validator

from headrace_sdk.settings import Address, Settings, Token


class GoogleAnalyticsSettings(Settings):
    """Which stream, and how events are called there."""

    api_secret: Token = Field(
        title="API secret",
        description="From Google Analytics: Admin > Data streams > the stream > Measurement Protocol API secrets.",
    )
    measurement_id: str = Field(
        "",
        pattern=r"^(G-[A-Za-z0-9]{1,32})?$",
        title="Measurement id",
        description="Of a web stream, such as G-XXXXXXXXXX. Either this or the Firebase app id.",
    )
    firebase_app_id: str = Field(
        "",
        pattern=r"^[0-9A-Za-z:._-]{0,128}$",
        title="Firebase app id",
        description="Of an app stream, such as 1:1234567890:android:321abc456def7890.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description='Event name (or "page", "screen", "group") to the name in Google Analytics. Empty leaves it out.',
    )
    send_user_data: bool = Field(
        False,
        title="Send user-provided data",
        description="Sends SHA-256 of e-mail, phone, name and street. Accept Google's policy for user-provided data "
        "in the property first: it cannot be taken back there.",
    )
    send_late_events: bool = Field(
        False,
        title="Send late events",
        description="Events that are older than 72 hours: Google counts them as if they were 72 hours old.",
    )
    validation_only: bool = Field(
        False,
        title="Check only",
        description="Sends everything to Google's validation server, which tells what is wrong and counts nothing.",
    )
    base_url: Address = Field(
        "https://www.google-analytics.com",
        title="Address",
        description="https://region1.google-analytics.com collects in the European Union.",
    )

    @model_validator(mode="after")
    def _one_stream(self) -> GoogleAnalyticsSettings:
        if bool(self.measurement_id) == bool(self.firebase_app_id):
            raise ValueError("set either measurement_id (web stream) or firebase_app_id (app stream)")
        return self

    @property
    def is_app(self) -> bool:
        """True for an app stream, False for a web stream."""
        return bool(self.firebase_app_id)
