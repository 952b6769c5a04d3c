"""The SQL destination: events, people and members of audiences as rows of tables, by SQLAlchemy.

https://docs.sqlalchemy.org/en/20/dialects/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from headrace_destination_sql import faults
from headrace_destination_sql.client import Client
from headrace_destination_sql.settings import SqlSettings, dialect_of
from headrace_destination_sql.tables import EVENTS, KEYS, MEMBERS, PROFILES, Tables
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    ConfigError,
    DeleteBatch,
    Destination,
    EventBatch,
    EventItem,
    Field,
    Idempotency,
    Manifest,
    Member,
    MemberBatch,
    Outcomes,
    Request,
    Response,
    Row,
    Skip,
    TransientError,
    iso_time,
)

FIELDS = (
    Field(name="user_id", title="User id", example="u-1",
          default="profile.identifiers.user_id[0] || event.identifiers.user_id[0]"),
    Field(name="anonymous_id", title="Anonymous id", anonymous=True, default="event.identifiers.anonymous_id[0]"),
    Field(name="email", title="E-mail", example="ada@example.com",
          default="profile.identifiers.email[0] || profile.traits.email || event.identifiers.email[0]"),
    Field(name="phone", title="Phone", example="+491711234567", description="Of members of audiences.",
          default="profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="first_name", title="First name", example="Ada", description="Of members of audiences.",
          default="profile.traits.first_name"),
    Field(name="last_name", title="Last name", example="Byron", description="Of members of audiences.",
          default="profile.traits.last_name"),
)  # fmt: skip
_OF_MEMBERS = ("user_id", "email", "phone", "first_name", "last_name")

MANIFEST = Manifest(
    name="sql",
    title="SQL database",
    description="Keeps events, people and members of audiences in tables.",
    factory="headrace_destination_sql.destination:Sql",
    settings=SqlSettings,
    capabilities=frozenset(
        {
            Capability.LIST_SYNC,
            Capability.EVENT_SYNC,
            Capability.FORWARDING,
            Capability.DELETION,
            Capability.CHECK,
        }
    ),
    list_setting="audience",
    fields=FIELDS,
    batch=BatchPolicy(max_items=500, max_bytes=8_000_000, max_wait_s=1.0),
    concurrency=2,
    timeout_s=30.0,
    idempotency=Idempotency.KEY,
    rows_match_people=True,
    schemes=("sql",),
)


class Sql(Destination[SqlSettings]):
    """Writes rows."""

    manifest = MANIFEST

    def __init__(self, settings: SqlSettings) -> None:
        super().__init__(settings)
        self._client: Client | None = None
        try:
            self._dialect = dialect_of(settings.database())
        except (SQLAlchemyError, ImportError) as error:
            raise ConfigError(f"there is no driver for this database ({type(error).__name__})", "url") from None
        self._tables = Tables(settings, self._dialect)

    def rows(self, member: Member) -> Sequence[Row]:
        """One row per member, with what of the member is mapped."""
        values = {name: member.fields[name] for name in _OF_MEMBERS if member.fields.get(name)}
        return [Row.of({"profile_id": member.profile_id, **values})]

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Rows of the table of members, over those that are there."""
        now = iso_time(batch.now_us)
        rows = [
            {
                "audience": self.settings.audience,
                "profile_id": row.data["profile_id"],
                **{name: _text(row.data.get(name)) for name in _OF_MEMBERS},
                "updated_at": now,
            }
            for row in batch.rows
        ]
        yield self._request("UPSERT", self._put(MEMBERS, rows), len(batch.rows))

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Rows that leave the table of members."""
        keys = [{"audience": self.settings.audience, "profile_id": row.data["profile_id"]} for row in batch.rows]
        yield self._request("DELETE", [self._delete(MEMBERS, KEYS[MEMBERS], keys)], len(batch.rows))

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Rows of the table of events, and of the people whose events they are."""
        steps = self._put(EVENTS, _newest(EVENTS, map(_event, batch.events)))
        people = [
            {
                "profile_id": event.profile.id,
                "identifiers": event.profile.identifiers,
                "traits": event.profile.traits,
                "consents": event.profile.consents,
                "updated_at": iso_time(batch.now_us),
            }
            for event in batch.events
            if event.profile is not None and event.profile.id
        ]
        if people and self.settings.profiles_table:
            steps += self._put(PROFILES, _newest(PROFILES, people))
        yield self._request("UPSERT", steps, len(batch.events))

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """All rows of people, in every table, by the ids of all profiles that they were."""
        people = [subject for subject in batch.subjects if subject.profile_id or subject.merged_ids]
        ids = dict.fromkeys(one for subject in people for one in (subject.profile_id, *subject.merged_ids) if one)
        for place, subject in enumerate(batch.subjects):
            if subject not in people:
                yield Skip(item=place, reason="has no profile id, by which rows are found")
        if not ids:
            return
        rows = [{"profile_id": one} for one in ids]
        names = [EVENTS, MEMBERS, *([PROFILES] if self.settings.profiles_table else [])]
        places = [place for place, subject in enumerate(batch.subjects) if subject in people]
        yield self._request("DELETE", [self._delete(name, ("profile_id",), rows) for name in names], places)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What the database said, see `faults`."""
        return faults.outcomes(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the database can be reached and takes the password."""
        yield Check(title="The database answers", request=self._request("SELECT", [{"statement": "SELECT 1"}], 0))

    def read_check(self, check: Check, response: Response) -> str:
        """What the database said."""
        return faults.problem(response)

    async def connect(self) -> None:
        """Make the pool. Whether there is a connection is seen with the first statement."""
        try:
            self._client = Client(self.settings, self._tables)
        except ImportError as error:
            raise TransientError(f"the driver for this database is not installed ({error.name})") from None

    async def deliver(self, request: Request) -> Response:
        """Carry out the statements in one transaction."""
        assert self._client is not None
        return await self._client.carry_out(request)

    async def close(self) -> None:
        """Close the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _put(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        before = [self._delete(table, KEYS[table], [{key: row[key] for key in KEYS[table]} for row in rows])]
        statement = self._tables.text(self._tables.upsert(table), rows[0])
        put = {"statement": statement, "table": table, "rows": list(rows)}
        return [*(before if self._tables.replaces() else []), put]

    def _delete(self, table: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        statement = self._tables.text(self._tables.delete(table, keys))
        return {"statement": statement, "table": table, "by": list(keys), "rows": list(rows)}

    def _request(self, method: str, steps: Sequence[Mapping[str, Any]], items: int | Sequence[int]) -> Request:
        body: dict[str, Any] = {"dialect": self._dialect.name, "statements": steps}
        if self.settings.create_tables and method == "UPSERT":
            names = dict.fromkeys(step["table"] for step in steps)
            body["when_missing"] = [self._tables.text(self._tables.create(name)) for name in names]
        url = self.settings.database()
        port = f":{url.port}" if url.port else ""
        return Request(
            method=method,
            url=f"sql://{url.host or ''}{port}/{(url.database or '').lstrip('/')}".replace(" ", "%20"),
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=tuple(range(items) if isinstance(items, int) else items),
        )


def _event(event: EventItem) -> dict[str, Any]:
    return {
        "message_id": event.message_id,
        "type": event.kind,
        "name": event.name,
        "time": iso_time(event.timestamp_us),
        "received_at": iso_time(event.received_at_us),
        "source_id": event.source_id,
        "profile_id": (event.profile.id or None) if event.profile is not None else None,
        **{name: _text(event.fields.get(name)) for name in ("user_id", "anonymous_id", "email")},
        "group_id": event.group_id or None,
        "traits": event.traits,
        "properties": event.properties,
        "context": event.context,
    }


def _newest(table: str, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with only the last of each key: a statement may touch no row twice."""
    return list({tuple(row[key] for key in KEYS[table]): row for row in rows}.values())


def _text(value: Any) -> str | None:
    if value is None or value in ("", []):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
