"""What is sent on: whose event it is by then, and in the partition where it is looked for."""

from __future__ import annotations

import asyncio

import pytest
from headrace_identity.consumer import Lane, Sending
from headrace_identity.worker import Incoming, Worker

from headrace.domain.ids import partition_of, profile_id
from headrace.service import background
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import GroupReader, Redis
from tests.support.identity import (
    WORKSPACE,
    assert_sent_on,
    event,
    put_in_log,
    read_stored,
    segments,
    sent_on,
    unfinished,
)

PARTITIONS = 16


@pytest.mark.parametrize("step", ["loaded", "committed"])
async def test_an_event_of_a_profile_that_is_merged_meanwhile(db: Database, redis: Redis, step: str) -> None:
    """The merge changes nothing that the event writes, so they do not conflict; yet it is sent to the survivor."""
    history = [event("b1", ("user_id", "u1")), event("b2", ("anonymous_id", "dev1"))]
    await Worker(db).process(WORKSPACE, [Incoming(e, "before", i) for i, e in enumerate(history)])
    merged: list[str] = []

    async def merge(at: str) -> None:
        if at == step and not merged:
            merged.append(at)
            both = event("join", ("user_id", "u1"), ("anonymous_id", "dev1"))
            await Worker(db).process(WORKSPACE, [Incoming(both, "meanwhile", 0)])

    lane = _lane(db, redis, Worker(db, at_step=merge))
    await put_in_log(db, redis, segments([event("late", ("anonymous_id", "dev1"))], 1), 1)
    async with background() as loops:
        loops.start("lane", lane.run)
        while await unfinished(db):
            await asyncio.sleep(0.01)
    survivor, loser = profile_id(WORKSPACE, "b1"), profile_id(WORKSPACE, "b2")
    assert partition_of(survivor, PARTITIONS) != partition_of(loser, PARTITIONS)
    ((batch, sent),) = [(b, e) for b in await sent_on(redis, PARTITIONS) for e in b.events]
    assert (sent.event.message_id, sent.profile_id) == ("late", survivor)
    assert batch.partition == partition_of(survivor, PARTITIONS)
    stored = await read_stored(db)
    assert {r.event.message_id: r.profile_id for r in stored.events}["late"] == loser


async def test_a_segment_larger_than_a_micro_batch_and_several_workspaces(db: Database, redis: Redis) -> None:
    large = [event(f"m{i}", ("user_id", f"u{i % 5}")) for i in range(23)]
    other = [event("m1", ("user_id", "u1"), workspace_id="other")]
    await put_in_log(db, redis, [*segments(large, 23), *segments(other, 1, "other"), *segments([], 1)], 1)
    async with background() as loops:
        loops.start("lane", _lane(db, redis, Worker(db)).run)
        while await unfinished(db):
            await asyncio.sleep(0.01)
    sent = await sent_on(redis, PARTITIONS)
    stored = await read_stored(db)
    assert len(stored.events) == 23
    assert_sent_on(stored, [b for b in sent if b.workspace_id == WORKSPACE], PARTITIONS)
    assert_sent_on(await read_stored(db, "other"), [b for b in sent if b.workspace_id == "other"], PARTITIONS)


def _lane(db: Database, redis: Redis, worker: Worker) -> Lane:
    return Lane(
        db,
        redis,
        GroupReader(redis, [names.events(0)], group=names.IDENTITY_GROUP, consumer="one"),
        worker,
        Sending(partitions=PARTITIONS, stream_entries=1000),
        streams=1,
        batch_events=10,
        claim_every_s=5,
    )
