"""The event log on a real MongoDB, with both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedEvent
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, close, connect, transaction


@pytest.fixture(params=["pymongo", "motor"])
async def either(request: Any, stores: Any, db: Database) -> AsyncIterator[tuple[Any, Database]]:
    client = connect(stores.mongo_url, driver=request.param)
    yield client, client[db.name]
    await close(client)


def _batch(*message_ids: str) -> EventBatch:
    events = [Event(message_id=m, workspace_id="acme") for m in message_ids]
    return EventBatch(segment_id=new_time_ordered_id(), workspace_id="acme", events=events)


async def test_segments_are_read_as_written_and_unfinished_until_marked(either: tuple[Any, Database]) -> None:
    _, db = either
    batches = [_batch("a", "b"), _batch("c")]
    await log.append_segments(db, batches, [3, 4])
    ids = [b.segment_id for b in batches]
    assert await log.read_segments(db, ids) == sorted(zip([3, 4], batches, strict=True), key=lambda p: p[1].segment_id)
    assert await log.unfinished_segments(db, "", "g", 10) == sorted(ids)
    await log.mark_done(db, ids[:1])
    await log.mark_done(db, ids[:1])
    assert await log.unfinished_segments(db, "", "g", 10) == ids[1:]


async def test_sequences_are_unique_increasing_and_not_behind_the_clock(either: tuple[Any, Database]) -> None:
    _, db = either
    counts = [1, 5, 100, 2] * 10
    now = now_us()
    firsts = await asyncio.gather(*(log.next_sequence(db, count, now) for count in counts))
    taken = [n for first, count in zip(firsts, counts, strict=True) for n in range(first, first + count)]
    assert len(set(taken)) == sum(counts)
    assert min(taken) >= now


async def test_events_come_back_by_id_by_sequence_and_by_profile(either: tuple[Any, Database]) -> None:
    client, db = either
    resolved = [
        ResolvedEvent(
            event=Event(message_id=f"m{i}", workspace_id="acme", timestamp_us=i),
            profile_id=f"p{i % 2}",
            decision=Decision(sequence=10 + i),
        )
        for i in range(6)
    ]
    async with transaction(client) as session:
        await db[log.EVENTS].insert_many([log.event_document(r) for r in resolved], session=session)
    assert await log.events_by_id(db, "acme", ["m1", "nope"]) == {"m1": resolved[1]}
    assert await log.events_by_id(db, "other", ["m1"]) == {}
    assert [r async for r in log.events_between(db, 12, 15)] == resolved[2:5]
    assert [r async for r in log.events_between(db, 12, 15, "other")] == []
    found = [r async for r in log.events_of_profiles(db, "acme", ["p1"])]
    assert sorted(r.event.message_id for r in found) == ["m1", "m3", "m5"]


async def test_an_aborted_transaction_leaves_nothing(either: tuple[Any, Database]) -> None:
    client, db = either
    with pytest.raises(ZeroDivisionError):
        async with transaction(client) as session:
            await db[log.EVENTS].insert_one({"_id": "x"}, session=session)
            raise ZeroDivisionError
    assert await db[log.EVENTS].count_documents({}) == 0
