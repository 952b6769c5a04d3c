"""Reading memberships and their changes by the few indexes that they have; getting rid of those of earlier versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from headrace_audience import store
from headrace_audience.engine.engine import Flip
from headrace_audience.memberships.flips import FlipWriter
from headrace_audience.store import AUDIENCES, CHANGES, INDEXES, MEMBERSHIPS, RETIRED_INDEXES, audience_key
from pymongo import ASCENDING

from headrace.domain.ids import partition_of
from headrace.storage.mongo.client import Client, Database, Document
from headrace.storage.mongo.indexes import make_indexes
from headrace.storage.streams.client import Redis

PARTITIONS = 5
AUDIENCES_OF = {"acme": ["a", "b", "c", "gone"], "other": ["a"]}
PEOPLE = [f"p{number:02}" for number in range(30)]
IN = [person for number, person in enumerate(PEOPLE) if number % 3]


@pytest.fixture
async def filled(mongo: Client, db: Database, redis: Redis) -> Database:
    """Everybody entered all audiences; every third left again, by time."""
    writer = FlipWriter(mongo, db, redis, PARTITIONS)
    await writer.claim(dict.fromkeys(range(PARTITIONS), 1))
    for workspace_id, audiences in AUDIENCES_OF.items():
        await db[AUDIENCES].insert_many(
            {"_id": audience_key(workspace_id, a), "w": workspace_id, "a": a, "state": "ACTIVE"} for a in audiences
        )
        for number, person in enumerate(PEOPLE):
            entries = [Flip(a, person, True, 1, "event", f"m-{a}-{person}") for a in audiences]
            await writer.write(workspace_id, entries, {})
            if number % 3 == 0:
                await writer.write(workspace_id, [Flip(a, person, False, 2, "time") for a in audiences], {})
    return db


@pytest.fixture
async def profiled(filled: Database) -> AsyncIterator[Database]:
    """The same database, which writes down how it finds things."""
    await filled.command("profile", 2)
    yield filled
    await filled.command("profile", 0)
    await filled["system.profile"].drop()


async def found_by(db: Database, collection: str, call: Awaitable[Any]) -> tuple[Any, list[Document]]:
    """What a call answers, and how its queries were answered."""
    answer = await call
    query: Document = {"ns": db[collection].full_name, "op": {"$in": ["query", "command"]}}
    looked = [d async for d in db["system.profile"].find(query)]
    assert looked, "the database wrote nothing down"
    return answer, looked


@pytest.mark.parametrize("merged_at_a_time", [128, 2])
async def test_members_come_in_order_whatever_their_partitions(
    filled: Database, monkeypatch: pytest.MonkeyPatch, merged_at_a_time: int
) -> None:
    monkeypatch.setattr(store, "_MERGED_AT_A_TIME", merged_at_a_time)
    seen: list[str] = []
    while page := await store.members_after(filled, "acme", "b", seen[-1] if seen else "", 4, PARTITIONS, ["p"]):
        seen += [member["p"] for member in page]
    assert seen == IN
    (last,) = await store.members_after(filled, "acme", "b", IN[-2], 4, PARTITIONS, ["p", "version"])
    assert last == {"p": IN[-1], "version": 1}


async def test_a_page_of_members_is_merged_from_the_index_alone(profiled: Database) -> None:
    call = store.members_after(profiled, "acme", "a", "p05", 4, PARTITIONS, ["p"])
    page, looked = await found_by(profiled, MEMBERSHIPS, call)
    assert [member["p"] for member in page] == [p for p in IN if p > "p05"][:4]
    for query in looked:
        assert query["docsExamined"] == 0 and "hasSortStage" not in query, query["planSummary"]
        assert query["keysExamined"] <= 3 * PARTITIONS + 4, "not all members are looked at"


async def test_the_members_of_some_partitions_are_read_from_the_index_alone(profiled: Database) -> None:
    call = store.members_in(profiled, "acme", ["a", "c"], [1, 3], PARTITIONS)
    found, looked = await found_by(profiled, MEMBERSHIPS, call)
    own = {p for p in IN if partition_of(p, PARTITIONS) in (1, 3)}
    assert own and {a: set(members) for a, members in found.items()} == {"a": own, "c": own}
    for query in looked:
        assert query["docsExamined"] == 0 and query["keysExamined"] < 2 * len(IN)
    everybody = await store.members_in(profiled, "acme", ["a"], range(PARTITIONS), PARTITIONS)
    assert sorted(everybody["a"]) == IN


async def test_members_are_counted_from_the_index_alone(profiled: Database) -> None:
    count, looked = await found_by(profiled, MEMBERSHIPS, store.member_count(profiled, "acme", "a"))
    assert count == len(IN)
    assert all(query["docsExamined"] == 0 for query in looked)


@pytest.mark.parametrize("merged_at_a_time", [128, 2])
async def test_changes_of_a_workspace_come_newest_first(
    profiled: Database, monkeypatch: pytest.MonkeyPatch, merged_at_a_time: int
) -> None:
    """Those of audiences that are gone are among them; nothing is sorted, and no more is looked at than is shown."""
    monkeypatch.setattr(store, "_MERGED_AT_A_TIME", merged_at_a_time)
    await profiled[AUDIENCES].update_one({"_id": audience_key("acme", "gone")}, {"$set": {"state": "DELETED"}})
    seen: list[Document] = []
    while True:
        before = (seen[-1]["t"], seen[-1]["_id"]) if seen else None
        call = store.changes_of_all(profiled, "acme", before, 7)
        page, looked = await found_by(profiled, CHANGES, call)
        seen += page
        if not page:
            break
    expected = await profiled[CHANGES].find({"w": "acme"}).to_list(None)
    assert len(expected) == 4 * 40
    assert seen == sorted(expected, key=lambda d: (d["t"], d["_id"]), reverse=True)
    for query in looked:
        assert "hasSortStage" not in query
        assert query["docsExamined"] <= 7 + 4, "those of equal time as the last of a page"


async def test_changes_by_an_event_and_of_a_profile_are_looked_up(profiled: Database) -> None:
    query: Document = {"w": "acme", "m": "m-b-p03"}
    (change,), looked = await found_by(profiled, CHANGES, store.changes_of(profiled, query, None, 10))
    assert (change["a"], change["p"], change["in"]) == ("b", "p03", True)
    assert all(query["docsExamined"] == 1 for query in looked)
    query = {"w": "acme", "p": "p03"}
    changes = await store.changes_of(profiled, query, None, 5)
    assert [(c["a"], c["in"]) for c in changes][:4] == [(a, False) for a in ("gone", "c", "b", "a")]
    older = await store.changes_of(profiled, query, (changes[-1]["t"], changes[-1]["_id"]), 5)
    assert len(older) == 3 and not {c["_id"] for c in older} & {c["_id"] for c in changes}
    profile = [d async for d in profiled["system.profile"].find({"command.filter.p": "p03"})]
    assert profile and all(d["docsExamined"] <= 8 for d in profile)


async def test_indexes_of_earlier_versions_are_dropped(db: Database) -> None:
    for collection, retired in RETIRED_INDEXES.items():
        for name in retired:
            await db[collection].create_index([(f"old_{name}", ASCENDING)], name=name)
        await db[collection].create_index("somebody_elses", name="own")
    await make_indexes(db)
    await make_indexes(db)  # again, without harm
    for collection in RETIRED_INDEXES:
        kept = {model.document["name"] for model in INDEXES[collection]} | {"_id_", "own"}
        assert (await db[collection].index_information()).keys() == kept
        await db[collection].drop_index("own")
