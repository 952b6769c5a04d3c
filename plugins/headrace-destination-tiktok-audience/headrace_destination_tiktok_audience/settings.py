"""Settings of the TikTok audiences destination."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class TikTokAudienceSettings(BaseModel):
    """Which audience, and who asks."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    access_token: SecretStr = Field(
        min_length=1,
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
