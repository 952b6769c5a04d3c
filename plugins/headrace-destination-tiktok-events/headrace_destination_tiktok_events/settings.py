"""Settings of the TikTok Events API destination."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_VERSION = "v1.3"
VERSION_ENDS = {"v1.2": "2023-08-15"}
"""Days from which TikTok does not answer a version. It has named none for v1.3:
https://business-api.tiktok.com/portal/docs?id=1740029169927169"""

EventSource = Literal["web", "app", "offline", "crm"]


class TikTokEventsSettings(Settings):
    """Which event source, and who sends."""

    access_token: Token = Field(
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
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^v[1-9]\.[0-9]{1,2}$",
        title="API version",
        description="Version of TikTok's API for Business.",
    )
    base_url: Address = Field(
        "https://business-api.tiktok.com", title="Address", description="Where the API is; others are for tests."
    )
