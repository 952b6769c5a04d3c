"""The SQL destination through plugin process and outlet, on a real PostgreSQL and a real SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from headrace_sync.outlets.batch import ADD_MEMBERS, DELETE_PEOPLE, REMOVE_MEMBERS
from headrace_sync.outlets.http import VendorClient
from headrace_sync.outlets.verdicts import Kind

from headrace.connector.wire import MemberRows
from headrace_sdk import EventItem, Member, Profile, Subject
from tests.support.connector_outlets import Station, Way
from tests.support.postgres import PASSWORD, postgres

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "sql"

TIME_US = 1_796_000_000_250_000


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with postgres() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(port: int) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", password=PASSWORD, database="postgres"
    )
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield connection
    await connection.close()


def settings(port: int, **more: Any) -> dict[str, Any]:
    url = f"postgresql://postgres@localhost:{port}/postgres"
    return {"url": url, "password": PASSWORD, "tls": False, "audience": "Loyal", **more}


def event(name: str, message_id: str = "", **properties: Any) -> EventItem:
    profile = Profile(
        id="p1", identifiers={"email": ["ada@example.com"], "user_id": ["u1"]}, traits={"plan": "pro"},
        consents={"marketing": "granted"},
    )  # fmt: skip
    return EventItem(
        message_id=message_id or f"m-{name}", kind="track", name=name, timestamp_us=TIME_US, received_at_us=TIME_US,
        source_id="src", identifiers={"anonymous_id": ["a1"]}, properties=properties, profile=profile,
    )  # fmt: skip


def subject(profile_id: str, *merged: str) -> Subject:
    return Subject(profile_id=profile_id, merged_ids=list(merged))


async def kinds(way: Way, *events: EventItem) -> list[Kind]:
    found = await way.deliver(events)
    assert all(PASSWORD not in verdict.reason and "example.com" not in verdict.reason for verdict in found)
    return [verdict.kind for verdict in found]


@pytest_asyncio.fixture(loop_scope="module")
async def sql(port: int, server: asyncpg.Connection, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(port)) as found:
        yield found


async def test_events_and_people_become_rows_and_a_repeat_changes_nothing(sql: Way, server: asyncpg.Connection) -> None:
    for _ in range(2):
        assert await kinds(sql, event("A", total=3), event("B"), event("A", total=3)) == [Kind.DELIVERED] * 3
    rows = await server.fetch("SELECT * FROM headrace_events ORDER BY message_id")
    assert [row["message_id"] for row in rows] == ["m-A", "m-B"]
    row = rows[0]
    assert row["time"].isoformat() == "2026-11-30T00:53:20.250000+00:00"
    assert (row["user_id"], row["anonymous_id"], row["email"], row["profile_id"]) == (
        "u1",
        "a1",
        "ada@example.com",
        "p1",
    )
    assert row["properties"] == '{"total": 3}' and row["group_id"] is None
    (person,) = await server.fetch("SELECT profile_id, traits->>'plan' AS plan, consents FROM headrace_profiles")
    assert (person["profile_id"], person["plan"]) == ("p1", "pro")


async def test_members_come_and_go(sql: Way, server: asyncpg.Connection) -> None:
    found = await sql.outlet.rows(
        [Member(profile_id=one, fields={"email": f"{one}@example.com"}) for one in ("p1", "p2")]
    )
    rows = [row for member in found if isinstance(member, MemberRows) for row in member.rows]
    for _ in range(2):
        assert {one.kind for one in await sql.outlet.send(ADD_MEMBERS, rows)} == {Kind.DELIVERED}
    assert {one.kind for one in await sql.outlet.send(REMOVE_MEMBERS, rows[:1])} == {Kind.DELIVERED}
    left = await server.fetch("SELECT audience, profile_id, email FROM headrace_members")
    assert [tuple(row) for row in left] == [("Loyal", "p2", "p2@example.com")]


async def test_people_are_deleted_from_all_tables(sql: Way, server: asyncpg.Connection) -> None:
    await kinds(sql, event("A"))
    assert {one.kind for one in await sql.outlet.send(DELETE_PEOPLE, [subject("p9", "p1")])} == {Kind.DELIVERED}
    for table in ("headrace_events", "headrace_profiles"):
        assert await server.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_value_that_the_database_refuses_is_found_and_the_rest_goes(
    sql: Way, server: asyncpg.Connection
) -> None:
    found = await sql.deliver([event("A"), event("B", bad="\x00"), event("C")])
    assert [verdict.kind for verdict in found] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert found[1].reason == "the database refuses a value (22P05)"
    assert await server.fetchval("SELECT count(*) FROM headrace_events") == 2


async def test_without_leave_a_missing_table_stops_the_destination(
    port: int, server: asyncpg.Connection, shared: Station
) -> None:
    async with shared.way(settings(port, create_tables=False)) as found:
        assert await kinds(found, event("A")) == [Kind.UNTRIED]
    assert "a table or schema is missing" in found.halted[0]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"password": "wrong"}, "refuses the user or the password (28P01)"),
        ({"url": "postgresql://postgres@localhost:PORT/nowhere"}, "there is no such database (3D000)"),
        ({"db_schema": "nowhere"}, "a table or schema is missing"),
    ],
)
async def test_settings_that_cannot_work_stop_the_destination(
    port: int, server: asyncpg.Connection, shared: Station, wrong: Any, reason: str
) -> None:
    chosen = {name: value.replace("PORT", str(port)) for name, value in wrong.items()}
    async with shared.way(settings(port, **chosen)) as found:
        assert await kinds(found, event("A")) == [Kind.UNTRIED]
    assert reason in found.halted[0]


async def test_a_database_that_is_away_is_tried_again(shared: Station) -> None:
    async with shared.way(settings(9)) as found:
        assert await kinds(found, event("A")) == [Kind.RETRY]


async def test_a_private_address_is_the_operators_to_allow(sql: Way) -> None:
    guarded = VendorClient(allow_private=False)
    sql.outlet._client, allowing = guarded, sql.outlet._client
    try:
        assert await kinds(sql, event("A")) == [Kind.REJECTED]
    finally:
        sql.outlet._client = allowing
        await guarded.close()


async def test_sqlite_does_the_same(shared: Station, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with shared.way({"url": f"sqlite:///{path}", "audience": "Loyal"}) as found:
        for _ in range(2):
            assert await kinds(found, event("A"), event("B")) == [Kind.DELIVERED] * 2
        (member,) = await found.outlet.rows([Member(profile_id="p1", fields={"email": "a@example.com"})])
        assert isinstance(member, MemberRows)
        assert {one.kind for one in await found.outlet.send(ADD_MEMBERS, member.rows)} == {Kind.DELIVERED}
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT message_id, time FROM headrace_events").fetchall() == [
            ("m-A", "2026-11-30 00:53:20.250000"), ("m-B", "2026-11-30 00:53:20.250000"),
        ]  # fmt: skip
        assert file.execute("SELECT profile_id, email FROM headrace_members").fetchall() == [("p1", "a@example.com")]


async def test_a_file_that_cannot_be_opened_stops_the_destination(shared: Station, tmp_path: Path) -> None:
    path = tmp_path / "no" / "shop.db"
    async with shared.way({"url": f"sqlite:///{path}"}) as found:
        assert await kinds(found, event("A")) == [Kind.UNTRIED]
    assert "grant it the rights" in found.halted[0]
