"""The worker on a real MongoDB: what is stored, duplicates, splits, poison, both drivers."""

from __future__ import annotations

import asyncio

import pytest
from headrace_identity import parked
from headrace_identity.resolving.rules import DEFAULT_RULES, parse
from headrace_identity.rules_store import RulesChanged, RulesStore
from headrace_identity.store import survivors
from headrace_identity.worker import Incoming, Worker

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from tests.support.identity import (
    WORKSPACE,
    all_messages,
    assert_equals_replay,
    event,
    read_stored,
)


def incoming(*events, segment: str = "s1") -> list[Incoming]:  # type: ignore[no-untyped-def]  # events of one test
    return [Incoming(e, segment, i) for i, e in enumerate(events)]


HISTORY = [
    event("m1", ("anonymous_id", "a1"), traits={"plan": "free"}),
    event("m2", ("anonymous_id", "a2"), traits={"plan": "pro"}, day=1),
    event("m3", ("user_id", "u1"), ("anonymous_id", "a1"), day=2),
    event("m4", ("user_id", "u1"), ("anonymous_id", "a2"), day=3),
    event("m5", ("user_id", "u2"), ("anonymous_id", "a2"), traits={"plan": None}, day=4),
    event("m6", ("user_id", "null"), day=5),
    event("m7", ("user_id", "u3"), previous_id="nobody", day=6),
]


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
@pytest.mark.parametrize("size", [1, 2, 100])
async def test_batches_of_any_size_end_alike(
    stores: EmbeddedStores, db: Database, driver: mongo_client.Driver, size: int
) -> None:
    client = mongo_client.connect(stores.mongo_url, driver=driver)
    try:
        worker = Worker(client[db.name])
        for start in range(0, len(HISTORY), size):
            await worker.process(WORKSPACE, incoming(*HISTORY[start : start + size]))
    finally:
        await mongo_client.close(client)
    stored = await read_stored(db)
    expected = assert_equals_replay(stored, DEFAULT_RULES)
    assert all_messages(stored.events) == ["m1", "m2", "m3", "m4", "m5", "m6", "m7"]
    assert stored.root_of("m4") == stored.root_of("m1") == stored.root_of("m2") == expected.root_of("m1")
    assert stored.root_of("m5") not in {"", stored.root_of("m1")}
    assert stored.root_of("m6") == ""
    assert await survivors(db, WORKSPACE, expected.graph.profiles) == {
        expected.resolutions["m2"].profile_id: expected.root_of("m1")
    }


async def test_repeated_events_change_nothing_and_are_sent_on_as_stored(db: Database) -> None:
    worker = Worker(db)
    first = await worker.process(WORKSPACE, incoming(*HISTORY, HISTORY[0]))
    before = await read_stored(db)
    again = await worker.process(WORKSPACE, incoming(*reversed(HISTORY), segment="s2"))
    after = await read_stored(db)
    assert before == after
    assert again.repeated == len(HISTORY)
    assert {r.event.message_id: r[1:] for r in again.resolved} == {r.event.message_id: r[1:] for r in first.resolved}


async def test_the_same_message_id_in_two_workspaces_is_two_events(db: Database) -> None:
    worker = Worker(db)
    for workspace_id in ("one", "two"):
        same = event("m1", ("user_id", "u1"), workspace_id=workspace_id)
        await worker.process(workspace_id, incoming(same))
    one, two = await read_stored(db, "one"), await read_stored(db, "two")
    assert len(one.graph.profiles) == len(two.graph.profiles) == 1
    assert one.graph.profiles.keys() != two.graph.profiles.keys()


async def test_a_poisonous_event_is_parked_and_holds_nobody_up(db: Database) -> None:
    worker = Worker(db)
    wrong = event("bad", ("user_id", "u1"))
    wrong.traits = b"[1, 2]"
    stranger = event("stranger", ("user_id", "u1"), workspace_id="another")
    too_large = event("large", ("user_id", "u4"))
    too_large.properties = b'"' + b"x" * 17_000_000 + b'"'
    outcome = await worker.process(WORKSPACE, incoming(HISTORY[0], wrong, HISTORY[1], stranger, too_large, HISTORY[2]))
    assert [r.event.message_id for r in outcome.resolved] == ["m1", "m2", "m3"]
    assert outcome.parked == 3
    stored = await read_stored(db)
    assert_equals_replay(stored, DEFAULT_RULES)
    assert ("user_id", "u4") not in stored.graph.holders
    listed = await parked.list_parked(db, WORKSPACE)
    assert {p.message_id: p.reason[0] for p in listed} == {
        "bad": "msgspec.ValidationError",
        "stranger": "builtins.ValueError",
        "large": "pymongo.errors.OperationFailure",
    }


async def test_parked_events_can_be_replayed(db: Database) -> None:
    worker = Worker(db)
    wrong = event("bad", ("user_id", "u1"))
    wrong.traits = b"[1, 2]"
    await worker.process(WORKSPACE, incoming(wrong))
    assert await parked.replay_parked(db, "another", event_partitions=4) == 0
    assert await parked.replay_parked(db, WORKSPACE, ["bad", "unknown"], event_partitions=4) == 1
    assert await parked.find_parked(db, WORKSPACE, "bad") is None
    segment_ids = [d["_id"] async for d in db[log.SEGMENTS].find({})]
    ((_, batch),) = await log.read_segments(db, segment_ids)
    assert batch.workspace_id == WORKSPACE
    assert list(batch.events) == [wrong]


async def test_changed_rules_apply_to_what_is_resolved_afterwards(db: Database) -> None:
    worker = Worker(db)
    rules = RulesStore(db)
    before = event("m1", ("user_id", "guest-7"))
    await worker.process(WORKSPACE, incoming(before))
    version = await rules.write(WORKSPACE, {"blocked": [{"matches": "^guest-"}]}, expected_version=0)
    await worker.process(WORKSPACE, incoming(event("m2", ("user_id", "guest-7"))))
    stored = await read_stored(db)
    assert [(r.decision.rules_version, bool(r.profile_id)) for r in stored.events] == [(0, True), (version, False)]
    with pytest.raises(RulesChanged):
        await rules.write(WORKSPACE, {}, expected_version=0)
    assert await rules.read(WORKSPACE) == (version, parse({"blocked": [{"matches": "^guest-"}]}))
    assert await rules.read("another") == (0, DEFAULT_RULES)


async def test_many_collisions_split_the_batch_and_end(db: Database) -> None:
    """Two workers that only ever touch the same two profiles get through all the same."""
    events = [event(f"m{i}", ("user_id", f"u{i % 2}"), traits={"n": i}) for i in range(40)]
    await asyncio.gather(
        Worker(db).process(WORKSPACE, incoming(*events[:20])), Worker(db).process(WORKSPACE, incoming(*events[20:]))
    )
    stored = await read_stored(db)
    assert len(stored.events) == 40
    assert_equals_replay(stored, DEFAULT_RULES)
