"""Settings of the Intercom destination."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from headrace_sdk.settings import Settings, Token, absolute_url

Region = Literal["us", "eu", "au"]
_HOSTS = {"us": "https://api.intercom.io", "eu": "https://api.eu.intercom.io", "au": "https://api.au.intercom.io"}
"""https://developers.intercom.com/building-apps/docs/rest-apis"""
DEFAULT_VERSION = "2.15"
"""https://developers.intercom.com/intercom-api-reference"""


class IntercomSettings(Settings):
    """Which workspace and which tag."""

    access_token: Token = Field(
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

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        return absolute_url(url) if url else url

    @property
    def host(self) -> str:
        """Address of the API."""
        return self.base_url or _HOSTS[self.region]
