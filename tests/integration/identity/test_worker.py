"""The worker on a real MongoDB: what is stored, duplicates, splits, poison, both drivers."""

from __future__ import annotations

import pytest
from headrace_identity.rules import DEFAULT_RULES
from headrace_identity.store import survivors
from headrace_identity.worker import Incoming, Worker

from headrace.embedded.stores import EmbeddedStores
from headrace.storage.mongo import client as mongo_client
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
