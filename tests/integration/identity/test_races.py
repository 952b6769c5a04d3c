"""Workers that race on the same people: the outcome is that of the recorded order, whatever the interleaving."""

from __future__ import annotations

import asyncio
import random

import pytest
from headrace_identity.resolving.replay import replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
from headrace.storage.mongo.client import Database
from tests.support.identity import all_messages, assert_equals_replay, partition, read_stored, traits_of
from tests.support.identity_histories import history

WORKERS = 4

TIGHT = parse(
    {
        "namespaces": [
            {"name": "user_id", "limit": 2},
            {"name": "email", "limit": 1},
            {"name": "anonymous_id", "limit": 2, "per": "week"},
        ],
        "max_merges": 3,
        "max_identifiers": 6,
    }
)
LOOSE = parse(
    {"namespaces": [{"name": n, "limit": 1000} for n in ("user_id", "email", "anonymous_id")], "protected": []}
)


async def race(
    stores: EmbeddedStores, db: Database, workspace_id: str, events: list[Event], seed: int, driver: mongo_client.Driver
) -> None:
    """Each worker has a client of its own and takes a random share of the events in small micro-batches."""
    chance = random.Random(seed)
    shares: list[list[Event]] = [[] for _ in range(WORKERS)]
    for one in events:
        chance.choice(shares).append(one)

    async def work(share: list[Event]) -> None:
        client = mongo_client.connect(stores.mongo_url, driver=driver)
        try:
            worker = Worker(client[db.name])
            while share:
                size = chance.choice([1, 3, 8])
                batch, share = share[:size], share[size:]
                outcome = await worker.process(workspace_id, [Incoming(e, "s", i) for i, e in enumerate(batch)])
                assert {r.event.message_id for r in outcome.resolved} == {e.message_id for e in batch}
        finally:
            await mongo_client.close(client)

    await asyncio.gather(*map(work, shares))


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
@pytest.mark.parametrize("rules", [TIGHT, DEFAULT_RULES], ids=["tight", "default"])
async def test_a_race_equals_its_recorded_order(
    stores: EmbeddedStores, db: Database, driver: mongo_client.Driver, rules: Rules
) -> None:
    for seed in range(6):
        workspace_id = f"race-{seed}"
        if rules is not DEFAULT_RULES:
            await RulesStore(db).write(workspace_id, rules.as_json())
        events = history(seed, workspace_id, aliases=True)
        await race(stores, db, workspace_id, events, seed, driver)
        stored = await read_stored(db, workspace_id)
        assert all_messages(stored.events) == sorted({e.message_id for e in events})
        assert_equals_replay(stored, rules)


async def test_without_limits_a_race_ends_as_one_worker_does(stores: EmbeddedStores, db: Database) -> None:
    for seed in range(6):
        workspace_id = f"loose-{seed}"
        await RulesStore(db).write(workspace_id, LOOSE.as_json())
        events = history(seed, workspace_id, aliases=False)
        await race(stores, db, workspace_id, events, seed, "pymongo")
        stored = await read_stored(db, workspace_id)
        assert_equals_replay(stored, LOOSE)
        alone = replay(events, LOOSE)
        assert partition(stored.graph) == partition(alone.graph)
        # The same people, though perhaps under the ids of other events; so their traits are the same too.
        for identifier, holder in alone.graph.holders.items():
            mine, other = alone.graph.root(holder).id, stored.graph.root(stored.graph.holders[identifier]).id
            assert traits_of(alone.graph, mine) == traits_of(stored.graph, other)
