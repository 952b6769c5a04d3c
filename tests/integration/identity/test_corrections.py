"""Merges undone, identifiers linked by hand: what is stored is what the events give with these links from the start."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from headrace_identity.calls.identity_handlers import Corrections
from headrace_identity.resolving.links import Kind
from headrace_identity.resolving.rules import DEFAULT_RULES, parse
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Worker

from headrace.api.common.v1.event_pb2 import Identifier
from headrace.rpc.errors import ApiError
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event, read_stored
from tests.support.reassignment import (
    POOLS,
    assert_as_from_the_start,
    corrections,
    incoming,
    links_of,
    merges_of,
    random_history,
)

U1, U2 = ("user_id", "u1"), ("user_id", "u2")
A1, A2, A3 = ("anonymous_id", "dev1"), ("anonymous_id", "dev2"), ("anonymous_id", "dev3")
MERGED = [
    event("m1", A1, traits={"plan": "free"}),
    event("m2", U1, traits={"plan": "pro"}),
    event("m3", U1, A1, day=1),
    event("m4", A1, day=2),
    event("m5", A2, day=3),
]


def message(identifier: tuple[str, str]) -> Identifier:
    return Identifier(namespace=identifier[0], value=identifier[1])


async def test_a_merge_is_undone(db: Database) -> None:
    await Worker(db).process(WORKSPACE, incoming(MERGED))
    (merge,) = await merges_of(db)
    corrected = await corrections(db).undo_merge(WORKSPACE, merge, "shared tablet")
    stored = await read_stored(db)
    roots = [stored.root_of(m) for m in ("m1", "m2", "m3", "m4", "m5")]
    assert roots[0] == roots[3] != roots[1] == roots[2]
    assert set(corrected.profiles) == {roots[0], roots[1]}
    assert corrected.moved_events == 2
    assert {link.kind for link in corrected.links} == {"apart"}
    await assert_as_from_the_start(db, DEFAULT_RULES)
    # The same link does not merge them again.
    await Worker(db).process(WORKSPACE, incoming([event("m6", U1, A1, day=4)]))
    await assert_as_from_the_start(db, DEFAULT_RULES)
    assert (await read_stored(db)).root_of("m6") == roots[1]


LIMITED = parse(
    {
        "namespaces": [
            {"name": "user_id", "limit": 2},
            {"name": "email", "limit": 1, "per": "week"},
            {"name": "anonymous_id", "limit": 3},
        ],
        "max_identifiers": 6,
        "policies": [{"policy": "isolation", "source": "kiosk"}, {"policy": "link", "source": "tablet"}],
    }
)


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
async def test_random_corrections_of_random_histories(db: Database, seed: int) -> None:
    """Merges undone in random order, links added and deleted, events between: always as if it had been so all along."""
    chance = random.Random(seed)
    rules = {0: DEFAULT_RULES, 1: LIMITED}
    change_rules_at = {0: 99, 1: 0}.get(seed % 3, 2)  # never, before the first event, on the way
    worker, hand = Worker(db), corrections(db)
    events = random_history(chance, size=40)
    done: Counter[str] = Counter()
    for number in range(4):
        if number == change_rules_at:
            await RulesStore(db).write(WORKSPACE, LIMITED.as_json())
        batch, events = events[:10], events[10:]
        await worker.process(WORKSPACE, incoming(batch))
        for _ in range(2):
            done[await correct_something(db, hand, chance)] += 1
            await assert_as_from_the_start(db, rules)
    while merges := await merges_of(db):
        await hand.undo_merge(WORKSPACE, chance.choice(merges), "no")
        done["undo"] += 1
    await assert_as_from_the_start(db, rules)
    for link_id in sorted((await links_of(db)).by_id, key=lambda _: chance.random()):
        await hand.delete_link(WORKSPACE, link_id)
    await assert_as_from_the_start(db, rules)
    assert done["undo"] > 0


async def correct_something(db: Database, hand: Corrections, chance: random.Random) -> str:
    """Undo a random merge, or add or delete a random link; returns what was done."""
    merges, links = await merges_of(db), list((await links_of(db)).by_id)
    kind = chance.random()
    if kind < 0.5 and merges:
        await hand.undo_merge(WORKSPACE, chance.choice(merges), "no")
        return "undo"
    if kind < 0.7 and links:
        await hand.delete_link(WORKSPACE, chance.choice(links))
        return "delete"
    one, other = chance.sample([i for pool in POOLS.values() for i in pool], 2)
    kind_of_link: Kind = chance.choice(["together", "apart"])
    try:
        await hand.add_link(WORKSPACE, kind_of_link, message(one), message(other), "so")
    except ApiError as error:
        assert error.reason == "LINKS_CONTRADICT"
        return "contradiction"
    return kind_of_link
