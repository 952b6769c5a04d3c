"""Rebuilds from random rules to others, with manual links and undone merges, while events come: equal to the byte."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from headrace_identity import store
from headrace_identity.reassign.change import Change
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.rebuilds.runner import Rebuilder
from headrace_identity.rebuilds.store import DONE, RebuildStore, id_of
from headrace_identity.resolving.links import ManualLink
from headrace_identity.resolving.rules import Rules, parse
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Worker

from headrace.rpc.errors import ApiError
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE
from tests.support.reassignment import POOLS, assert_as_from_the_start, incoming, random_history, stored_state

NAMESPACES = ("user_id", "email", "anonymous_id")


def random_rules(chance: random.Random) -> Rules:
    """Rules whose limits break, some with policies for shared devices."""
    form: dict[str, Any] = {
        "namespaces": [
            {"name": name, "limit": chance.randint(1, 3)} | ({"per": "week"} if chance.random() < 0.3 else {})
            for name in chance.sample(NAMESPACES, chance.randint(0, 3))
        ],
        "default_limit": chance.randint(1, 4),
        "protected": chance.choice([[], ["user_id"], ["user_id", "email"]]),
        "max_merges": chance.choice([1, 3, 100]),
        "max_identifiers": chance.choice([4, 8, 1000]),
        "blocked": chance.choice([[], [{"equals": "u3"}, {"namespace": "anonymous_id", "matches": "^dev[12]x"}]]),
        "policies": [
            {"policy": chance.choice(["conversion", "link", "isolation"]), "source": source}
            for source in chance.sample(["web", "kiosk", "tablet"], chance.randint(0, 3))
        ],
    }
    return parse(form)


@pytest.mark.parametrize("seed", range(4))
async def test_equals_the_same_events_from_the_start(db: Database, seed: int) -> None:
    chance = random.Random(seed)
    history = random_history(chance, 110)
    reassigner = Reassigner(db)

    async def resolve(first: int, last: int, size: int) -> None:
        for start in range(first, last, size):
            await Worker(db).process(WORKSPACE, incoming(history[start : min(last, start + size)]))

    async def link(number: int) -> None:
        ends = [chance.choice(POOLS[chance.choice(NAMESPACES)]) for _ in range(2)]
        kind = "apart" if chance.random() < 0.7 else "together"
        added = ManualLink(f"l{number}", kind, ends[0], ends[1], "a test")  # type: ignore[arg-type]  # one of the two
        try:
            await reassigner.reassign(WORKSPACE, Change(add_links=[added]))
        except ApiError:
            pass  # it contradicts another one

    await RulesStore(db).write(WORKSPACE, random_rules(chance).as_json())
    await resolve(0, 40, 7)
    for number in range(chance.randint(0, 3)):
        await link(number)
    await RulesStore(db).write(WORKSPACE, random_rules(chance).as_json())
    await resolve(40, 80, 5)
    rules = random_rules(chance)
    rebuilds = RebuildStore(db, RulesStore(db))
    asked = await rebuilds.start_rebuild(WORKSPACE, rules, None, "")
    rebuilder = Rebuilder(db, rebuilds, reassigner, events_at_a_time=15, events_a_switch=chance.choice([1, 30]))
    traffic = asyncio.create_task(resolve(80, 110, 3))
    assert await rebuilder.step()
    await traffic
    done = await rebuilds.get(WORKSPACE, id_of(asked))
    assert (done["st"], done["er"]) == (DONE, "")
    await assert_as_from_the_start(db, rules)

    # Corrections afterwards keep to it, and doing it again changes nothing.
    await link(9)
    await assert_as_from_the_start(db, rules)
    before = await stored_state(db)
    await rebuilds.start_rebuild(WORKSPACE, None, None, "")
    assert await rebuilder.step()
    assert await stored_state(db) == before
    assert await db[store.IDENTITY_REBUILDS].count_documents({"c.4": 0}) >= 1
