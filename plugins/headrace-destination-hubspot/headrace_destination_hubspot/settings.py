"""Settings of the HubSpot destination."""

from __future__ import annotations

from pydantic import Field

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_VERSION = "2026-03"
VERSION_ENDS = {"v3": "2027-09-01", "2026-03": "2027-09-30", "2026-09": "2028-03-31"}
"""Days from which versions are not supported: the numbered ones in September 2027, dated ones 18 months after they came
out at the earliest.
https://developers.hubspot.com/docs/api-reference/legacy/migration-guide"""


class HubSpotSettings(Settings):
    """Which account and which list."""

    access_token: Token = Field(
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
    base_url: Address = Field(
        "https://api.hubapi.com", title="Address", description="Where HubSpot's API is; others are for tests."
    )

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
