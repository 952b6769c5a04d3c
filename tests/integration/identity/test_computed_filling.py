"""Filling, changing and removing computed traits: ended at any step, beside traffic, beside reassignments."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from headrace_identity.computed.filling import Filler
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.store import READY, ComputedTraitStore
from headrace_identity.gates import GateClosed
from headrace_identity.reassign.folds import FOLDS
from headrace_identity.store import COMPUTED_TRAIT_REMOVALS, COMPUTED_TRAITS, COMPUTED_VALUES
from headrace_identity.worker import Incoming, Worker
from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Event, Identifier
from headrace.domain.times import DAY_US, HOUR_US, now_us
from headrace.rpc.errors import ApiError
from headrace.storage.mongo.client import Database, Document
from tests.support.computed import assert_exact, fill, people_of, track
from tests.support.identity import WORKSPACE
from tests.support.reassignment import corrections, merges_of

COUNT = {"event": "Purchased", "compute": "count"}
SUM = {"event": "Purchased", "within": "7d", "compute": {"sum": "v"}}
FAVOURITE = {"event": "Purchased", "within": "30d", "compute": {"most_frequent": "kind"}}
DEFINITIONS: dict[str, dict[str, Any]] = {"count": COUNT, "sum": SUM, "favourite": FAVOURITE}
FILL_STEPS = ["taken", "read parts", "gathered", "gathered the rest", "filled", "advanced", "committed"]
REMOVE_STEPS = ["taken", "unset", "removed"]


class Killed(BaseException):
    """The end of a process: nothing in it may catch this."""


def history(count: int, seed: int = 1, people: int = 8) -> list[Event]:
    rng = random.Random(seed)
    now = now_us()
    return [
        track(
            f"m{seed}-{i}",
            now - rng.randrange(10 * DAY_US) + rng.randrange(HOUR_US),
            {"v": rng.choice((1, 0.1, 19.9, "no")), "kind": rng.choice("abc")},
            workspace_id=WORKSPACE,
            who=[("anonymous_id", f"a{rng.randrange(people)}")]
            + ([("user_id", f"u{rng.randrange(people)}")] if rng.random() < 0.3 else []),
        )
        for i in range(count)
    ]


async def process(worker: Worker, events: Sequence[Event]) -> None:
    await worker.process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])


async def create(db: Database, *ids: str) -> ComputedTraitStore:
    store = ComputedTraitStore(db)
    for trait_id in ids:
        await store.create(WORKSPACE, trait_id, "", json.dumps(DEFINITIONS[trait_id]).encode())
    return store


async def exact(db: Database, *ids: str) -> None:
    moments = [now_us(), now_us() + 30 * 60 * 1_000_000, now_us() + 3 * DAY_US]
    assert await assert_exact(db, WORKSPACE, {i: DEFINITIONS[i] for i in ids}, moments) > 0


async def expire_leases(db: Database) -> None:
    """What the passing of time does after a crash."""
    for collection in (COMPUTED_TRAITS, COMPUTED_TRAIT_REMOVALS):
        await db[collection].update_many({}, {"$set": {"lu": 0}})


@pytest.mark.parametrize("step", FILL_STEPS)
async def test_filling_ends_at_any_step(db: Database, step: str) -> None:
    worker = Worker(db)
    await process(worker, history(60))
    await create(db, "count", "sum")
    times = 0

    async def at_step(name: str) -> None:
        nonlocal times
        times += name == step
        if times == 3:
            raise Killed

    doomed = Filler(db, most_parts=2, at_step=at_step)
    with pytest.raises(Killed):
        while await doomed.step():
            await process(worker, history(5, seed=times + 2))
    await process(worker, history(10, seed=100))
    await expire_leases(db)
    await fill(db)
    await exact(db, "count", "sum")


@pytest.mark.parametrize("step", REMOVE_STEPS)
async def test_removing_ends_at_any_step(db: Database, step: str) -> None:
    worker = Worker(db)
    await process(worker, history(30))
    store = await create(db, "count", "sum")
    await fill(db)
    await store.delete(WORKSPACE, "sum")

    async def at_step(name: str) -> None:
        if name == step:
            raise Killed

    with pytest.raises(Killed):
        await Filler(db, at_step=at_step).step()
    await process(worker, history(10, seed=2))
    await expire_leases(db)
    await fill(db)
    await exact(db, "count")
    generation = (await store.get(WORKSPACE, "count"))["g"]
    async for document in db[COMPUTED_VALUES].find({}):
        assert list(document["s"]) == [generation]
    await store.delete(WORKSPACE, "count")
    await fill(db)
    assert await db[COMPUTED_VALUES].count_documents({}) == await db[COMPUTED_TRAIT_REMOVALS].count_documents({}) == 0
    await process(worker, history(10, seed=3))
    assert await db[COMPUTED_VALUES].count_documents({}) == 0


async def test_values_are_shown_only_when_they_are_exact(db: Database) -> None:
    worker = Worker(db)
    await process(worker, history(30))
    store = await create(db, "count", "sum")
    values = ComputedValues(db)

    async def shown() -> set[str]:
        found = await values.values(WORKSPACE, await people_of(db, WORKSPACE), now_us())
        return {v.computed_trait_id for person in found.values() for v in person}

    assert await shown() == set()
    await fill(db)
    assert await shown() == {"count", "sum"}
    done = (await store.get(WORKSPACE, "count"))["done"]
    assert done == 30
    # The same definition, written in another way, is not another one.
    await store.update(WORKSPACE, "count", display_name=None, definition=json.dumps(COUNT, indent=1).encode(), etag="")
    assert await shown() == {"count", "sum"}
    # Another one is filled anew: what was kept of the one before is shown no more, and goes.
    before = await store.get(WORKSPACE, "count")
    changed = {**COUNT, "where": [{"property": "v", "gt": 1}]}
    after = await store.update(
        WORKSPACE, "count", display_name="Big", definition=json.dumps(changed).encode(), etag=f"{before['rev']:x}"
    )
    assert (after["n"], after["st"], after["done"]) == ("Big", "filling", 0)
    assert await shown() == {"sum"}
    with pytest.raises(ApiError, match="has changed"):
        await store.update(WORKSPACE, "count", display_name="x", definition=None, etag=f"{before['rev']:x}")
    await fill(db)
    await assert_exact(db, WORKSPACE, {"count": changed, "sum": SUM}, [now_us()])
    assert not [d async for d in db[COMPUTED_VALUES].find({f"s.{before['g']}": {"$exists": True}})]


async def test_filling_beside_traffic(db: Database) -> None:
    """Two workers and two fillers, traits defined, changed and removed meanwhile."""
    workers = [Worker(db), Worker(db)]
    await process(workers[0], history(100))
    rng = random.Random(5)

    async def traffic(number: int) -> None:
        for i in range(6):
            await process(workers[number], history(10, seed=10 * number + i + 2))
            await asyncio.sleep(rng.uniform(0, 0.02))

    async def define() -> None:
        store = await create(db, "count")
        await asyncio.sleep(0.05)
        await create(db, "sum", "favourite")
        await store.delete(WORKSPACE, "count")
        await create(db, "count")

    fillers = [Filler(db, most_parts=2, poll_s=0.02) for _ in range(2)]
    running = [asyncio.create_task(f.run()) for f in fillers]
    await asyncio.gather(traffic(0), traffic(1), define())
    async with asyncio.timeout(20):
        while await db[COMPUTED_TRAITS].count_documents({"st": {"$ne": READY}}):
            await asyncio.sleep(0.02)
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await expire_leases(db)
    await fill(db)
    await exact(db, "count", "sum", "favourite")


async def test_a_trait_that_cannot_be_filled_holds_up_no_other(db: Database) -> None:
    await process(Worker(db), history(5, seed=1))
    await create(db, "count", "sum")
    tried: list[str] = []

    class Broken(Filler):
        async def _fill(self, document: Document) -> None:
            tried.append(document["i"])
            if document["i"] == "count":
                raise ValueError("as if its definition could not be used")
            await super()._fill(document)

    running = asyncio.create_task(Broken(db, poll_s=0.02).run())
    async with asyncio.timeout(20):
        while not await db[COMPUTED_TRAITS].count_documents({"i": "sum", "st": READY}):
            await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert tried.count("count") == 1, "it is put off, and not tried again and again"
    assert await db[COMPUTED_TRAITS].count_documents({"i": "count", "st": READY}) == 0
    await expire_leases(db)
    await fill(db)
    await exact(db, "count", "sum")


@pytest.mark.parametrize("step", ["taken", "read parts", "gathered", "gathered the rest", "committed"])
async def test_a_person_is_split_while_a_trait_is_filled(db: Database, step: str) -> None:
    """A reassignment takes events from parts that are being filled, at any moment at which it is not kept from it."""
    now = now_us()
    a, u = ("anonymous_id", "a"), ("user_id", "u")
    events = [
        track(f"m{i}", now - i * DAY_US, {"v": i, "kind": "ab"[i % 2]}, workspace_id=WORKSPACE, who=who)
        for i, who in enumerate(([a], [u], [u, a], [a], [u], [a]))
    ]
    await process(Worker(db), events)
    await create(db, "count", "sum", "favourite")
    (merge,) = await merges_of(db)
    undone = False

    async def at_step(name: str) -> None:
        nonlocal undone
        if name == step and not undone:
            undone = True
            await corrections(db).undo_merge(WORKSPACE, merge, "not the same")

    filler = Filler(db, at_step=at_step)
    running = asyncio.create_task(filler.run())
    async with asyncio.timeout(20):
        while not undone or await db[COMPUTED_TRAITS].count_documents({"st": {"$ne": READY}}):
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(await people_of(db, WORKSPACE)) == 2
    await exact(db, "count", "sum", "favourite")


@pytest.mark.parametrize("step", ["read parts", "gathered", "gathered the rest"])
@pytest.mark.parametrize("chunk", [1, 2])
async def test_a_part_loses_all_its_events_while_it_is_filled(db: Database, chunk: int, step: str) -> None:
    """Nothing is left of it: neither for its profile, which is gone, nor for one of the same id that may come again."""
    now = now_us()
    a, b = ("anonymous_id", "a"), ("anonymous_id", "b")
    events = [track(f"m{i}", now, {"v": 1}, workspace_id=WORKSPACE, who=[who]) for i, who in enumerate((a, b, b))]
    await process(Worker(db), events)
    await create(db, "count")
    chunks = 0

    async def at_step(name: str) -> None:
        nonlocal chunks
        chunks += name == step
        if chunks == chunk and name == step:
            one, other = (Identifier(namespace=n, value=v) for n, v in (a, b))
            await corrections(db).add_link(WORKSPACE, "together", one, other, "the same")

    filler = Filler(db, most_parts=1, at_step=at_step)
    with suppress(GateClosed, PyMongoError):
        await filler.step()
        await filler.step()
    await expire_leases(db)
    await fill(db)
    (parts,) = (await people_of(db, WORKSPACE)).values()
    assert {d["p"].partition("\x1f")[2] async for d in db[COMPUTED_VALUES].find({})} == set(parts)
    assert len(parts) == 1
    await exact(db, "count")


async def test_a_trait_is_changed_just_when_it_is_filled(db: Database) -> None:
    await process(Worker(db), history(30))
    store = await create(db, "count")
    steps = 0

    async def at_step(name: str) -> None:
        nonlocal steps
        steps += name == "taken"
        if name == "taken" and steps == 1:
            definition = json.dumps({**COUNT, "within": "3d"}).encode()
            await store.update(WORKSPACE, "count", display_name=None, definition=definition, etag="")

    filler = Filler(db, most_parts=4, at_step=at_step)
    assert await filler.step()
    document = await store.get(WORKSPACE, "count")
    assert (document["at"], document["done"]) == ("", 0)
    assert await db[COMPUTED_VALUES].count_documents({}) == 0
    await expire_leases(db)
    await fill(db)
    await assert_exact(db, WORKSPACE, {"count": {**COUNT, "within": "3d"}}, [now_us()])


async def test_a_trait_is_defined_and_filled_while_events_are_resolved(db: Database) -> None:
    """Those events have read that there are no traits, and filling does not see them: they must be resolved again."""
    await process(Worker(db), history(10))
    done = False

    async def at_step(name: str) -> None:
        nonlocal done
        if name == "inserted" and not done:
            done = True
            await create(db, "count", "sum")
            await fill(db)

    await process(Worker(db, at_step=at_step), history(10, seed=2, people=30))
    assert done
    await exact(db, "count", "sum")


async def test_values_follow_events_to_other_parts(db: Database) -> None:
    assert any(type(f).__name__ == "ComputedTraitFold" for f in FOLDS)
    await create(db, "count", "sum", "favourite")
    await fill(db)
    worker = Worker(db)
    await process(worker, history(40, people=4))
    for merge in await merges_of(db):
        with suppress(ApiError):  # another undone merge may have undone it
            await corrections(db).undo_merge(WORKSPACE, merge, "not the same")
        await exact(db, "count", "sum", "favourite")
    await process(worker, history(20, seed=2, people=4))
    await exact(db, "count", "sum", "favourite")


async def test_a_workspace_without_computed_traits_has_no_cost(db: Database) -> None:
    await process(Worker(db), history(20))
    assert await db[COMPUTED_VALUES].count_documents({}) == 0
    await create(db, "count")
    others = history(20, seed=2)
    for other in others:
        other.name = "Left"
    await process(Worker(db), others)
    assert await db[COMPUTED_VALUES].count_documents({}) == 0


async def test_buckets_of_days_expire_when_no_window_reaches_them(db: Database) -> None:
    await create(db, "count", "sum", "favourite")
    await fill(db)
    now = now_us()
    today = now - now % DAY_US
    times = {"now": now, "old": now - 20 * DAY_US, "older": now - 50 * DAY_US, "never": 2**60, "long ago": -(2**55)}
    for name, time_us in times.items():
        event = track(name, time_us, {"v": 1, "kind": "a"}, workspace_id=WORKSPACE)
        await process(Worker(db), [event])
    found = {d["_id"].rpartition("\x1f")[2]: d async for d in db[COMPUTED_VALUES].find({})}
    store = ComputedTraitStore(db)
    generations = {i: (await store.get(WORKSPACE, i))["g"] for i in DEFINITIONS}
    days = {name: str(time_us // DAY_US) for name, time_us in times.items()}
    # Fifty days ago is out of reach of both windows, twenty days ago of the one of seven days.
    assert found.keys() == {"", days["now"], days["old"], days["never"]}
    assert "x" not in found[""]
    assert found[days["old"]]["s"].keys() == {generations["favourite"]}
    # The day itself, the longest window of the traits in it, and a day because clocks differ.
    assert found[days["now"]]["x"] == datetime.fromtimestamp((today + 32 * DAY_US) / 1e6, UTC)
    assert found[days["old"]]["x"] == datetime.fromtimestamp((today + 12 * DAY_US) / 1e6, UTC)
    assert found[days["never"]]["x"].year == 9999
    await exact(db, "count", "sum", "favourite")
