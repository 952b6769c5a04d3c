"""Settings of the Klaviyo destination."""

from __future__ import annotations

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_REVISION = "2026-10-15"
REVISION_ENDS = {
    "2024-02-15": "2026-02-15",
    "2024-05-15": "2026-05-15",
    "2024-06-15": "2026-06-15",
    "2024-07-15": "2026-07-15",
    "2024-10-15": "2026-10-15",
    "2025-01-15": "2027-01-15",
    "2025-04-15": "2027-04-15",
    "2025-07-15": "2027-07-15",
    "2025-10-15": "2027-10-15",
    "2026-01-15": "2028-01-15",
    "2026-04-15": "2028-04-15",
    "2026-07-15": "2028-07-15",
    "2026-10-15": "2028-10-15",
}
"""Days on which revisions are retired: two years after they came out, of which the second as deprecated.
https://developers.klaviyo.com/en/docs/api_versioning_and_deprecation_policy"""


class KlaviyoSettings(Settings):
    """Which account and which list."""

    api_key: Token = Field(
        title="Private API key",
        description="With the scopes profiles, events, lists, subscriptions (read and write) and data-privacy:write.",
    )
    list_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]{0,16}$",
        title="List id",
        description="The list that is kept equal to the audience.",
    )
    subscription_list_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]{0,16}$",
        title="List of subscribers",
        description="Whom an event of consent subscribes comes onto it, by its opt-in process; else by the account's.",
    )
    subscribe_members: bool = Field(
        False,
        title="Subscribe members",
        description="Members whose consent says so are subscribed to marketing when they come onto the list.",
    )
    email_purpose: str = Field(
        "email_marketing", max_length=64, title="Purpose of e-mail", description="Consent to marketing by e-mail."
    )
    sms_purpose: str = Field(
        "sms_marketing", max_length=64, title="Purpose of SMS", description="Consent to marketing by SMS."
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Metrics",
        description="Your event name to Klaviyo's metric; empty leaves the event out. Others by the table of the docs.",
    )
    revision: str = Field(
        DEFAULT_REVISION,
        pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$",
        title="Revision",
        description="Revision of Klaviyo's API. Each lives two years.",
    )
    base_url: Address = Field(
        "https://a.klaviyo.com", title="Address", description="Where Klaviyo's API is; others are for tests."
    )
