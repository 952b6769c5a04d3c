"""Alarms: written once each, after the micro-batch, without a write per event."""

from __future__ import annotations

from typing import Any

from headrace_identity import alarms as module
from headrace_identity.alarms import CAP_IDENTIFIERS, CAP_MERGES, SUPER_NODE, WEAK_VALUE, Alarms
from headrace_identity.rules_store import RulesStore
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event, read_stored


async def resolve(db: Database, alarms: Alarms, rules: dict[str, Any], events: list[Event]) -> None:
    """Resolve events under rules, and have the alarms written."""
    await RulesStore(db).write(WORKSPACE, rules)
    await Worker(db, alarms=alarms).process(WORKSPACE, [Incoming(e, "s", i) for i, e in enumerate(events)])
    await alarms.write()


async def raised(db: Database) -> list[tuple[str, str, int]]:
    found = [a for a, _ in await module.page(db, WORKSPACE, None, 100)]
    return sorted((a.kind, a.profile_id or str(a.identifier), a.number) for a in found)


async def test_caps(db: Database) -> None:
    rules = {"max_merges": 1, "max_identifiers": 4, "default_limit": 100, "protected": []}
    events = [event("m1", ("user_id", "u1"))]
    events += [event(f"d{i}", ("anonymous_id", f"dev{i}")) for i in range(3)]
    events += [event(f"l{i}", ("user_id", "u1"), ("anonymous_id", f"dev{i}")) for i in range(3)]
    events += [event(f"n{i}", ("user_id", "u1"), ("anonymous_id", f"new{i}")) for i in range(4)]
    alarms = Alarms(db)
    await resolve(db, alarms, rules, events)
    root = (await read_stored(db)).root_of("m1")
    assert await raised(db) == [(CAP_IDENTIFIERS, root, 4), (CAP_MERGES, root, 1)]


async def test_it_is_the_large_one_who_is_at_the_cap(db: Database) -> None:
    """Others who come in events with somebody at the cap have one identifier each, and no alarm."""
    rules = {"max_identifiers": 4, "default_limit": 100, "protected": [], "namespaces": [{"name": "crm_id"}]}
    events = [event(f"m{i}", ("user_id", "u1"), ("anonymous_id", f"dev{i}")) for i in range(3)]
    events += [event(f"c{i}", ("crm_id", f"z{i}")) for i in range(3)]
    events += [event(f"b{i}", ("crm_id", f"z{i}"), ("user_id", "u1")) for i in range(3)]
    alarms = Alarms(db)
    await resolve(db, alarms, {**rules, "alarm_people": 2}, events)
    at_cap = (CAP_IDENTIFIERS, (await read_stored(db)).root_of("m0"), 4)
    # What a cap sets aside counts as a value that many carry, as what a limit sets aside does.
    assert await raised(db) == [at_cap, (WEAK_VALUE, "('user_id', 'u1')", 3)]


async def test_a_super_node_is_told_once(db: Database) -> None:
    rules = {"alarm_identifiers": 3, "default_limit": 100}
    events = [event(f"m{i}", ("user_id", "u1"), ("anonymous_id", f"dev{i}")) for i in range(10)]
    alarms = Alarms(db)
    await resolve(db, alarms, rules, events[:2])
    root = (await read_stored(db)).root_of("m0")
    assert await raised(db) == [(SUPER_NODE, root, 3)]
    await resolve(db, alarms, rules, events[2:5])
    await resolve(db, Alarms(db), rules, events[5:])  # another replica knows nothing of it
    assert await raised(db) == [(SUPER_NODE, root, 3)]


async def test_a_value_that_many_people_carry_is_weak(db: Database) -> None:
    rules = {"alarm_people": 3}
    kiosk = ("anonymous_id", "kiosk")
    events = [event("m0", ("user_id", "u0"), kiosk)]
    events += [event(f"m{i}", ("user_id", f"u{i}"), kiosk) for i in range(1, 4)]
    alarms = Alarms(db)
    await resolve(db, alarms, rules, events)
    assert await raised(db) == []
    await resolve(db, alarms, rules, [event("again", ("user_id", "u1"), kiosk)])
    assert await raised(db) == []
    await resolve(db, alarms, rules, [event("m4", ("user_id", "u4"), kiosk)])
    assert await raised(db) == [(WEAK_VALUE, str(kiosk), 4)]


async def test_under_a_policy_a_shared_device_is_no_cause(db: Database) -> None:
    rules = {"alarm_people": 2, "policies": [{"policy": "isolation"}]}
    kiosk = ("anonymous_id", "kiosk")
    events = [event("m0", kiosk), *(event(f"m{i}", ("user_id", f"u{i}"), kiosk) for i in range(1, 9))]
    await resolve(db, Alarms(db), rules, events)
    assert await raised(db) == []


async def test_pages_continue_exactly(db: Database) -> None:
    rules = {"alarm_identifiers": 2}
    events = [event(f"m{i}", ("user_id", f"u{i}"), ("anonymous_id", f"dev{i}")) for i in range(5)]
    await resolve(db, Alarms(db), rules, events)
    seen: list[str] = []
    position = None
    while found := await module.page(db, WORKSPACE, position, 2):
        seen += [alarm.profile_id for alarm, _ in found]
        position = found[-1][1]
    assert sorted(seen) == sorted({(await read_stored(db)).root_of(f"m{i}") for i in range(5)})
