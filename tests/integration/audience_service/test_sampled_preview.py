"""Previews from a sample of people: each of them exact, whatever was merged, and no longer than the time allowed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from headrace_audience.answers import sampled
from headrace_audience.answers.preview import Preview
from headrace_audience.archive.files import Files
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import Registry
from headrace_audience.archive.samples import EVERYBODY, SHARES, sample_of
from headrace_audience.archive.writer import ArchiveWriter
from headrace_audience.batch import queries
from headrace_audience.calls.handlers import Audiences
from headrace_audience.definitions import references
from headrace_audience.store import AUDIENCES, MEMBERSHIPS, audience_key, membership_key

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import profile_id
from headrace.domain.times import SECOND_US
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from tests.support.audience import NoComputedTraits
from tests.support.resolved import FakeIdentity, event

PEOPLE = 3_000


class Workspace:
    """People with events, partly archived, and previews of them."""

    def __init__(self, mongo: Client, db: Database, redis: Redis, folder: Path) -> None:
        registry, files = Registry(mongo, db), Files(str(folder))
        self.identity = FakeIdentity(db, redis, 4)
        self.reader = ArchiveReader(db, registry, files, margin_us=300 * SECOND_US)
        self.writer = ArchiveWriter(db, registry, files, token=1, settle_us=0, margin_us=300 * SECOND_US)
        self.db, self.mongo = db, mongo

    def preview(self, answer_s: float, rows_at_first: int) -> Preview:
        audiences = Audiences(self.mongo, self.db, NoComputedTraits(), 4)
        return Preview(
            self.db, audiences, NoComputedTraits(), self.reader, answer_s=answer_s, rows_at_first=rows_at_first
        )


@pytest.fixture
async def workspace(mongo: Client, db: Database, redis: Redis, tmp_path: Path) -> Workspace:
    made = Workspace(mongo, db, redis, tmp_path)
    choose = random.Random(5)
    people = [profile_id("acme", str(n)) for n in range(PEOPLE)]

    def events(share: float) -> list[ResolvedEvent]:
        found = [event(p, "Viewed") for p in people if choose.random() < share]
        found += [event(p, "Bought", properties={"value": choose.random()}) for p in people if choose.random() < 0.3]
        for _ in range(300):
            loser, survivor = choose.sample(people, 2)
            if made.identity.survivor(loser) == loser != made.identity.survivor(survivor):
                survivor = made.identity.survivor(survivor)
                found.append(event(survivor, "Viewed", merges=[made.identity.merge(loser, survivor)]))
        return found

    await made.identity.store(events(0.7))
    await made.writer.run_once()
    await made.identity.store(events(0.1))
    return made


async def test_all_events_of_the_people_in_a_sample_are_in_it_and_no_others(workspace: Workspace) -> None:
    query = "SELECT DISTINCT profile, message_id FROM events ORDER BY ALL"
    assert workspace.identity.into, "people are merged"
    async with workspace.reader.look("acme") as events:
        everything = await (await events.view(EVERYBODY)).run(lambda c: c.execute(query).fetchall())
        assert len(everything) == len(workspace.identity.stored)
        for sample in range(EVERYBODY):
            found = await (await events.view(sample)).run(lambda c: c.execute(query).fetchall())
            assert found == [row for row in everything if sample_of(row[0]) <= sample], sample


async def test_a_large_workspace_is_estimated_and_counted_when_asked(workspace: Workspace) -> None:
    definition = "performed Bought where (value > 0.5)"
    exact = await workspace.preview(0.0, 1).preview("acme", definition, 10, exact=True)
    assert (exact.size.low, exact.size.high, exact.sampled_people) == (exact.size.size, exact.size.size, 0)
    alive = {workspace.identity.survivor(e.profile_id) for e in workspace.identity.stored}
    quick = await workspace.preview(0.0, 1_000).preview("acme", definition, 10)  # no time for a larger one
    assert quick.sampled_people == sum(sample_of(p) <= 2 for p in alive)
    assert quick.size.low <= exact.size.size <= quick.size.high < 2 * exact.size.size
    assert quick.size.size % (1 / SHARES[2]) == 0
    assert quick.sample and all(sample_of(p) <= 2 for p in quick.sample)
    assert quick.warnings == []
    everybody = await workspace.preview(60.0, 100).preview("acme", definition, 10)
    assert (everybody.size, everybody.sampled_people, everybody.sample) == (exact.size, 0, exact.sample)
    small = await workspace.preview(0.0, 100_000).preview("acme", definition, 10)
    assert (small.size, small.sampled_people) == (exact.size, 0)


async def stored_audience(workspace: Workspace, members: Sequence[str]) -> None:
    """A static audience `stat` with these stored members."""
    document = {"_id": audience_key("acme", "stat"), "w": "acme", "a": "stat", "name": "stat", "state": "ACTIVE"}
    meaning: dict[str, Any] = {
        "def": '{"kind": "static", "where": {"event": "Viewed"}}',
        "traits": [],
        "computed": {},
        "pending": None,
    }
    await workspace.db[AUDIENCES].insert_one({**document, **meaning, "gen": 1, "rev": 1, "open": False})
    rows = [
        {"_id": membership_key("acme", "stat", p), "w": "acme", "a": "stat", "p": p, "in": True, "q": 0, "since": 0}
        for p in members
    ]
    await workspace.db[MEMBERSHIPS].insert_many(rows)


@pytest.fixture
def reads_no_whole_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audience may have millions of members: of a sample only its people are looked up."""

    async def refuse(*_: object) -> list[str]:
        raise AssertionError("all stored members were read")

    for module in (references, sampled):
        monkeypatch.setattr(module, "stored_members", refuse)


@pytest.mark.usefixtures("reads_no_whole_audience")
async def test_stored_members_of_a_named_audience_are_read_for_the_sample_only(workspace: Workspace) -> None:
    alive = {workspace.identity.survivor(e.profile_id) for e in workspace.identity.stored}
    members = sorted(alive)[::2]
    await stored_audience(workspace, [*members, *(profile_id("acme", f"other {n}") for n in range(5_000))])
    found = await workspace.preview(0.0, 1_000).preview("acme", "in audience stat", 10)
    inside = sum(sample_of(p) <= 2 for p in members)
    assert 0 < found.sampled_people == sum(sample_of(p) <= 2 for p in alive) < len(alive)
    assert found.size.size == round(inside / SHARES[2]) and found.size.low <= len(members) <= found.size.high
    assert set(found.sample) <= set(members)
    small = await workspace.preview(0.0, 100_000).preview("acme", "in audience stat", 10)
    assert (small.size.size, small.sampled_people) == (len(members), 0)


@pytest.mark.usefixtures("reads_no_whole_audience")
async def test_the_difference_of_an_edit_is_estimated_in_a_large_workspace(workspace: Workspace) -> None:
    alive = {workspace.identity.survivor(e.profile_id) for e in workspace.identity.stored}
    bought = {workspace.identity.survivor(e.profile_id) for e in workspace.identity.stored if e.event.name == "Bought"}
    before, gone = set(sorted(alive)[::2]), ["forgotten"]
    await stored_audience(workspace, [*before, *gone])
    quick = await workspace.preview(0.0, 1_000).compare("acme", "stat", "performed Bought", exact=False)
    assert quick.sampled_people == sum(sample_of(p) <= 2 for p in alive)
    for found, truth in (
        (quick.enter, bought - before),
        (quick.leave, before - bought),
        (quick.stay, before & bought),
    ):
        assert found.size == round(sum(sample_of(p) <= 2 for p in truth) / SHARES[2])
        assert found.low <= len(truth) <= found.high and found.low < found.high
    small = await workspace.preview(0.0, 100_000).compare("acme", "stat", "performed Bought", exact=False)
    exact = (len(bought - before), len(before - bought) + len(gone), len(before & bought))
    assert (small.enter.size, small.leave.size, small.stay.size) == exact
    assert (small.sampled_people, small.enter.low, small.enter.high) == (0, exact[0], exact[0])


async def test_names_that_only_few_have_are_no_errors(workspace: Workspace) -> None:
    somebody = next(p for e in workspace.identity.stored if sample_of(p := e.profile_id) == EVERYBODY)
    await workspace.identity.store([event(somebody, "Complained")])
    found = await workspace.preview(0.0, 1).preview("acme", "performed Complained", 10)
    assert (found.size.size, found.warnings) == (0, [])
    assert found.size.high >= 1


async def test_a_sample_that_takes_too_long_is_given_up(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second query would run for minutes; what the first one found is the answer."""
    run, asked = queries.preview, 0

    def slow(*args: object, **kwargs: object) -> queries.Preview:
        nonlocal asked
        asked += 1
        if asked > 1:
            args[0].execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7")  # type: ignore[attr-defined]
        return run(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("headrace_audience.batch.queries.preview", slow)
    began = time.monotonic()
    found = await workspace.preview(3.0, 1_000).preview("acme", "performed Bought", 10)
    assert asked == 2
    assert found.sampled_people > 0
    assert time.monotonic() - began < 60


async def test_who_goes_away_ends_the_query(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: object, *args: object, **kwargs: object) -> queries.Preview:
        loop.call_soon_threadsafe(running.set)
        connection.execute("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7")  # type: ignore[attr-defined]
        raise AssertionError("it was not interrupted")

    monkeypatch.setattr("headrace_audience.batch.queries.preview", slow)
    task = asyncio.create_task(workspace.preview(1.0, 1_000).preview("acme", "performed Bought", 10))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    async with workspace.reader.look("acme") as events:
        view = await events.view(0)
        assert await view.run(lambda c: c.execute("SELECT 1").fetchall()) == [(1,)]
