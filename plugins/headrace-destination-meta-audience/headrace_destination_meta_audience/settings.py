"""Settings of the Meta Custom Audiences destination."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class MetaAudienceSettings(BaseModel):
    """Which list, and who asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audience_id: str = Field(pattern=r"^[0-9]{1,32}$", title="Audience id", description="Id of the custom audience.")
    access_token: SecretStr = Field(title="Access token", description="Token with ads_management.")
