"""Settings of the Google Sheets destination."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from headrace_destination_google_sheets.fields import EVENT_COLUMNS, PERSON_COLUMNS
from headrace_sdk.settings import Address

_ID_IN_ADDRESS = re.compile(r"/spreadsheets/d/([A-Za-z0-9_-]+)")
_ID = re.compile(r"[A-Za-z0-9_-]{10,200}")
_KEY_MEMBERS = ("client_email", "private_key", "private_key_id", "token_uri")


class GoogleSheetsSettings(BaseModel):
    """Which tab of which spreadsheet, and who writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    spreadsheet_id: str = Field(
        title="Spreadsheet",
        description="Its id, or https://docs.google.com/spreadsheets/d/...; the service account is an editor of it.",
    )
    sheet_id: int = Field(
        ge=0,
        le=2_147_483_647,
        title="Tab",
        description="Id of a tab that belongs to this destination alone: the number after gid= in its address.",
    )
    service_account: SecretStr = Field(
        title="Service account", description="The JSON key file of a Google service account."
    )
    columns: tuple[str, ...] = Field(
        ("email", "first_name", "last_name", "phone", "user_id", "country"),
        min_length=1,
        title="Columns of people",
        description=f"For list syncs, in their order: any of {', '.join(PERSON_COLUMNS)}.",
    )
    event_columns: tuple[str, ...] = Field(
        ("time", "event", "email", "user_id", "order_id", "value", "currency", "audience", "properties"),
        min_length=1,
        title="Columns of events",
        description=f"For events, in their order: any of {', '.join(EVENT_COLUMNS)}.",
    )
    base_url: Address = Field("https://sheets.googleapis.com", title="Address", description="Of the Google Sheets API.")

    @field_validator("spreadsheet_id")
    @classmethod
    def _id(cls, given: str) -> str:
        match = _ID_IN_ADDRESS.search(given)
        found = match[1] if match else given.strip()
        if not _ID.fullmatch(found):
            raise ValueError("must be the id of a spreadsheet, or its address")
        return found

    @field_validator("service_account")
    @classmethod
    def _key(cls, given: SecretStr) -> SecretStr:
        try:
            key = json.loads(given.get_secret_value())
        except ValueError:
            raise ValueError("must be the JSON key file of a service account") from None
        if not isinstance(key, dict) or not all(isinstance(key.get(name), str) and key[name] for name in _KEY_MEMBERS):
            raise ValueError(f"must be a JSON key file with {', '.join(_KEY_MEMBERS)}")
        return given

    @field_validator("columns")
    @classmethod
    def _of_people(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _known(columns, PERSON_COLUMNS)

    @field_validator("event_columns")
    @classmethod
    def _of_events(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _known(columns, EVENT_COLUMNS)


def _known(columns: tuple[str, ...], known: Collection[str]) -> tuple[str, ...]:
    if len(set(columns)) != len(columns):
        raise ValueError("names a column twice")
    for column in columns:
        if column not in known:
            raise ValueError(f"knows no column {column[:50]!r}; there are: {', '.join(known)}")
    return columns
