"""Settings of the Brevo destination."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_ATTRIBUTES = {"first_name": "FIRSTNAME", "last_name": "LASTNAME", "phone": "SMS"}
"""Field to attribute of a contact, as they are in a new account whose language is English."""


class BrevoSettings(Settings):
    """Which account, and what is kept there."""

    api_key: Token = Field(title="API key", description="Of the account's settings (SMTP & API, API keys): xkeysib-...")
    list_id: str = Field(
        "",
        pattern=r"^[0-9]{0,12}$",
        title="List",
        description="For list syncs: id of the contact list.",
    )
    folder_id: str = Field(
        "1", pattern=r"^[0-9]{1,12}$", title="Folder", description="In which new lists are made; 1 is the first one."
    )
    creates_contacts: bool = Field(
        True,
        title="Make contacts",
        description="Members who are no contacts yet become some. Without it, only contacts go onto the list.",
    )
    import_from: int = Field(
        100,
        ge=0,
        le=100_000,
        title="Import from",
        description="From so many members at once, an import makes contacts of them; fewer go one by one, which is "
        "slower but says of each whether Brevo took it. 0 imports nobody.",
    )
    uses_ext_id: bool = Field(
        True, title="Own ids", description="Sends the user id as EXT_ID, by which Brevo finds contacts too."
    )
    attributes: dict[str, str] = Field(
        default_factory=dict,
        title="Attributes",
        description="Trait or field to the contact attribute of your account, such as plan to PLAN. first_name, "
        "last_name and phone go to FIRSTNAME, LASTNAME and SMS unless named here; empty leaves one out.",
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Name of an event, page or screen to its name at Brevo; empty leaves the event out.",
    )
    page_event: str = Field("page_viewed", title="Event of pages", description="Empty sends none.")
    screen_event: str = Field("screen_viewed", title="Event of screens", description="Empty sends none.")
    base_url: Address = Field(
        "https://api.brevo.com/v3", title="Address", description="Where the API is; others are for tests."
    )

    @property
    def attribute_names(self) -> Mapping[str, str]:
        """Trait or field to the attribute that it goes to."""
        return {name: key for name, key in {**DEFAULT_ATTRIBUTES, **self.attributes}.items() if key}

    @field_validator("attributes")
    @classmethod
    def _attribute_names(cls, attributes: dict[str, str]) -> dict[str, str]:
        for key in attributes.values():
            if key and not (key.replace("_", "").isalnum() and key.isascii() and key == key.upper()):
                raise ValueError("attributes of contacts are capital letters, digits and underscores")
        return attributes
