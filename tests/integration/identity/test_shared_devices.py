"""Policies for shared devices on a real MongoDB: the worked flows, and workers that race for a device."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from headrace_identity import store
from headrace_identity.resolving.rules import parse
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Incoming, Worker

from headrace.storage.mongo.client import Database
from tests.support.identity import assert_equals_replay, event, read_stored
from tests.support.shared_devices import FLOWS, assert_flow, flow_events

DEVICES, PEOPLE = ["dev1", "dev2", "dev3"], ["u1", "u2", "u3"]


@pytest.mark.parametrize("size", [1, 100])
async def test_flows(db: Database, size: int) -> None:
    for number, flow in enumerate(FLOWS):
        workspace_id = f"flow-{number}"
        await RulesStore(db).write(workspace_id, flow["rules"])
        events = flow_events(flow, workspace_id)
        for start in range(0, len(events), size):
            batch = [Incoming(e, "s1", i) for i, e in enumerate(events[start : start + size])]
            await Worker(db).process(workspace_id, batch)
        stored = await read_stored(db, workspace_id)
        assert_flow(flow, {r.event.message_id: (r.profile_id, r.decision) for r in stored.events}, stored.graph)
        assert_equals_replay(stored, parse(flow["rules"]))


@pytest.mark.parametrize("policy", ["conversion", "link", "isolation"])
async def test_a_race_for_devices_equals_its_recorded_order(db: Database, policy: str) -> None:
    """Logins, logouts and limits on few devices, some from a source without a policy."""
    rules = {
        "policies": [{"policy": policy, "source": "web"}],
        "namespaces": [{"name": "user_id", "limit": 1}, {"name": "anonymous_id", "limit": 2}],
    }
    for seed in range(4):
        workspace_id = f"race-{seed}"
        await RulesStore(db).write(workspace_id, rules)
        chance = random.Random(seed)

        async def visit(worker: int, chance: random.Random = chance, workspace_id: str = workspace_id) -> None:
            events = [
                event(
                    f"m{worker}-{i}",
                    *[("anonymous_id", d) for d in chance.sample(DEVICES, chance.choice([0, 1, 1, 2]))],
                    *[("user_id", chance.choice(PEOPLE)) for _ in range(chance.choice([0, 0, 1]))],
                    name=chance.choice(["Viewed", "Signed Out"]),
                    source_id=chance.choice(["web", "web", "api"]),
                    traits={"seen": i} if chance.random() < 0.3 else None,
                    workspace_id=workspace_id,
                )
                for i in range(16)
            ]
            for start in range(0, 16, 4):
                batch = [Incoming(e, "s", i) for i, e in enumerate(events[start : start + 4])]
                await Worker(db).process(workspace_id, batch)

        await asyncio.gather(*map(visit, range(3)))
        stored = await read_stored(db, workspace_id)
        assert_equals_replay(stored, parse(rules))
        if policy != "isolation":
            assert any(r.decision.handovers for r in stored.events)


async def test_without_a_policy_nothing_is_written_for_devices(db: Database) -> None:
    """Finding a person by a device writes neither of them, unless a policy hands devices over."""
    for workspace_id, rules in (("plain", {}), ("shared", {"policies": [{"policy": "conversion"}]})):
        await RulesStore(db).write(workspace_id, rules)
        for number in range(3):
            one = event(f"m{number}", ("anonymous_id", "dev1"), workspace_id=workspace_id)
            await Worker(db).process(workspace_id, [Incoming(one, "s", 0)])
    counters = {d["_id"].split("\x1f")[0]: d.get("g", 0) async for d in db[store.IDENTIFIERS].find({})}
    assert counters == {"plain": 0, "shared": 2}
    assert await db[store.PROFILES].count_documents({"g": {"$exists": True}}) == 0


SCENARIOS: dict[str, list[dict[str, Any]]] = {
    "attach by the device while it is handed over": [
        {"before": [("user_id", "u1"), ("anonymous_id", "dev1")]},
        {"slow": [("anonymous_id", "dev1")]},
        {"quick": [("anonymous_id", "dev1")], "name": "Signed Out"},
    ],
    "a logout while somebody logs in": [
        {"before": [("anonymous_id", "dev1")]},
        {"slow": [("anonymous_id", "dev1")], "name": "Signed Out"},
        {"quick": [("user_id", "u1"), ("anonymous_id", "dev1")]},
    ],
    "a demotion by a limit while a device is handed over": [
        {"before": [("user_id", "u1"), ("anonymous_id", "dev1"), ("anonymous_id", "dev2")]},
        {"slow": [("user_id", "u1"), ("anonymous_id", "dev3")]},
        {"quick": [("anonymous_id", "dev1")], "name": "Signed Out"},
    ],
    "a demotion by isolation while the two become one": [
        {"before": [("anonymous_id", "dev1")]},
        {"before": [("user_id", "u1")]},
        {"slow": [("user_id", "u1"), ("anonymous_id", "dev1")], "source": "kiosk"},
        {"quick": [("user_id", "u1"), ("anonymous_id", "dev1")]},
    ],
}


@pytest.mark.parametrize("logouts", [["Signed Out"], []], ids=["with logouts", "without"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_another_worker_is_quicker(db: Database, scenario: str, logouts: list[str]) -> None:
    policies = [{"policy": "conversion"}, {"policy": "isolation", "source": "kiosk"}]
    rules = parse(
        {
            "policies": [p | {"logout_events": logouts} for p in policies],
            "namespaces": [{"name": "anonymous_id", "limit": 2}],
        }
    )
    for step in ("read rules", "loaded", "reserved", "resolved", "written", "inserted"):
        workspace_id = "at-" + step.replace(" ", "-")
        await RulesStore(db).write(workspace_id, rules.as_json())
        parts: dict[str, list[Incoming]] = {"before": [], "slow": [], "quick": []}
        for number, given in enumerate(SCENARIOS[scenario]):
            (role,) = given.keys() & parts.keys()
            one = event(
                f"{role}-{number}",
                *given[role],
                name=given.get("name", "Viewed"),
                source_id=given.get("source", "web"),
                workspace_id=workspace_id,
            )
            parts[role].append(Incoming(one, role, len(parts[role])))
        await Worker(db).process(workspace_id, parts["before"])
        other: list[asyncio.Task[object]] = []

        async def let_the_other_go_first(
            at: str,
            step: str = step,
            workspace_id: str = workspace_id,
            other: list[asyncio.Task[object]] = other,
            quick: list[Incoming] = parts["quick"],
        ) -> None:
            if at == step and not other:
                other.append(asyncio.create_task(Worker(db).process(workspace_id, quick)))
                await asyncio.wait(other, timeout=0.05 if step in {"written", "inserted"} else None)

        await Worker(db, at_step=let_the_other_go_first).process(workspace_id, parts["slow"])
        await other[0]
        assert_equals_replay(await read_stored(db, workspace_id), rules)
