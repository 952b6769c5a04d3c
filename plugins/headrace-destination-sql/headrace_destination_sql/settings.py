"""Settings of the SQL destination."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import SQLAlchemyError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DEFAULT_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}


class SqlSettings(BaseModel):
    """Which database, and which tables in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(
        max_length=500,
        title="Database",
        description="Its URL without the password: postgresql://user@db.example:5432/shop.",
    )
    password: SecretStr | None = Field(None, title="Password", description="Of the URL's user.")
    db_schema: str = Field("", title="Schema", description="Of the tables; empty for the database's default.")
    events_table: str = Field("headrace_events", title="Table of events", description="A row for each.")
    profiles_table: str = Field(
        "headrace_profiles",
        title="Table of people",
        description="Empty writes events alone.",
    )
    members_table: str = Field("headrace_members", title="Table of members", description="Of audiences.")
    audience: str = Field(
        "", max_length=200, title="Audience", description="Name under which a list sync's members stand in their table."
    )
    create_tables: bool = Field(True, title="Create tables", description="Makes a table that is missing.")
    tls: bool = Field(True, title="TLS", description="Encrypts the connection and checks the server's certificate.")

    @field_validator("url")
    @classmethod
    def _usable_url(cls, text: str) -> str:
        try:
            url = make_url(text)
            if url.password is not None:
                raise ValueError("give the password in the setting of that name")
            if url.query:
                raise ValueError("must have no query")
            dialect_of(url)
        except SQLAlchemyError:
            raise ValueError("must be the URL of a database that SQLAlchemy knows, such as postgresql://...") from None
        return text

    @field_validator("db_schema", "events_table", "profiles_table", "members_table")
    @classmethod
    def _identifier(cls, name: str, info: Any) -> str:
        may_be_empty = info.field_name in ("db_schema", "profiles_table")
        if not (name == "" and may_be_empty) and not _NAME.fullmatch(name):
            raise ValueError("must be 1 to 63 letters, digits and _, not a digit first")
        return name

    @model_validator(mode="after")
    def _different_tables(self) -> SqlSettings:
        names = [name for name in (self.events_table, self.profiles_table, self.members_table) if name]
        if len({name.lower() for name in names}) != len(names):
            raise ValueError("the tables must have different names")
        return self

    def database(self) -> URL:
        """The URL with the driver that is used, without the password."""
        return with_driver(make_url(self.url))


def with_driver(url: URL) -> URL:
    """The URL with an asyncio driver, where it names none."""
    return url.set(drivername=_DEFAULT_DRIVERS.get(url.drivername, url.drivername))


def dialect_of(url: URL) -> Dialect:
    """The dialect of a database; nothing is connected.

    Raises:
        ValueError: Its driver is none for asyncio.
        SQLAlchemyError: There is no such dialect.
    """
    kind = with_driver(url).get_dialect()
    if not kind.is_async:
        raise ValueError("needs a driver for asyncio, such as postgresql+asyncpg")
    return kind()
