"""Settings of the Meta offline conversions destination."""

from __future__ import annotations

from typing import Literal

from headrace_destination_meta_conversions.settings import DEFAULT_VERSION
from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token


class MetaOfflineSettings(Settings):
    """Which dataset, and who asks."""

    dataset_id: str = Field(
        pattern=r"^[0-9]{1,32}$",
        title="Dataset id",
        description="Id of the dataset, as Events Manager shows it. Offline event sets were made into datasets.",
    )
    access_token: Token = Field(
        title="Access token",
        description="Token from Events Manager, or of a system user with a role on the dataset.",
    )
    app_secret: Token | None = Field(
        None, title="App secret", description="Adds appsecret_proof to each request, which apps may require."
    )
    test_event_code: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]{0,64}$",
        title="Test event code",
        description="Shows events in Events Manager under Test Events, where they count all the same. Remove it after.",
    )
    upload_tag: str = Field(
        "",
        max_length=255,
        title="Upload tag",
        description="Marks what this destination sends, as uploads of the old Offline Conversions API were marked.",
    )
    currency: str = Field(
        "",
        pattern=r"^([A-Z]{3})?$",
        title="Currency",
        description="Three letters by ISO 4217, for events with a value that name no currency.",
    )
    hash_user_id: bool = Field(
        True,
        title="Hash external ids",
        description="Sends the SHA-256 of external ids. Off, they go in the clear: choose what your pixel sends.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description='Name at Meta by name of the event, before the standard ones; "" leaves an event out.',
    )
    limited_data_use: bool = Field(
        False, title="Limited Data Use", description="Marks each event for Limited Data Use (states of the US)."
    )
    limited_data_use_country: Literal[0, 1] = Field(
        0, title="Country of Limited Data Use", description="1 for the United States, 0 lets Meta find out."
    )
    limited_data_use_state: int = Field(
        0,
        ge=0,
        le=9999,
        title="State of Limited Data Use",
        description="Meta's number of the state (1000 for California), 0 lets Meta find out.",
    )
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^v[0-9]{1,3}\.[0-9]{1,2}$",
        title="API version",
        description="Version of the Graph API. Each lives about two years.",
    )
    base_url: Address = Field(
        "https://graph.facebook.com",
        title="Address",
        description="Where the Graph API is; others are for tests.",
    )
