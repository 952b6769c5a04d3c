"""Settings of the TikTok audiences destination."""

from __future__ import annotations

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_VERSION = "v1.3"
VERSION_ENDS = {"v1.2": "2023-08-15"}
"""Days from which TikTok does not answer a version. It has named none for v1.3:
https://business-api.tiktok.com/portal/docs?id=1740029169927169"""


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
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^v[1-9]\.[0-9]{1,2}$",
        title="API version",
        description="Version of TikTok's API for Business.",
    )
    base_url: Address = Field(
        "https://business-api.tiktok.com", title="Address", description="Where the API is; others are for tests."
    )
