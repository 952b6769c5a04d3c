"""Another worker is quicker, between any two steps of one: the outcome is still that of the recorded order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from headrace_identity import links_store, store, workspaces
from headrace_identity.documents import identifier_key, profile_key
from headrace_identity.resolving.links import Links, ManualLink
from headrace_identity.resolving.resolver import prepare
from headrace_identity.resolving.rules import parse
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.storage.mongo.client import Database, transaction
from tests.support.identity import assert_equals_replay, event, read_stored

STEPS = [
    "begun",
    "looked for repeated",
    "read rules",
    "loaded",
    "reserved",
    "resolved",
    "written",
    "inserted",
    "committed",
]
RULES = parse(
    {
        "namespaces": [
            {"name": "user_id", "limit": 2},
            {"name": "email", "limit": 1, "per": "week"},
            {"name": "anonymous_id", "limit": 2},
        ]
    }
)
E1, E2 = ("email", "one@shop.example"), ("email", "two@shop.example")
U1, U2, U3 = ("user_id", "u1"), ("user_id", "u2"), ("user_id", "u3")
A1, A2, A3 = ("anonymous_id", "dev1"), ("anonymous_id", "dev2"), ("anonymous_id", "dev3")


@dataclass(frozen=True)
class Scenario:
    """What is there before, what the slow worker does, and what the quick one does meanwhile."""

    name: str
    before: Sequence[Event]
    slow: Sequence[Event]
    quick: Sequence[Event]
    links: Sequence[ManualLink] = ()


SCENARIOS = [
    Scenario("the same new identifier", [], [event("s", U1)], [event("q", U1)]),
    Scenario("the same event", [], [event("s", U1, A1)], [event("s", U1, A1)]),
    Scenario(
        "attach while it is merged", [event("b1", U1), event("b2", A1)], [event("s", A1, A2)], [event("q", U1, A1)]
    ),
    Scenario(
        "nothing new while it is merged", [event("b1", U1), event("b2", A1)], [event("s", A1)], [event("q", U1, A1)]
    ),
    Scenario(
        "a trait while it is merged",
        [event("b1", U1), event("b2", A1)],
        [event("s", A1, traits={"plan": "pro"})],
        [event("q", U1, A1, traits={"plan": "free"}, day=1)],
    ),
    Scenario(
        "two merges of one loser",
        [event("b1", U1), event("b2", A1), event("b3", U2)],
        [event("s", U1, A1)],
        [event("q", U2, A1)],
    ),
    Scenario(
        "an alias to an id that appears",
        [event("b1", U1)],
        [event("s", U1, previous_id="u2")],
        [event("q", U2)],
    ),
    Scenario(
        "a demotion that an alias makes needless",
        [event("b1", U1, A1), event("b2", U2, A2)],
        [event("s", A1, A2)],
        [event("q", U1, previous_id="u2")],
    ),
    Scenario(
        "a demoted email that appears with another time",
        [event("b1", U1, E1)],
        [event("s", U1, E2, day=1)],
        [event("q", A3, E2, day=30)],
    ),
    Scenario(
        "a limit that is reached meanwhile",
        [event("b1", U1, A1)],
        [event("s", U1, A2)],
        [event("q", U1, A3)],
    ),
    Scenario(
        "merges that would break a limit together",
        [event("b1", U1), event("b2", A1, U2), event("b3", A2, U3)],
        [event("s", U1, previous_id="u2")],
        [event("q", U1, previous_id="u3")],
    ),
    Scenario(
        "what it is forced together with appears",
        [],
        [event("s", A1)],
        [event("q", E1)],
        [ManualLink("t", "together", A1, E1)],
    ),
    Scenario(
        "an alias to what is forced together with an id that appears",
        [event("b1", U1)],
        [event("s", U1, previous_id="u2")],
        [event("q", E1)],
        [ManualLink("t", "together", U2, E1)],
    ),
    Scenario(
        "a demoted identifier that is forced together with what joins meanwhile",
        [event("b1", U1, A1, E1), event("b2", A3)],
        [event("s", U1, E2)],
        [event("q", U1, A3)],
        [ManualLink("t", "together", E2, A3)],
    ),
    Scenario(
        "two that are kept apart, one of which grows",
        [event("b1", U1, A1), event("b2", E1), event("b3", A3)],
        [event("s", A1, E1, A3)],
        [event("q", E1, A3)],
        [ManualLink("a", "apart", U1, E1)],
    ),
    Scenario(
        "two that come together meanwhile with what keeps a third apart",
        [event("b1", U1), event("b2", A1), event("b3", A2)],
        [event("s", U1, A1)],
        [event("q", A1, A2)],
        [ManualLink("a", "apart", U1, A2)],
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
async def test_another_worker_is_quicker(db: Database, scenario: Scenario) -> None:
    for step in STEPS:
        workspace_id = "at-" + step.replace(" ", "-")
        await RulesStore(db).write(workspace_id, RULES.as_json())
        await _add_links(db, workspace_id, scenario.links)
        await Worker(db).process(workspace_id, _incoming(workspace_id, scenario.before, "before"))
        quick: list[asyncio.Task[object]] = []

        async def let_the_other_go_first(
            at: str, step: str = step, workspace_id: str = workspace_id, quick: list[asyncio.Task[object]] = quick
        ) -> None:
            if at == step and not quick:
                other = Worker(db).process(workspace_id, _incoming(workspace_id, scenario.quick, "quick"))
                quick.append(asyncio.create_task(other))
                # It cannot end when it needs what the slow one has written already; then the slow one goes on.
                await asyncio.wait(quick, timeout=0.05 if step in {"written", "inserted"} else None)

        slow = Worker(db, at_step=let_the_other_go_first)
        await slow.process(workspace_id, _incoming(workspace_id, scenario.slow, "slow"))
        assert quick, "the step was never reached"
        await quick[0]
        stored = await read_stored(db, workspace_id)
        expected = {e.message_id for e in (*scenario.before, *scenario.slow, *scenario.quick)}
        assert {r.event.message_id for r in stored.events} == expected
        assert_equals_replay(stored, RULES, Links(scenario.links))


async def _add_links(db: Database, workspace_id: str, links: Sequence[ManualLink]) -> None:
    if links:
        async with transaction(db.client) as session:
            await links_store.add(db, session, workspace_id, links)
            await workspaces.count(db, session, workspace_id, "l")


async def test_loading_sees_one_moment(db: Database) -> None:
    """What is merged into a profile that appeared later is, in the transaction of the slow one, not merged yet."""
    await RulesStore(db).write("w", RULES.as_json())
    await Worker(db).process("w", _incoming("w", [event("b1", A1)], "before"))
    async with transaction(db.client) as session:
        _, rules = await RulesStore(db).read("w", session)  # the snapshot is of now
        await Worker(db).process("w", _incoming("w", [event("q", U1)], "quick"))
        mine, other = [
            (await db[store.IDENTIFIERS].find({"_id": identifier_key("w", i)}).to_list(None))[0]["p"] for i in (A1, U1)
        ]
        # As a merge leaves it into a profile that was made earlier and committed later.
        await db[store.PROFILES].update_one({"_id": profile_key("w", mine)}, {"$set": {"into": other}})
        slow = prepare(_incoming("w", [event("s", A1, traits={"plan": "pro"})], "slow")[0].event, rules)
        loaded = await store.load(db, session, "w", [slow])
        assert loaded.graph.root(mine).id == mine


def _incoming(workspace_id: str, events: Sequence[Event], segment: str) -> list[Incoming]:
    copies = []
    for place, one in enumerate(events):
        copy = Event()
        copy.CopyFrom(one)
        copy.workspace_id = workspace_id
        copies.append(Incoming(copy, segment, place))
    return copies
