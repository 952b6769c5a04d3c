"""What planning hands to a worker, and what the worker takes itself, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from headrace_sync.deliveries.handover import Handover
from headrace_sync.deliveries.store import DeliveryStore, held_by
from headrace_sync.deliveries.work import Work, forwarding_document
from headrace_sync.deliveries.worker import Worker
from headrace_sync.store import DELIVERIES, WAITING

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document


class Taker:
    """Collects what it is offered."""

    owner = "process-1"

    def __init__(self, *, ended: bool = False) -> None:
        self.offered: list[str] = []
        self.ended = ended

    def room(self) -> int:
        return 100

    def offer(self, works: Iterable[Work]) -> bool:
        self.offered += [work.id for work in works]
        return not self.ended

    def wake(self) -> None: ...


class Gate:
    """Somewhere to be stopped."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


class SlowStore(DeliveryStore):
    """Its answer to a claim is a long time coming."""

    def __init__(self, db: Database, gate: Gate) -> None:
        super().__init__(db)
        self.gate = gate

    async def claim(self, *args: Any, **kwargs: Any) -> list[Document]:
        documents = await super().claim(*args, **kwargs)
        await self.gate.pass_through()
        return documents


def worker_of(store: DeliveryStore, gate: Gate | None = None) -> Worker:
    """A worker that can take, and loads events slowly when there is a gate."""

    async def load_events(documents: Sequence[Document]) -> Mapping[str, Event]:
        if gate is not None:
            await gate.pass_through()
        return {d["_id"]: Event(workspace_id="w", message_id=d["m"]) for d in documents}

    outlet: Any = SimpleNamespace(info=SimpleNamespace(name="hook"), drain=lambda: None)
    values: dict[str, Any] = {
        "queue_size": 100,
        "lease_s": 60,
        "poll_s": 1,
        "results": Mock(),
        "jobs": None,
        "items": None,
    }
    return Worker(
        key="w\x1fdestination",
        outlet=outlet,
        store=store,
        load_events=load_events,
        sync_of=lambda key: SimpleNamespace(),  # type: ignore[arg-type,return-value]  # only asked whether there is one
        owner="process-1",
        **values,
    )


class Between:
    """A database in which something happens right before deliveries are updated for the first time."""

    def __init__(self, db: Database, happens: Callable[[], Awaitable[object]]) -> None:
        self.happens: Callable[[], Awaitable[object]] | None = happens
        self.collection = db[DELIVERIES]

    def __getitem__(self, name: str) -> Any:
        assert name == DELIVERIES
        return self

    def find(self, *args: Any) -> Any:
        return self.collection.find(*args)

    async def update_many(self, *args: Any) -> Any:
        if self.happens is not None:
            await self.happens()
            self.happens = None
        return await self.collection.update_many(*args)


async def leased(db: Database) -> set[str]:
    """Message ids of the deliveries that nobody else may take now."""
    return {d["m"] async for d in db[DELIVERIES].find({"st": WAITING, "na": {"$gt": now_us()}})}


def work(message_id: str) -> Work:
    event = Event(workspace_id="w", message_id=message_id)
    sync = SimpleNamespace(key="sync", destination_key="w\x1fdestination", delay_seconds=0)
    resolved = ResolvedEvent(event=event, profile_id="p")
    return Work(forwarding_document(sync, resolved, 1), event)  # type: ignore[arg-type]  # what is asked of a sync


async def test_a_delivery_that_is_planned_twice_is_handed_over_once(db: Database) -> None:
    taker = Taker()
    handover = Handover(DeliveryStore(db), taker_of=lambda key: taker, lease_s=60)
    first, second = work("m1"), work("m2")
    assert await handover.store([first, second, work("m1")]) == 2
    assert sorted(taker.offered) == sorted([first.id, second.id])
    assert await handover.store([work("m2"), work("m1")]) == 0
    assert len(taker.offered) == 2
    assert await db[DELIVERIES].count_documents({"lo": {"$regex": "^process-1:"}}) == 2


async def test_what_was_planned_for_a_worker_that_has_ended_is_free_for_the_next(db: Database) -> None:
    taker = Taker(ended=True)
    assert await Handover(DeliveryStore(db), taker_of=lambda key: taker, lease_s=60).store([work("m1")]) == 1
    assert len(taker.offered) == 1
    assert await leased(db) == set()

    ended = worker_of(DeliveryStore(db))
    await ended.drain(asyncio.create_task(asyncio.sleep(0)), 1.0)
    assert not ended.offer([work("m2")])


async def claimed(store: DeliveryStore, owner: str) -> dict[str, Document]:
    """What an owner can take, by message id."""
    taken = await store.claim("w\x1fdestination", owner=owner, limit=9, now=now_us(), lease_us=60 * SECOND_US)
    return {d["m"]: d for d in taken}


async def test_what_another_process_takes_meanwhile_is_not_taken(db: Database) -> None:
    other = DeliveryStore(db)
    await other.insert([work("m1").document, work("m2").document])

    async def take_one() -> None:
        await db[DELIVERIES].update_one({"m": "m1"}, {"$set": {"lo": "other:1", "na": now_us() + SECOND_US}})

    taken = await claimed(DeliveryStore(Between(db, take_one)), "process-1")  # type: ignore[arg-type]  # what is used
    assert set(taken) == {"m2"}
    assert {d["m"]: d["lo"] async for d in db[DELIVERIES].find({})} == {"m1": "other:1", "m2": taken["m2"]["lo"]}
    assert taken["m2"] == await db[DELIVERIES].find_one({"m": "m2"})


async def test_what_is_taken_is_known_as_it_is_when_it_is_taken(db: Database) -> None:
    """Its holder, whose lease had ended, gives back at the last moment what was never sent."""
    held = work("m1").document | {"lo": "late:1", "sg": True}
    await DeliveryStore(db).insert([held, work("m2").document])

    async def give_back() -> None:
        await DeliveryStore(db).release([held["_id"]], held=held_by("late"), at=now_us() - SECOND_US)

    taken = await claimed(DeliveryStore(Between(db, give_back)), "process-1")  # type: ignore[arg-type]  # what is used
    assert {m: "sg" in d for m, d in taken.items()} == {"m1": False, "m2": False}
    assert [d async for d in db[DELIVERIES].find({}).sort("m")] == [taken["m1"], taken["m2"]]


@pytest.mark.parametrize("place", ["the claim", "loading the events"])
async def test_what_a_worker_was_taking_when_it_was_stopped_is_free_for_the_next(db: Database, place: str) -> None:
    """And nothing else that this process holds: the next worker may have begun already."""
    gate, store = Gate(), DeliveryStore(db)
    await store.insert([work("held").document])
    await store.claim("w\x1fdestination", owner="process-1", limit=1, now=now_us(), lease_us=60 * SECOND_US)
    sent = work("sent").document | {"sg": True}
    await store.insert([work("m1").document, work("m2").document, sent])
    stopped = worker_of(SlowStore(db, gate)) if place == "the claim" else worker_of(store, gate)
    taking = asyncio.create_task(stopped._take(10))
    await gate.reached.wait()
    assert await leased(db) >= {"held", "m1", "m2"}
    taking.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await leased(db) == {"held"}
    again = await store.claim("w\x1fdestination", owner="process-1", limit=9, now=now_us(), lease_us=SECOND_US)
    taken = {d["m"]: d.get("sg", False) for d in again}
    # What may have been sent is known to be, whether or not that was written down before the end.
    assert taken == {"m1": False, "m2": False} | ({"sent": True} if place == "the claim" else {})
