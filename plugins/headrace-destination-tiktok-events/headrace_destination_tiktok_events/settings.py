"""Settings of the TikTok Events API destination."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

EventSource = Literal["web", "app", "offline", "crm"]


class TikTokEventsSettings(BaseModel):
    """Which event source, and who sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    access_token: SecretStr = Field(
        min_length=1,
        title="Access token",
        description="Made in TikTok's Events Manager for the event source, or of an app with the event permissions.",
    )
    event_source: EventSource = Field("web", title="Kind of event source", description="web, app, offline or crm.")
    event_source_id: str = Field(
        pattern=r"^[A-Za-z0-9_.\-]{1,64}$",
        title="Event source id",
        description="The pixel code (web), the TikTok app id (app), or the id of the event set (offline, crm).",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Your event name to TikTok's; empty leaves the event out. Others go by the table of the docs page.",
    )
    limited_data_use: bool = Field(
        False,
        title="Limited Data Use",
        description="Asks TikTok to process every event as its terms say for states of the United States.",
    )
    test_event_code: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_\-]{0,64}$",
        title="Test event code",
        description="Shows the events under Test events in the Events Manager; take it out afterwards.",
    )
    base_url: str = Field(
        "https://business-api.tiktok.com", title="Address", description="Where the API is; others are for tests."
    )

    @field_validator("access_token")
    @classmethod
    def _one_word(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be printable ASCII characters without spaces")
        return secret

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
            raise ValueError("must be an absolute http or https address without query")
        return url.rstrip("/")
