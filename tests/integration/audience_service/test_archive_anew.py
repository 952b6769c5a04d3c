"""The archive after events were assigned anew and people erased: readers are right at once, files soon after."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headrace.domain.times import DAY_US, now_us
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from tests.support.archive import Archive
from tests.support.resolved import event

PARTS = ("p", "q", "r", "s")


@pytest.fixture
def archive(mongo: Client, db: Database, redis: Redis, tmp_path: Path) -> Archive:
    return Archive(mongo, db, redis, tmp_path / "archive")


@pytest.mark.parametrize("seed", range(3))
async def test_readers_and_files_follow_random_reassignments(archive: Archive, seed: int) -> None:
    r = random.Random(seed)
    world = archive.world
    await archive.writer.run_once()
    for turn in range(24):
        part = r.choice([p for p in PARTS if p not in world.gone] or [f"new{turn}"])
        at_us = now_us() - r.choice((0, DAY_US, 30 * DAY_US))
        known = world.parts()
        loser = r.choice(known) if known and r.random() < 0.4 else ""
        world.resolve(event(part, "A", at_us=at_us, message_id=f"m{turn}"), loser)
        if r.random() < 0.3:
            roots = sorted({world.survivor(p) for p in world.parts()})
            world.assign_anew(r, r.sample(roots, min(len(roots), r.choice((1, 2)))))
        if r.random() < 0.5:
            await archive.stores.write()
            if r.random() < 0.7:
                await archive.writer.run_once()
            assert await archive.seen() == archive.true()
            if r.random() < 0.4:
                await archive.rewriter.follow()
                assert await archive.seen() == archive.true()
            if r.random() < 0.3:
                await archive.compactor.merge_small()
    await archive.stores.write()
    await archive.writer.run_once()
    await archive.rewriter.follow()
    assert await archive.seen() == archive.true()
    # Who reads the files without Headrace is right too.
    stored = {(e.profile_id, m) for m, e in world.log.items()}
    assert await archive.valid("events", "profile", "message_id") == stored
    merges = {(m.loser, m.survivor) for e in world.log.values() for m in e.decision.merges}
    assert await archive.valid("merges", "loser", "survivor") == merges
    survivors = await archive.reader.survivors("acme")
    assert {p: survivors.of(p) for p in world.parts()} == {p: world.survivor(p) for p in world.parts()}
    assert await archive.rewriter.follow() == 0


async def test_events_that_belong_to_nobody_any_more_stay_in_the_archive(archive: Archive) -> None:
    world = archive.world
    world.resolve(event("p", "A", message_id="m1"))
    world.resolve(event("p", "A", message_id="m2"))
    world.resolve(event("", "A", message_id="m3"))
    await archive.stores.write()
    await archive.writer.run_once()
    world.log["m1"].profile_id, world.log["m3"].profile_id = "", "p"
    world.split_nothing("p")
    await archive.stores.write()
    assert await archive.seen() == {("p", "m2"), ("p", "m3")}
    await archive.rewriter.follow()
    assert await archive.seen() == {("p", "m2"), ("p", "m3")}
    assert await archive.valid("events", "profile", "message_id") == {("", "m1"), ("p", "m2"), ("p", "m3")}


async def test_the_erased_are_gone_from_the_disk(archive: Archive) -> None:
    world = archive.world
    for number in range(4):
        for part in PARTS:
            world.resolve(event(part, "A", message_id=f"{part}{number}"))
        await archive.stores.write()
        await archive.writer.run_once()
        await archive.compactor.merge_small()  # leaves files that were replaced for an hour
    world.resolve(event("p", "A", message_id="p-merges"), "q")
    await archive.stores.write()
    await archive.writer.run_once()
    # A crash left a file behind.
    files = [f for f in (await archive.registry.listing()).files if f.kind == "events"]
    archive.files.write(files[0].path.replace("-1-", "-0-"), archive.files.read(files[0].path), [("name", "ascending")])
    assert {"p", "q"} <= archive.on_disk("profile")

    profiles, messages = world.erase("p")
    assert profiles == ["p", "q"]
    assert await archive.rewriter.erase("acme", profiles, messages) == len(messages) + 1  # and the merge
    assert archive.on_disk("profile") == {"r", "s"}
    assert archive.on_disk("loser") == set()
    await archive.stores.write()
    assert await archive.seen() == archive.true()
    await archive.rewriter.follow()
    await archive.writer.run_once()
    assert archive.on_disk("profile") == {"r", "s"}
    assert await archive.seen() == archive.true()
    assert await archive.rewriter.erase("acme", profiles, messages) == 0


async def test_the_erased_are_gone_when_only_the_log_says_so(archive: Archive) -> None:
    """Another way round: the log forgets them first, and an event that was committed late is read all the same."""
    world = archive.world
    for part in PARTS:
        world.resolve(event(part, "A", message_id=f"{part}0"))
    world.resolve(event("p", "A", message_id="p1"), "q")
    await archive.stores.write()
    await archive.writer.run_once()
    world.erase("p")
    world.resolve(event("r", "A", message_id="late"))
    world.log["late"].decision.sequence = world.log["r0"].decision.sequence - 1
    await archive.stores.write()
    assert await archive.seen() == archive.true()
    await archive.rewriter.follow()
    assert archive.on_disk("profile") == {"r", "s"}
    assert await archive.seen() == archive.true()
    await archive.writer.run_once()
    assert await archive.seen() == archive.true()
