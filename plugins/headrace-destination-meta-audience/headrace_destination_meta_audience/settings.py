"""Settings of the Meta Custom Audiences destination."""

from __future__ import annotations

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_VERSION = "v26.0"
VERSION_ENDS = {"v22.0": "2026-02-19", "v23.0": "2026-06-09", "v24.0": "2026-11-10", "v25.0": "2027-02-23"}
"""Days on which Meta stops answering a version of the Marketing API, as far as it has said so (November 2026):
https://developers.facebook.com/documentation/ads-commerce/marketing-api/marketing-api-changelog/versions"""


class MetaAudienceSettings(Settings):
    """Which list, and who asks."""

    audience_id: str = Field(
        pattern=r"^[0-9]{1,32}$",
        title="Audience id",
        description="Id of a customer-list custom audience, as Ads Manager shows it.",
    )
    ad_account_id: str = Field(
        "",
        pattern=r"^((act_)?[0-9]{1,32})?$",
        title="Ad account id",
        description="Ad account whose audiences are shown to choose from, and in which new ones are made.",
    )
    access_token: Token = Field(
        title="Access token",
        description="Token of a system user with the permission ads_management on the ad account.",
    )
    app_secret: Token | None = Field(
        None, title="App secret", description="Adds appsecret_proof to each request, which apps may require."
    )
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^v[0-9]{1,3}\.[0-9]{1,2}$",
        title="API version",
        description="Version of the Marketing API. Each lives about a year.",
    )
    limited_data_use: bool = Field(
        False,
        title="Limited Data Use",
        description="Marks each person for Limited Data Use; Meta finds out which states it holds for.",
    )
    base_url: Address = Field(
        "https://graph.facebook.com",
        title="Address",
        description="Where the Graph API is; others are for tests.",
    )
