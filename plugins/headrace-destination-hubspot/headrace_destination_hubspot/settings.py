"""Settings of the HubSpot destination."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

DEFAULT_VERSION = "2026-03"
VERSION_ENDS = {"v3": "2027-09-01", "2026-03": "2027-09-30", "2026-09": "2028-03-31"}
"""Days from which versions are not supported: the numbered ones in September 2027, dated ones 18 months after they came
out at the earliest.
https://developers.hubspot.com/docs/api-reference/legacy/migration-guide"""


class HubSpotSettings(BaseModel):
    """Which account and which list."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    access_token: SecretStr = Field(
        min_length=1,
        title="Access token",
        description="Of a private app with crm.objects.contacts, crm.lists (read and write) and, for events, "
        "analytics.behavioral_events.send.",
    )
    list_id: str = Field(
        "",
        pattern=r"^[0-9]{0,20}$",
        title="List id",
        description="The static list (processing type MANUAL) of contacts that is kept equal to the audience.",
    )
    portal_id: str = Field(
        "",
        pattern=r"^[0-9]{0,20}$",
        title="Hub id",
        description="With it events go under pe{hub id}_{name}; else only those that event_names has.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Your event name to HubSpot's, with or without pe{hub id}_; empty leaves the event out.",
    )
    api_version: str = Field(
        DEFAULT_VERSION, pattern=r"^(v3|20[0-9]{2}-(03|09))$", title="API version", description="v3 or a month."
    )
    base_url: str = Field(
        "https://api.hubapi.com", title="Address", description="Where HubSpot's API is; others are for tests."
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

    def path(self, api: str, rest: str) -> str:
        """Address of a resource: the version stands before the kind of objects in v3, and after it in dated ones.

        Args:
            api: "objects", "lists" or "events".
            rest: The resource, such as "contacts/batch/upsert".
        """
        if api == "events":
            return f"{self.base_url}/events/{self.api_version}/{rest}"
        if self.api_version == "v3":
            return f"{self.base_url}/crm/v3/{api}/{rest}"
        return f"{self.base_url}/crm/{api}/{self.api_version}/{rest}"
