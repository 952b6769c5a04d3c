"""Settings of the TikTok audiences destination."""

from __future__ import annotations

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token


class TikTokAudienceSettings(Settings):
    """Which audience, and who asks."""

    access_token: Token = Field(
        title="Access token",
        description="Long-lived token of an app with the audience permissions on the ad account.",
    )
    advertiser_id: str = Field(
        pattern=r"^[0-9]{1,32}$", title="Ad account id", description="As TikTok Ads Manager shows it."
    )
    audience_id: str = Field(
        pattern=r"^[0-9]{1,32}$",
        title="Audience id",
        description="Id of an audience segment, as the list of audiences shows it.",
    )
    base_url: Address = Field(
        "https://business-api.tiktok.com", title="Address", description="Where the API is; others are for tests."
    )
