"""From the log to the streams: at once, or later by the sweeper, and never lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from headrace_ingest.dispatcher import SENT, Dispatcher, Streams
from headrace_ingest.store import expire_segments, read_mark, waiting_segments, write_mark
from headrace_ingest.sweeper import SETTLE_US, Sweeper

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.domain.ids import new_time_ordered_id, time_ordered_floor
from headrace.domain.times import DAY_US, now_us
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams_client
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from tests.support.ingest import ingest_serving, on_streams
from tests.support.settings import MakeSettings


def _segment(age_s: float = 60, events: int = 1) -> EventBatch:
    moment = f"{(now_us() - int(age_s * 1_000_000)) // 1000:012x}"
    segment_id = moment + new_time_ordered_id()[12:]
    return EventBatch(segment_id=segment_id, workspace_id="shop", events=[Event(message_id="m")] * events)


def _sent(partition: int, batch: EventBatch) -> log.Segment:
    """A segment as the committer hands it on."""
    return log.Segment(batch.segment_id, batch.workspace_id, partition, len(batch.events), batch.SerializeToString())


def _sweeper(db: Database, redis: Redis, backlog: int = 100, name: str = "one") -> tuple[Sweeper, Streams]:
    streams = Streams(redis, partitions=8, backlog=backlog)
    dispatcher = Dispatcher(streams)
    sweeper = Sweeper(db, redis, streams, dispatcher, name=name, every_s=0.05, grace_s=1.0, keep_days=7)
    return sweeper, streams


async def _until(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


async def test_committed_segments_go_to_their_streams_at_once(
    make_settings: MakeSettings, db: Database, redis: Redis
) -> None:
    async with ingest_serving(make_settings, db) as ingest:
        key = (await ingest.source()).write_key
        batch = [{"type": "track", "userId": f"u{n}", "event": "A", "messageId": f"m{n}"} for n in range(50)]
        assert (await ingest.post("/v1/batch", {"batch": batch}, key))[0] == 200

        async def all_sent() -> bool:
            return sum(len(b.events) for b in await on_streams(redis)) == 50

        await _until(all_sent)
        sent = await on_streams(redis)
        assert Counter(e.message_id for b in sent for e in b.events) == Counter(f"m{n}" for n in range(50))
        remembered: Any = await redis.hkeys(SENT)
        assert {k.decode() for k in remembered} == {b.segment_id for b in sent}
        await asyncio.sleep(0.3)
        assert len(await on_streams(redis)) == len(sent), "the sweeper sends nothing that is on its stream"


async def test_redis_down_costs_no_event(make_settings: MakeSettings, db: Database, stores: EmbeddedStores) -> None:
    async with ingest_serving(make_settings, db, sweep_grace_seconds=0.1) as ingest:
        key = (await ingest.source()).write_key
        stores.kill_redis()
        try:
            for number in range(5):
                message = {"userId": "u", "event": "A", "messageId": f"m{number}"}
                assert await ingest.post("/v1/track", message, key) == (200, {"success": True})
            async with ingest.http.get(f"{ingest.url}/readyz") as answer:
                assert answer.status == 200
        finally:
            stores.restart_redis()
        client = streams_client.connect(stores.redis_url)

        async def all_sent() -> bool:
            return {e.message_id for b in await on_streams(client) for e in b.events} == {f"m{n}" for n in range(5)}

        await _until(all_sent)
        await client.aclose()


async def test_the_sweeper_sends_what_is_not_on_its_stream(db: Database, redis: Redis) -> None:
    sweeper, streams = _sweeper(db, redis)
    old, sent, done, young = _segment(), _segment(), _segment(), _segment(age_s=0)
    await log.append_segments(db, [old, sent, done, young], [1, 2, 3, 4])
    await streams.send([_sent(2, sent)])
    await log.mark_done(db, [done.segment_id])
    for _ in range(3):
        await sweeper.sweep()
    assert Counter(b.segment_id for b in await on_streams(redis)) == {old.segment_id: 1, sent.segment_id: 1}
    assert await redis.xlen(names.events(1)) == 1


async def test_a_redis_that_lost_everything_gets_everything_again(db: Database, redis: Redis) -> None:
    sweeper, _ = _sweeper(db, redis)
    segments = [_segment() for _ in range(30)]
    await log.append_segments(db, segments, [n % 8 for n in range(30)])
    await sweeper.sweep()
    await redis.flushall()
    await sweeper.sweep()
    assert {b.segment_id for b in await on_streams(redis)} == {s.segment_id for s in segments}


async def test_an_entry_that_vanished_alone_is_sent_again(db: Database, redis: Redis) -> None:
    """As when its reader acknowledged it and died before it marked the segment done."""
    sweeper, _ = _sweeper(db, redis)
    segment = _segment()
    await log.append_segments(db, [segment], [5])
    await sweeper.sweep()
    await redis.delete(names.events(5))
    await sweeper.sweep()
    assert await redis.xlen(names.events(5)) == 0, "perhaps it is only being marked"
    await sweeper.sweep()
    assert await redis.xlen(names.events(5)) == 1


async def test_a_full_stream_hides_nothing_from_the_others(db: Database, redis: Redis) -> None:
    sweeper, _ = _sweeper(db, redis, backlog=3)
    stuck = [_segment(age_s=100 - n) for n in range(20)]
    other = _segment(age_s=50)
    await log.append_segments(db, [*stuck, other], [0] * 20 + [1])
    for _ in range(3):
        await sweeper.sweep()
    assert await redis.xlen(names.events(0)) == 3
    assert await redis.xlen(names.events(1)) == 1
    assert sweeper.undispatched_age_s > 50
    taken: set[str] = set()
    for _ in range(20):
        entries: Any = await redis.xrange(names.events(0))
        for entry_id, fields in entries:
            segment_id = EventBatch.FromString(fields[b"b"]).segment_id
            taken.add(segment_id)
            await redis.xdel(names.events(0), entry_id)
            await log.mark_done(db, [segment_id])
        await sweeper.sweep()
    assert taken == {s.segment_id for s in stuck}
    await log.mark_done(db, [other.segment_id])
    await sweeper.sweep()
    assert await redis.hlen(SENT) == 0, "what is finished is forgotten"
    assert sweeper.undispatched_age_s == 0


async def test_the_dispatcher_stops_at_a_full_stream(db: Database, redis: Redis) -> None:
    streams = Streams(redis, partitions=8, backlog=2)
    dispatcher = Dispatcher(streams)
    for _ in range(2):
        dispatcher.offer([_sent(0, _segment(0)) for _ in range(3)])
        await dispatcher.flush()
    assert await redis.xlen(names.events(0)) == 2 and dispatcher.left_behind


async def test_a_defect_in_sending_does_not_end_the_dispatcher(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(redis, partitions=8, backlog=10)
    dispatcher = Dispatcher(streams)
    send, defects = streams.send, [RuntimeError("a defect")]

    async def failing(segments: Sequence[log.Segment]) -> None:
        if defects:
            raise defects.pop()
        await send(segments)

    monkeypatch.setattr(streams, "send", failing)
    monkeypatch.setattr("headrace_ingest.dispatcher._PAUSE_S", 0.0)
    running = asyncio.create_task(dispatcher.run())
    dispatcher.offer([_sent(0, _segment(0))])

    async def left() -> bool:
        return dispatcher.left_behind

    await _until(left)
    dispatcher.offer([_sent(0, _segment(0))])

    async def sent() -> bool:
        return bool(await redis.xlen(names.events(0)) == 1)

    await _until(sent)
    dispatcher.close()
    await running


async def test_the_position_of_the_sweeper_only_passes_what_is_finished(db: Database, redis: Redis) -> None:
    sweeper, _ = _sweeper(db, redis)
    first, second = _segment(age_s=1_000), _segment(age_s=500)
    await log.append_segments(db, [first, second], [0, 0])
    await log.mark_done(db, [first.segment_id])
    await sweeper.sweep()
    mark = await read_mark(db, "sweeper")
    assert first.segment_id <= mark < second.segment_id
    await log.mark_done(db, [second.segment_id])
    await sweeper.sweep()
    mark = await read_mark(db, "sweeper")
    assert second.segment_id < mark <= time_ordered_floor(now_us() - SETTLE_US)
    await write_mark(db, "sweeper", "0")
    assert await read_mark(db, "sweeper") == mark, "it never goes back"


async def test_one_replica_sweeps_at_a_time(db: Database, redis: Redis) -> None:
    one, _ = _sweeper(db, redis)
    two, _ = _sweeper(db, redis, name="two")
    segments = [_segment() for _ in range(50)]
    await log.append_segments(db, segments, [n % 8 for n in range(50)])
    await asyncio.gather(one.sweep(), two.sweep())
    assert Counter(b.segment_id for b in await on_streams(redis)) == Counter(s.segment_id for s in segments)


async def test_old_finished_segments_go_and_unfinished_ones_stay(db: Database) -> None:
    old = [_segment(age_s=10 * 86_400 + n) for n in range(25)]
    young = _segment(age_s=86_400)
    await log.append_segments(db, [*old, young], [0] * 26)
    unfinished = {old[7].segment_id, old[24].segment_id}
    await log.mark_done(db, [s.segment_id for s in (*old, young) if s.segment_id not in unfinished])
    await log.mark_done(db, [_segment(age_s=9 * 86_400).segment_id])  # a mark that outlived its segment
    removed = await expire_segments(db, time_ordered_floor(now_us() - 7 * DAY_US), page=10)
    assert removed == 23
    assert {d["_id"] async for d in db[log.SEGMENTS].find()} == {*unfinished, young.segment_id}
    assert {d["_id"] async for d in db[log.SEGMENTS_DONE].find()} == {young.segment_id}


async def test_pages_of_waiting_segments(db: Database) -> None:
    segments = sorted((_segment(age_s=100 - n) for n in range(10)), key=lambda s: s.segment_id)
    await log.append_segments(db, segments, [n % 2 for n in range(10)])
    await log.mark_done(db, [s.segment_id for s in segments[:5]])
    position, found = "", []
    for _ in range(5):
        page, last = await waiting_segments(db, position, "f" * 32, 3)
        found += [segment_id for segment_id, _ in page]
        if not last:
            break
        position = last
    assert found == [s.segment_id for s in segments[5:]]
    page, _ = await waiting_segments(db, "", "f" * 32, 100, [1])
    assert [q for _, q in page] == [0, 0]
