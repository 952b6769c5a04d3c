"""Settings of the Intercom destination."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

Region = Literal["us", "eu", "au"]
_HOSTS = {"us": "https://api.intercom.io", "eu": "https://api.eu.intercom.io", "au": "https://api.au.intercom.io"}
"""https://developers.intercom.com/building-apps/docs/rest-apis"""
DEFAULT_VERSION = "2.15"
"""https://developers.intercom.com/intercom-api-reference"""


class IntercomSettings(BaseModel):
    """Which workspace and which tag."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    access_token: SecretStr = Field(
        min_length=1,
        title="Access token",
        description="Of an app of your workspace that may read and write users, events and tags.",
    )
    region: Region = Field("us", title="Region", description="Where the workspace is hosted: us, eu or au.")
    list_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]{0,32}$",
        title="Tag",
        description="Id of the tag that members of the audience have.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Your event name to Intercom's; empty leaves the event out. Others go under their own.",
    )
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^2\.[0-9]{1,2}$",
        title="API version",
        description="Sent as Intercom-Version.",
    )
    base_url: str = Field("", title="Address", description="Where Intercom's API is; for tests. Else the region's.")

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
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
            raise ValueError("must be an absolute http or https address without query")
        return url.rstrip("/")

    @property
    def host(self) -> str:
        """Address of the API."""
        return self.base_url or _HOSTS[self.region]
