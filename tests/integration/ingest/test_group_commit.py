"""Group commit: concurrent requests share documents, and each is told the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bson.binary import Binary
from headrace_ingest.committer import MAX_SEGMENT_BYTES, Committer, NotWritten, QueueFull, Work
from headrace_ingest.store import REJECTED_MESSAGES

from headrace.api.common.v1.event_pb2 import Event, EventBatch, Identifier
from headrace.domain.ids import partition_of
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from tests.support.ingest import Ingest, ingest_serving, logged_events
from tests.support.settings import MakeSettings


def _event(message_id: str, device: str = "d", workspace_id: str = "shop", properties: bytes = b"") -> Event:
    identifiers = [Identifier(namespace="anonymous_id", value=device)]
    return Event(message_id=message_id, workspace_id=workspace_id, identifiers=identifiers, properties=properties)


@asynccontextmanager
async def _committer(
    db: Database, on_committed: Callable[[list[log.Segment]], None] = lambda _: None, **overrides: Any
) -> AsyncIterator[Committer]:
    options: dict[str, Any] = {
        "partitions": 8,
        "linger_s": 0.02,
        "max_events": 1_000,
        "parallel": 2,
        "timeout_s": 5.0,
        "queue_max": 10_000,
    }
    committer = Committer(db, on_committed=on_committed, **{**options, **overrides})
    committer.start()
    yield committer
    await committer.close()


async def test_concurrent_works_share_segments(db: Database) -> None:
    committed: list[log.Segment] = []
    async with _committer(db, committed.extend) as committer:
        works = [Work(events=[_event(f"m{n}", device="one", workspace_id=f"w{n % 2}")]) for n in range(200)]
        await asyncio.gather(*(committer.commit(work) for work in works))
    assert {e.message_id for e in await logged_events(db)} == {f"m{n}" for n in range(200)}
    assert len(committed) == 2, "one per workspace, since all are of one device and came together"
    for segment in committed:
        batch = EventBatch.FromString(segment.payload)
        assert (batch.segment_id, batch.workspace_id) == (segment.id, segment.workspace_id)
        assert len(batch.events) == segment.event_count == 100
        assert {e.workspace_id for e in batch.events} == {batch.workspace_id}
        assert segment.partition == partition_of(f"{batch.workspace_id}\x1fone", 8)
    assert sorted(committed) == sorted(await log.stored_segments(db, [segment.id for segment in committed]))


async def test_events_of_one_device_stay_together_and_in_order(db: Database) -> None:
    async with _committer(db) as committer:
        events = [_event(f"{device}-{n}", device=f"device-{device}") for n in range(20) for device in range(10)]
        await committer.commit(Work(events=events))
    seen: dict[str, list[str]] = {}
    async for document in db[log.SEGMENTS].find().sort("_id", 1):
        ((partition, batch),) = await log.read_segments(db, [document["_id"]])
        for event in batch.events:
            device = event.identifiers[0].value
            assert partition_of(f"shop\x1f{device}", 8) == partition == document["q"]
            seen.setdefault(device, []).append(event.message_id)
    assert seen == {f"device-{d}": [f"{d}-{n}" for n in range(20)] for d in range(10)}


async def test_segments_are_bounded_in_events_and_bytes(db: Database) -> None:
    async with _committer(db, max_events=50) as committer:
        await committer.commit(Work(events=[_event(f"m{n}") for n in range(120)]))
        await committer.commit(Work(events=[_event(f"b{n}", properties=b"x" * 1_000_000) for n in range(10)]))
    batches = [batch async for batch in _batches(db)]
    assert max(len(batch.events) for batch in batches) <= 50
    assert max(batch.ByteSize() for batch in batches) <= MAX_SEGMENT_BYTES + 1_100_000
    assert sum(len(batch.events) for batch in batches) == 130


async def _batches(db: Database) -> AsyncIterator[Any]:
    ids = [d["_id"] async for d in db[log.SEGMENTS].find({}, {"_id": 1})]
    for _, batch in await log.read_segments(db, ids):
        yield batch


async def test_too_much_waiting_is_refused_at_once(db: Database) -> None:
    async with _committer(db, queue_max=5, linger_s=0.3, max_events=100) as committer:
        waiting = [asyncio.create_task(committer.commit(Work(events=[_event(f"m{n}")]))) for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await committer.commit(Work(events=[_event("more")]))
        await asyncio.gather(*waiting)
        await committer.commit(Work(events=[_event("later")]))
        # One work alone may be larger than the queue: the limits of a request bound it.
        await committer.commit(Work(events=[_event(f"n{n}") for n in range(50)]))
    assert len(await logged_events(db)) == 56


async def test_one_document_that_cannot_be_written_harms_no_other(db: Database) -> None:
    huge = {"_id": "huge", "b": Binary(b"x" * 17_000_000)}
    async with _committer(db) as committer:
        good = asyncio.create_task(committer.commit(Work(events=[_event("good")], rejected=[{"_id": "small"}])))
        bad = asyncio.create_task(committer.commit(Work(events=[_event("bad")], rejected=[huge])))
        await good
        with pytest.raises(NotWritten):
            await bad
    assert "good" in {e.message_id for e in await logged_events(db)}
    assert [d["_id"] async for d in db[REJECTED_MESSAGES].find()] == ["small"]


async def test_a_work_whose_sender_went_away_is_dropped(db: Database) -> None:
    async with _committer(db, linger_s=0.1) as committer:
        gone = asyncio.create_task(committer.commit(Work(events=[_event("gone")])))
        await asyncio.sleep(0)
        gone.cancel()
        await committer.commit(Work(events=[_event("here")]))
        assert committer.waiting == 0
    assert [e.message_id for e in await logged_events(db)] == ["here"]


async def test_closing_writes_what_waits(db: Database) -> None:
    async with _committer(db, linger_s=5.0) as committer:
        waiting = asyncio.create_task(committer.commit(Work(events=[_event("m")])))
        await asyncio.sleep(0.05)
    await waiting
    assert len(await logged_events(db)) == 1
    with pytest.raises(NotWritten):
        await committer.commit(Work(events=[_event("late")]))


async def test_overload_is_answered_with_429(make_settings: MakeSettings, db: Database) -> None:
    async with ingest_serving(make_settings, db, queue_max_events=20, commit_linger_seconds=0.3) as ingest:
        key = (await ingest.source()).write_key
        statuses = await asyncio.gather(*(_post(ingest, key, n) for n in range(100)))
        assert set(statuses) == {(200, ""), (429, "1")}
        assert await ingest.count() == sum(1 for status, _ in statuses if status == 200) >= 20
        assert (await _post(ingest, key, 100))[0] == 200


async def test_too_many_bytes_in_work_are_answered_with_429(make_settings: MakeSettings, db: Database) -> None:
    async with ingest_serving(make_settings, db, queue_max_bytes=1024, commit_linger_seconds=0.3) as ingest:
        key = (await ingest.source()).write_key
        statuses = await asyncio.gather(*(_post(ingest, key, n, "x" * 500) for n in range(50)))
        assert set(statuses) == {(200, ""), (429, "1")}
        assert (await _post(ingest, key, 100))[0] == 200, "what was in work is released"


async def _post(ingest: Ingest, key: str, number: int, text: str = "") -> tuple[int, str]:
    body = {"userId": f"u{number}", "event": "A", "properties": {"a": text}}
    async with ingest.http.post(f"{ingest.url}/v1/track", json=body, headers={"X-Write-Key": key}) as answer:
        return answer.status, answer.headers.get("Retry-After", "")


async def test_a_defect_leaves_nobody_waiting_and_ends_nothing(db: Database) -> None:
    defects = [RuntimeError("a defect")]

    def on_committed(_: list[log.Segment]) -> None:
        if defects:
            raise defects.pop()

    async with _committer(db, on_committed) as committer:
        async with asyncio.timeout(10):
            with pytest.raises(NotWritten):
                await committer.commit(Work(events=[_event("m1")]))
            await committer.commit(Work(events=[_event("m2")]))
    assert {e.message_id for e in await logged_events(db)} == {"m1", "m2"}, "m1 is sent again, with the same id"
