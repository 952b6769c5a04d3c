"""Settings of the BigQuery destination."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

_PROJECT = re.compile(r"([a-z0-9.-]{1,80}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_DATASET = re.compile(r"[A-Za-z0-9_]{1,1024}")
_TABLE = re.compile(r"[A-Za-z0-9_-]{1,1024}")
_KEY_MEMBERS = ("client_email", "private_key", "private_key_id", "token_uri")


class BigQuerySettings(BaseModel):
    """Which table, and who writes to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    service_account: SecretStr = Field(
        title="Service account", description="Its key file, as JSON text. It needs roles/bigquery.dataEditor."
    )
    project: str = Field(title="Project", description="Id of the project with the dataset.")
    dataset: str = Field(title="Dataset", description="Of the project, with the table in it.")
    table: str = Field("headrace_events", title="Table", description="It has to exist: the README says how it is made.")
    base_url: str = Field("https://bigquery.googleapis.com", title="Address", description="Of the API.")

    @field_validator("service_account")
    @classmethod
    def _key_file(cls, key: SecretStr) -> SecretStr:
        try:
            found = json.loads(key.get_secret_value())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError("must be the key file of a service account, as JSON text")  # noqa: TRY004 - pydantic's
        lacking = [name for name in _KEY_MEMBERS if not (isinstance(found.get(name), str) and found[name])]
        if lacking:
            raise ValueError(f"must be the key file of a service account: it lacks {', '.join(lacking)}")
        return key

    @field_validator("project")
    @classmethod
    def _project(cls, name: str) -> str:
        return _checked(name, _PROJECT, "the id of a project, such as my-shop-1234")

    @field_validator("dataset")
    @classmethod
    def _dataset(cls, name: str) -> str:
        return _checked(name, _DATASET, "letters, digits and _")

    @field_validator("table")
    @classmethod
    def _table(cls, name: str) -> str:
        return _checked(name, _TABLE, "letters, digits, _ and -")

    @field_validator("base_url")
    @classmethod
    def _base(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
            raise ValueError("must be an absolute http or https address without a query")
        return url.rstrip("/")


def _checked(name: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(name):
        raise ValueError(f"must be {what}")
    return name
