"""Reassignment beside traffic, ended at every step, too large, announced."""

from __future__ import annotations

import asyncio
import random

import pytest
from headrace_identity.consumer import Sending
from headrace_identity.outbox import Outbox
from headrace_identity.reassign.change import Change
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.resolving.rules import DEFAULT_RULES
from headrace_identity.worker import Worker
from headrace_identity.workspaces import Workspaces

from headrace.api.identity.v1.profile_pb2 import Reassignment
from headrace.domain.ids import partition_of
from headrace.rpc.errors import ApiError
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.identity import WORKSPACE, all_messages, assert_equals_replay, event, read_stored, sent_on
from tests.support.reassignment import (
    assert_as_from_the_start,
    corrections,
    incoming,
    links_of,
    merges_of,
    random_history,
    stored_state,
)

STEPS = [
    "drafted",
    "closed the gates",
    "caught up",
    "planned",
    "wrote people",
    "wrote events",
    "recorded",
    "folded",
    "written",
    "committed",
]
PARTITIONS = 8
U1, U2 = ("user_id", "u1"), ("user_id", "u2")
A1, A2 = ("anonymous_id", "dev1"), ("anonymous_id", "dev2")
MERGED = [
    event("m1", A1, traits={"plan": "free"}),
    event("m2", U1, traits={"plan": "pro"}),
    event("m3", U1, A1, day=1),
    event("m4", A1, day=2),
]


class Killed(BaseException):
    """The end of a process: nothing in it may catch this."""


async def epoch_of(db: Database) -> int:
    return (await Workspaces(db).read(WORKSPACE)).epoch


async def reassigned(db: Database) -> list[log.StoredReassignment]:
    return [r async for r in log.reassignments_since(db, 0, WORKSPACE)]


@pytest.mark.parametrize("step", STEPS)
async def test_it_ends_at_any_step(db: Database, redis: Redis, step: str) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    before = await stored_state(db)
    (merge,) = await merges_of(db)

    async def at_step(name: str) -> None:
        if name == step:
            raise Killed

    with pytest.raises(Killed):
        await corrections(db, at_step=at_step).undo_merge(WORKSPACE, merge, "no")
    if step == "committed":
        assert await epoch_of(db) == len(await reassigned(db)) == 1
    else:
        assert await stored_state(db) == before
        assert not (await links_of(db)).by_id
        assert await epoch_of(db) == len(await reassigned(db)) == 0
        await corrections(db).undo_merge(WORKSPACE, merge, "no")
    await assert_as_from_the_start(db, DEFAULT_RULES)
    assert await merges_of(db) == []
    # Whoever starts next announces it.
    await Outbox(db, redis, Sending(PARTITIONS, 1000)).send()
    assert len([r for b in await sent_on(redis, PARTITIONS) for r in b.reassignments]) == 2


@pytest.mark.parametrize("step", ["drafted", "closed the gates"])
async def test_events_that_come_meanwhile(db: Database, step: str) -> None:
    """Others come while it is worked out: those that concern the same people are in it, whatever they join."""
    await Worker(db).process(WORKSPACE, incoming([*MERGED, event("x1", A2), event("x2", U2)]))
    (merge,) = await merges_of(db)
    late = [event("n1", A1, A2, day=5), event("n2", U2, A2, day=6), event("n3", ("email", "new@shop.example"), A1)]
    others: list[asyncio.Task[object]] = []

    async def at_step(name: str) -> None:
        if name == step and not others:
            others.append(asyncio.create_task(Worker(db).process(WORKSPACE, incoming(late))))
            if step == "drafted":
                await others[0]

    await corrections(db, at_step=at_step).undo_merge(WORKSPACE, merge, "no")
    await others[0]
    await assert_as_from_the_start(db, DEFAULT_RULES)
    assert merge not in await merges_of(db) or (await links_of(db)).by_id


async def test_undoing_while_workers_process_the_same_people(db: Database) -> None:
    """Four workers race over the same few people while merges are undone and links come and go."""
    chance = random.Random(11)
    events = random_history(chance, size=160)
    chance.shuffle(events)
    shares = [events[number::4] for number in range(4)]
    done = 0
    ended = asyncio.Event()  # the driver may swallow a cancellation

    async def work(share: list[object]) -> None:
        worker = Worker(db)
        for start in range(0, len(share), 5):
            await worker.process(WORKSPACE, incoming(share[start : start + 5]))  # type: ignore[arg-type]

    async def correct() -> None:
        nonlocal done
        hand = corrections(db)
        while not ended.is_set():
            for merge in await merges_of(db):
                try:
                    await hand.undo_merge(WORKSPACE, merge, "no")
                    done += 1
                except ApiError as error:
                    assert error.reason in {"NOT_FOUND", "WRONG_STATE"}, error
                links = list((await links_of(db)).by_id)
                if len(links) > 4:
                    await hand.delete_link(WORKSPACE, chance.choice(links))
            await asyncio.sleep(0.01)

    correcting = asyncio.create_task(correct())
    await asyncio.gather(*(work(share) for share in shares))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    ended.set()
    await correcting
    assert done > 0
    stored = await read_stored(db)
    assert all_messages(stored.events) == sorted(e.message_id for e in events)
    assert_equals_replay(stored, DEFAULT_RULES, await links_of(db))
    # What raced is where one order of all puts it; assigned anew it is that to the byte.
    identifiers = list(stored.graph.holders)
    await Reassigner(db).reassign(WORKSPACE, Change(identifiers=identifiers))
    await assert_as_from_the_start(db, DEFAULT_RULES)


async def test_too_many_events(db: Database) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    (merge,) = await merges_of(db)
    before = await stored_state(db)
    with pytest.raises(ApiError, match="More than 3 events") as caught:
        await corrections(db, most_events=3).undo_merge(WORKSPACE, merge, "no")
    assert caught.value.reason == "LIMIT_EXCEEDED"
    assert "One user_id alone ties 2 profiles together" in caught.value.message
    assert "dev1" not in caught.value.message
    assert await stored_state(db) == before
    assert not (await links_of(db)).by_id


async def test_only_those_concerned(db: Database) -> None:
    """People whom nothing ties to the change are not read, let alone written."""
    others = [event(f"o{i}", ("user_id", f"other{i}")) for i in range(30)]
    await Worker(db).process(WORKSPACE, incoming([*MERGED, *others]))
    (merge,) = await merges_of(db)
    await corrections(db, most_events=len(MERGED)).undo_merge(WORKSPACE, merge, "no")
    (record,) = await reassigned(db)
    assert len(record.items) == 2
    await assert_as_from_the_start(db, DEFAULT_RULES)


async def test_what_is_recorded_and_announced(db: Database, redis: Redis) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    (loser,) = await merges_of(db)
    (survivor,) = [p for p, q in (await read_stored(db)).graph.profiles.items() if q.merged_into is None]
    outbox = Outbox(db, redis, Sending(PARTITIONS, 1000))
    woken: list[bool] = []
    hand = corrections(db, committed=lambda: woken.append(True))
    undone = await hand.undo_merge(WORKSPACE, loser, "no")
    assert woken == [True]
    assert await outbox.send() == 1
    assert await outbox.send() == 0
    batches = await sent_on(redis, PARTITIONS)
    assert all(partition_of(r.profile_id, PARTITIONS) == b.partition for b in batches for r in b.reassignments)
    sent = {r.profile_id: r for b in batches for r in b.reassignments}
    assert sent == {
        loser: Reassignment(profile_id=loser, parts=[loser], epoch=1),
        survivor: Reassignment(profile_id=survivor, parts=[survivor], epoch=1),
    }
    await hand.delete_link(WORKSPACE, undone.links[0].id)
    await outbox.send()
    again = [r for b in await sent_on(redis, PARTITIONS) for r in b.reassignments if r.epoch == 2]
    assert {r.profile_id: (sorted(r.parts), r.survivor) for r in again} == {
        loser: ([], survivor),
        survivor: (sorted([loser, survivor]), ""),
    }


async def test_an_outbox_that_ends_between_sending_and_marking(db: Database, redis: Redis) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    (merge,) = await merges_of(db)
    await corrections(db).undo_merge(WORKSPACE, merge, "no")

    async def at_step(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        await Outbox(db, redis, Sending(PARTITIONS, 1000), at_step=at_step).send()
    assert await Outbox(db, redis, Sending(PARTITIONS, 1000)).send() == 1
    sent = [r for b in await sent_on(redis, PARTITIONS) for r in b.reassignments]
    assert len(sent) == 4  # twice the same: whoever reads them knows the epoch already


async def test_a_change_that_changes_nothing_keeps_the_epoch(db: Database) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    outcome = await Reassigner(db).reassign(WORKSPACE, Change(identifiers=[U1]))
    assert (outcome.epoch, outcome.moved_events, await epoch_of(db)) == (0, 0, 0)
    assert await reassigned(db) == []
