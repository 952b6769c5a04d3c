"""Settings of the Customer.io destination."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from headrace_sdk.settings import Settings, Token, absolute_url

_TRACK = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
_APP = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}


class CustomerIoSettings(Settings):
    """Which workspace, and who sends."""

    site_id: str = Field(
        pattern=r"^[A-Za-z0-9_\-]{1,64}$",
        title="Site id",
        description="Of the workspace's Track API key (Account Settings, API Credentials).",
    )
    api_key: Token = Field(title="Track API key", description="That belongs to the site id.")
    region: Literal["us", "eu"] = Field("us", title="Region", description="Data centre of the account: us or eu.")
    identify_by: Literal["id", "email"] = Field(
        "id",
        title="Find people by",
        description="id or email. Events of people without it go by the other; segments take this one alone.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Name of an event, page or screen to its name at Customer.io; empty leaves the event out.",
    )
    object_type_id: str = Field(
        "1",
        pattern=r"^[0-9]{0,9}$",
        title="Object type of groups",
        description="Number of the object type that groups are, such as 1; empty sends no groups.",
    )
    segment_id: str = Field(
        "", pattern=r"^[0-9]{0,12}$", title="Segment", description="For list syncs: id of a manual segment."
    )
    app_api_key: Token | None = Field(
        None,
        title="App API key",
        description="Lets you choose a segment by name or make one, and checks that it is a manual one.",
    )
    forget_by: Literal["delete", "suppress"] = Field(
        "delete",
        title="How people are forgotten",
        description="delete removes a person, who may come back by a new event; suppress also keeps them out for good.",
    )
    base_url: str = Field("", title="Address", description="In place of the region's addresses; for tests.")

    @property
    def track_url(self) -> str:
        """Where data goes."""
        return self.base_url or _TRACK[self.region]

    @property
    def app_url(self) -> str:
        """Where segments are shown and made."""
        return self.base_url or _APP[self.region]

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        return absolute_url(url) if url else url
