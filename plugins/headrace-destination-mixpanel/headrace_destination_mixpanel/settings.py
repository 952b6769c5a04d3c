"""Settings of the Mixpanel destination."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from headrace_sdk.settings import Settings, Token, absolute_url

Region = Literal["us", "eu", "in"]

_INGESTION = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
_APPLICATION = {"us": "https://mixpanel.com", "eu": "https://eu.mixpanel.com", "in": "https://in.mixpanel.com"}


class MixpanelSettings(Settings):
    """Which project, and who sends."""

    project_token: str = Field(
        pattern=r"^[A-Za-z0-9]{1,64}$",
        title="Project token",
        description="Of the project's settings. Mixpanel calls it no secret: it names the project.",
    )
    region: Region = Field("us", title="Data residency", description="us, eu or in, as the project was made.")
    service_account: str = Field(
        "",
        max_length=200,
        title="Service account",
        description="User name of a service account with the role Owner or Admin. Without one the project token is "
        "used, which is also enough to send.",
    )
    service_account_secret: Token | None = Field(
        None, title="Secret of the service account", description="Mixpanel shows it once, when it makes the account."
    )
    project_id: str = Field(
        "", pattern=r"^[0-9]{0,20}$", title="Project id", description="Needed with a service account."
    )
    id_merge: Literal["simplified", "original"] = Field(
        "simplified",
        title="Identity merge API",
        description="As the project's settings say under Identity Merge.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Name of an event, page or screen to its name at Mixpanel; empty leaves the event out.",
    )
    page_event: str = Field("Loaded a Page", max_length=255, title="Event of pages", description="Empty sends none.")
    screen_event: str = Field(
        "Loaded a Screen", max_length=255, title="Event of screens", description="Empty sends none."
    )
    group_key: str = Field(
        "",
        max_length=255,
        title="Group key",
        description="Group key of the project (such as company_id) that groups go by; empty sends no groups.",
    )
    audience: str = Field(
        "",
        max_length=255,
        title="Audience",
        description="For list syncs: the value that members have in the list property; make a cohort of it.",
    )
    audience_property: str = Field(
        "Audiences",
        min_length=1,
        max_length=255,
        title="List property of audiences",
        description="Profile property that holds the audiences of a person.",
    )
    gdpr_token: Token | None = Field(
        None,
        title="GDPR token",
        description="OAuth token of an owner's profile (Data & Privacy); lives a year. With it, deletions take a "
        "person's events too; without it, only the profile.",
    )
    base_url: str = Field("", title="Address", description="In place of the region's addresses; for tests.")

    @property
    def ingestion_url(self) -> str:
        """Where events and profiles go."""
        return self.base_url or _INGESTION[self.region]

    @property
    def application_url(self) -> str:
        """Where deletions are asked for."""
        return self.base_url or _APPLICATION[self.region]

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        return absolute_url(url) if url else url

    @model_validator(mode="after")
    def _whole_account(self) -> Self:
        given = (bool(self.service_account), self.service_account_secret is not None)
        if any(given) and not (all(given) and self.project_id):
            raise ValueError("a service account needs its name, its secret and the project id")
        return self
