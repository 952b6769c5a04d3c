"""The tables, and the statements on them. Pure: the same statements are shown in dry runs and carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Delete, Insert, MetaData, String, Table, Text, bindparam
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.dml import DMLWhereBase

from headrace_destination_sql.settings import SqlSettings

EVENTS, PROFILES, MEMBERS = "events", "profiles", "members"
KEYS: Mapping[str, tuple[str, ...]] = {
    EVENTS: ("message_id",),
    PROFILES: ("profile_id",),
    MEMBERS: ("audience", "profile_id"),
}
"""The key of each table: a row of the same key is overwritten."""

_TIMES = frozenset({"time", "received_at", "updated_at"})
_JSON = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_TIME = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_BIND = "key_"


class Tables:
    """The tables of one destination."""

    def __init__(self, settings: SqlSettings, dialect: Dialect) -> None:
        """Name the tables.

        Args:
            settings: Their names.
            dialect: Of the database.
        """
        self._dialect = dialect
        kept, schema = MetaData(), settings.db_schema or None
        # MySQL can only index a text whose length has a limit.
        self._tables = {
            EVENTS: Table(
                settings.events_table, kept, Column("message_id", String(255), primary_key=True),
                Column("type", String(32)), Column("name", Text), Column("time", _TIME), Column("received_at", _TIME),
                Column("source_id", String(255)), Column("profile_id", String(255), index=False),
                Column("user_id", Text), Column("anonymous_id", Text), Column("email", Text), Column("group_id", Text),
                Column("traits", _JSON), Column("properties", _JSON), Column("context", _JSON), schema=schema,
            ),
            PROFILES: Table(
                settings.profiles_table or "unused", kept, Column("profile_id", String(255), primary_key=True),
                Column("identifiers", _JSON), Column("traits", _JSON), Column("consents", _JSON),
                Column("updated_at", _TIME), schema=schema,
            ),
            MEMBERS: Table(
                settings.members_table, kept, Column("audience", String(200), primary_key=True),
                Column("profile_id", String(255), primary_key=True), Column("user_id", Text), Column("email", Text),
                Column("phone", Text), Column("first_name", Text), Column("last_name", Text),
                Column("updated_at", _TIME), schema=schema,
            ),
        }  # fmt: skip

    def upsert(self, name: str) -> Insert:
        """Puts rows into a table, over those of the same key."""
        table, keys = self._tables[name], KEYS[name]
        rest = [column.name for column in table.columns if column.name not in keys]
        if self._dialect.name in ("mysql", "mariadb"):
            put = mysql.insert(table)
            return put.on_duplicate_key_update({column: put.inserted[column] for column in rest})
        if self._dialect.name == "postgresql":
            own = postgresql.insert(table)
            return own.on_conflict_do_update(
                index_elements=keys, set_={column: own.excluded[column] for column in rest}
            )
        if self._dialect.name == "sqlite":
            light = sqlite.insert(table)
            return light.on_conflict_do_update(
                index_elements=keys, set_={column: light.excluded[column] for column in rest}
            )
        return table.insert()

    def replaces(self) -> bool:
        """Whether rows of the same key must be deleted before, because the database knows no upsert."""
        return self._dialect.name not in ("mysql", "mariadb", "postgresql", "sqlite")

    def delete(self, name: str, keys: Sequence[str]) -> Delete:
        """Deletes the rows of a table with the values of these columns."""
        table = self._tables[name]
        statement = table.delete()
        for key in keys:
            statement = statement.where(table.c[key] == bindparam(_BIND + key, type_=table.c[key].type))
        return statement

    def create(self, name: str) -> CreateTable:
        """Makes a table unless it is there."""
        return CreateTable(self._tables[name], if_not_exists=True)

    def text(self, statement: Insert | Delete | CreateTable, row: Mapping[str, Any] | None = None) -> str:
        """A statement as it goes to the database."""
        columns = list(row) if isinstance(statement, Insert) and row is not None else None
        compiled = (
            statement.compile(dialect=self._dialect)
            if columns is None
            else statement.compile(dialect=self._dialect, column_keys=columns)
        )
        return " ".join(str(compiled).split())

    def parameters(self, statement: DMLWhereBase | Insert, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the driver takes it: times as such, keys of a deletion by their place."""
        values = {name: self._time(value) if name in _TIMES and value else value for name, value in row.items()}
        return values if isinstance(statement, Insert) else {_BIND + name: value for name, value in values.items()}

    def _time(self, text: str) -> datetime:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        # Only some databases have times with a zone; in all others they are in UTC.
        return moment if self._dialect.name in ("postgresql", "oracle") else moment.replace(tzinfo=None)
