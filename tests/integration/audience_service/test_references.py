"""Audiences whose stored members others go by: half a refresh is not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from headrace_audience.definitions import references
from headrace_audience.definitions.references import referenced_whole
from headrace_audience.language.parser import parse_definition
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import COUNT, QUICK, AudienceClient, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

HOURLY: dict[str, Any] = {"refresh": "1h", **COUNT}
NAMING: dict[str, Any] = {"kind": "static", "where": {"audience": "hourly"}}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


Meanwhile = Callable[[Callable[[], Awaitable[object]]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """meanwhile(act): `act` happens once, in the middle of the next reading of stored members."""
    read = references.stored_members

    def once(act: Callable[[], Awaitable[object]]) -> None:
        async def reading(*arguments: Any) -> list[str]:
            found = await read(*arguments)
            monkeypatch.setattr(references, "stored_members", read)
            await act()
            return found

        monkeypatch.setattr(references, "stored_members", reading)

    return once


async def test_members_that_are_being_written_are_not_taken(
    client: AudienceClient, identity: FakeIdentity, db: Database, meanwhile: Meanwhile
) -> None:
    await client.start("hourly", HOURLY)
    await client.start("live", COUNT)
    naming = parse_definition({"where": {"any": [{"audience": "hourly"}, {"audience": "live"}, {"audience": "none"}]}})
    assert await referenced_whole(db, "acme", naming) == {"hourly": [], "live": parse_definition(COUNT), "none": []}

    def change(audience_id: str, **fields: Any) -> Callable[[], Awaitable[object]]:
        return lambda: db[AUDIENCES].update_one({"a": audience_id}, {"$set": fields})

    for begun in ({"open": True, "gen": 7}, {"open": False, "gen": 8}):  # a refresh that begins, and a whole one
        meanwhile(change("hourly", **begun))
        assert await referenced_whole(db, "acme", naming) is None
    meanwhile(change("live", open=True, gen=9))
    assert await referenced_whole(db, "acme", naming) is not None, "of this one no stored members were read"
    await change("hourly", open=True)()
    assert await referenced_whole(db, "acme", naming) is None
    # While it waits for its new version to be confirmed nobody is written.
    await change("hourly", state="FILLING", pending={"gen": 1})()
    assert await referenced_whole(db, "acme", naming) is not None


async def test_a_static_audience_reads_one_that_is_refreshed_meanwhile_when_that_is_done(
    client: AudienceClient, identity: FakeIdentity, db: Database, meanwhile: Meanwhile
) -> None:
    people = [f"p{i}" for i in range(12)]
    await client.start("hourly", HOURLY)
    await identity.resolve(*(event(p, "Purchased") for p in people))
    await client.start("witness", COUNT)
    await client.has_members("witness", people)
    begun: list[int] = []

    async def refresh() -> None:
        now = now_us()
        change = {"cause": "refresh", "at": now, "done": [], "open": True, "updated": now}
        answer = await db[AUDIENCES].update_one({"a": "hourly"}, {"$set": change, "$inc": {"gen": 1}})
        begun.append(answer.modified_count)

    meanwhile(refresh)
    await client.create("static", NAMING)
    await client.activate("static")
    await client.active("static")
    assert begun == [1] and await client.members("static") == sorted(people)
