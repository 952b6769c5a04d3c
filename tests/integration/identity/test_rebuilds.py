"""Previews and rebuilds on a real MongoDB: against a fresh replay of the log, while traffic flows, through crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from headrace_identity import store
from headrace_identity.links_store import LinksStore
from headrace_identity.reassign.change import Change
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.rebuilds.runner import Rebuilder
from headrace_identity.rebuilds.store import CANCELLED, DONE, FAILED, RUNNING, RebuildStore, forget_examples, id_of
from headrace_identity.resolving.links import ManualLink
from headrace_identity.resolving.rules import Rules, parse
from headrace_identity.rules_store import RebuildRunning, RulesStore
from headrace_identity.worker import AtStep, Incoming, Worker, no_step
from headrace_identity.workspaces import Workspaces

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.rpc.errors import WRONG_STATE, ApiError
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from tests.support.identity import WORKSPACE, assert_equals_replay, event, read_stored, replayed
from tests.support.identity_histories import history

OLD = parse({"namespaces": [{"name": "user_id", "limit": 2}, {"name": "email", "limit": 2}], "protected": []})
NEW = parse({"namespaces": [{"name": "user_id"}, {"name": "email", "limit": 1}, {"name": "anonymous_id", "limit": 1}]})
WORKING_COLLECTIONS = (store.PROFILES, store.IDENTIFIERS, store.DEMOTIONS, log.EVENTS, log.REASSIGNMENTS)


def rebuilder(db: Database, *, at_step: AtStep = no_step, inside: AtStep = no_step) -> Rebuilder:
    """One that takes small steps."""
    reassigner = Reassigner(db, at_step=inside)
    made = RebuildStore(db, RulesStore(db))
    return Rebuilder(db, made, reassigner, events_at_a_time=20, events_a_switch=10, at_step=at_step)


async def resolve(db: Database, events: Sequence[Event], size: int = 10) -> None:
    for start in range(0, len(events), size):
        batch = [Incoming(e, "s", i) for i, e in enumerate(events[start : start + size])]
        await Worker(db).process(WORKSPACE, batch)


async def begin(db: Database, rules: Rules | None) -> str:
    document = await RebuildStore(db, RulesStore(db)).start_rebuild(WORKSPACE, rules, None, "")
    return id_of(document)


async def read(db: Database, rebuild_id: str) -> Document:
    return await RebuildStore(db, RulesStore(db)).get(WORKSPACE, rebuild_id)


async def snapshot(db: Database) -> dict[str, dict[str, Any]]:
    """Every document of identity and the log, without what only makes transactions conflict."""
    return {
        collection: {d["_id"]: {k: v for k, v in d.items() if k != "g"} async for d in db[collection].find({})}
        for collection in WORKING_COLLECTIONS
    }


async def test_the_same_rules_and_events_change_nothing_while_traffic_flows(db: Database) -> None:
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    # Workers that race: what they recorded is the order that counts.
    events = history(1, WORKSPACE, aliases=True, size=90)
    await asyncio.gather(*(resolve(db, events[n::3], 7) for n in range(3)))
    before = await snapshot(db)
    others = [event(f"other-{i}", ("user_id", f"o{i % 3}"), ("anonymous_id", f"od{i % 5}")) for i in range(60)]
    traffic = asyncio.create_task(resolve(db, others, 3))
    rebuild_id = await begin(db, None)
    assert await rebuilder(db).step()
    await traffic
    found = await read(db, rebuild_id)
    assert (found["st"], found["er"]) == (DONE, "")
    assert found["c"][2:] == [0, 0, 0]
    after = await snapshot(db)
    for collection, documents in before.items():
        kept = {key: after[collection].get(key) for key in documents}
        assert kept == documents, collection
    assert (await Workspaces(db).read(WORKSPACE)).epoch == 0


@pytest.mark.parametrize("seed", range(2))
async def test_afterwards_everything_equals_a_fresh_replay(db: Database, seed: int) -> None:
    """Old events by the new rules, while events come that touch the same people."""
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    events = history(seed, WORKSPACE, aliases=True, size=120)
    await resolve(db, events[:70])
    rebuild_id = await begin(db, NEW)
    traffic = asyncio.create_task(resolve(db, events[70:], 2))
    assert await rebuilder(db).step()
    await traffic
    found = await read(db, rebuild_id)
    assert found["st"] == DONE
    stored = await read_stored(db)
    assert_equals_replay(stored, NEW)
    workspace = await Workspaces(db).read(WORKSPACE)
    assert (workspace.rebuilt_version, workspace.rules_version) == (2, 2)
    reassigned = [r async for r in log.reassignments_since(db, 0, WORKSPACE)]
    assert workspace.epoch == len({r.epoch for r in reassigned}) > 0
    # Once more: there is nothing left to do.
    before = await snapshot(db)
    await begin(db, None)
    assert await rebuilder(db).step()
    assert await snapshot(db) == before


async def test_a_preview_says_what_the_rebuild_does(db: Database) -> None:
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    await resolve(db, history(5, WORKSPACE, aliases=True, size=80))
    before = await snapshot(db)
    preview = await RebuildStore(db, RulesStore(db)).start_preview(WORKSPACE, NEW, "")
    assert await rebuilder(db).step()
    said = await read(db, id_of(preview))
    assert (said["st"], said["v"], said["ev"][0]) == (DONE, -1, said["ev"][1])
    assert await snapshot(db) == before
    assert (await RulesStore(db).read(WORKSPACE))[0] == 1
    stored = await read_stored(db)
    now = replayed(stored, NEW)
    assert said["c"][:2] == [sum(p.merged_into is None for p in stored.graph.profiles.values()), len(now.roots())]
    assert said["c"][4] == sum(stored.root_of(m) != now.root_of(m) for m in now.resolutions) > 0
    examples = pb.Rebuild.FromString(said["x"])
    assert examples.split_examples
    for example in (*examples.merge_examples, *examples.split_examples):
        for profile in example.after:
            name = profile.name.rpartition("/")[2]
            assert [(i.namespace, i.value) for i in profile.identifiers] == now.identifiers(name)
        for profile in example.before:
            held = stored.graph.profiles[profile.name.rpartition("/")[2]].identifiers
            assert [(i.namespace, i.value) for i in profile.identifiers] == sorted(held)

    rebuild_id = await begin(db, NEW)
    assert await rebuilder(db).step()
    done = await read(db, rebuild_id)
    assert done["c"] == said["c"]
    assert (await read_stored(db)).root_of("m000") == now.root_of("m000")
    await forget_examples(db, None, WORKSPACE)
    assert (await read(db, rebuild_id))["x"] is None


async def test_a_preview_catches_up_while_traffic_flows(db: Database) -> None:
    events = history(6, WORKSPACE, aliases=False, size=120)
    await resolve(db, events[:60])
    preview = await RebuildStore(db, RulesStore(db)).start_preview(WORKSPACE, NEW, "")
    rest = [events[60:90], events[90:]]

    async def meanwhile(step: str) -> None:
        if step == "added" and rest:
            await resolve(db, rest.pop(0))

    assert await rebuilder(db, at_step=meanwhile).step()
    assert (await read(db, id_of(preview)))["ev"][0] >= 90 - 10  # the last few may come behind


class Crash(BaseException):
    """The process ends."""


@pytest.mark.parametrize("step", ["added", "compared", "switched", "all switched"])
async def test_after_a_crash_another_replica_takes_over(db: Database, step: str) -> None:
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    await resolve(db, history(2, WORKSPACE, aliases=True, size=80))
    rebuild_id = await begin(db, NEW)

    async def crash(at: str) -> None:
        if at == step:
            raise Crash

    with pytest.raises(Crash):
        await rebuilder(db, at_step=crash).step()
    assert not await rebuilder(db).step()  # the lease of the first holds still
    await db[store.IDENTITY_REBUILDS].update_many({}, {"$set": {"l": 1}})
    counted = (await read(db, rebuild_id))["c"]
    assert await rebuilder(db).step()
    found = await read(db, rebuild_id)
    assert found["st"] == DONE
    assert counted is None or found["c"] == counted
    assert_equals_replay(await read_stored(db), NEW)


async def test_what_ends_every_replica_is_given_up(db: Database) -> None:
    await resolve(db, [event("m1", ("user_id", "u1"))])
    rebuild_id = await begin(db, NEW)

    async def crash(at: str) -> None:
        raise Crash

    for _ in range(5):
        with pytest.raises(Crash):
            await rebuilder(db, at_step=crash).step()
        await db[store.IDENTITY_REBUILDS].update_many({}, {"$set": {"l": 1}})
    assert await rebuilder(db, at_step=crash).step()
    found = await read(db, rebuild_id)
    assert found["st"] == FAILED
    assert "memory" in found["er"]
    await RulesStore(db).write(WORKSPACE, {})


async def test_a_replica_that_is_stopped_leaves_it_at_once(db: Database) -> None:
    await resolve(db, [event("m1", ("user_id", "u1"))])
    rebuild_id = await begin(db, NEW)
    reached = asyncio.Event()

    async def wait(at: str) -> None:
        reached.set()
        await asyncio.Event().wait()

    first = asyncio.create_task(rebuilder(db, at_step=wait).step())
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await rebuilder(db).step()
    assert (await read(db, rebuild_id))["st"] == DONE


async def test_who_lost_it_to_another_stops(db: Database) -> None:
    await resolve(db, history(2, WORKSPACE, aliases=True, size=60))
    rebuild_id = await begin(db, NEW)

    async def another_takes_it(at: str) -> None:
        if at == "compared":
            await db[store.IDENTITY_REBUILDS].update_many({}, {"$set": {"o": "another"}})

    assert await rebuilder(db, at_step=another_takes_it).step()
    assert (await read(db, rebuild_id))["st"] == RUNNING
    assert (await Workspaces(db).read(WORKSPACE)).rebuilt_version == -1


async def test_cancelling_leaves_everybody_complete(db: Database) -> None:
    """What was put in place follows the new rules, what was not the old ones; later corrections keep to that."""
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    pairs = [
        event(f"m{i}-{n}", ("email", f"e{i}@shop.example"), ("anonymous_id", f"d{i}-{n}"))
        for i in range(12)
        for n in range(2)
    ]
    await resolve(db, pairs)
    rebuild_id = await begin(db, NEW)
    rebuilds = RebuildStore(db, RulesStore(db))

    async def cancel(at: str) -> None:
        if at == "switched":
            await rebuilds.cancel(WORKSPACE, rebuild_id)

    assert await rebuilder(db, at_step=cancel).step()
    found = await read(db, rebuild_id)
    assert (found["st"], found["er"]) == (CANCELLED, "")
    assert not await rebuilder(db).step()
    stored = await read_stored(db)
    switched = {i for i in range(12) if stored.root_of(f"m{i}-1") and len(_devices(stored, i)) == 1}
    assert 0 < len(switched) < 12
    versions = {
        i: {r.decision.rules_version for r in stored.events if r.event.message_id.startswith(f"m{i}-")}
        for i in range(12)
    }
    assert all(versions[i] == ({2} if i in switched else {1}) for i in range(12))
    # Rules may change again.
    assert await RulesStore(db).write(WORKSPACE, OLD.as_json()) == 3


def _devices(stored: Any, number: int) -> list[str]:
    root = stored.graph.profiles[stored.root_of(f"m{number}-0")]
    return [value for namespace, value in root.identifiers if namespace == "anonymous_id"]


async def test_while_it_runs_the_rules_stay(db: Database) -> None:
    await resolve(db, [event("m1", ("user_id", "u1"))])
    rebuild_id = await begin(db, NEW)
    with pytest.raises(RebuildRunning):
        await RulesStore(db).write(WORKSPACE, {})
    with pytest.raises(ApiError) as caught:
        await begin(db, None)
    assert caught.value.reason == WRONG_STATE
    assert rebuild_id in caught.value.message
    await RebuildStore(db, RulesStore(db)).start_preview(WORKSPACE, OLD, "")
    assert await rebuilder(db).step()
    assert await rebuilder(db).step()
    assert not await rebuilder(db).step()
    await RulesStore(db).write(WORKSPACE, {})


async def test_people_who_are_corrected_meanwhile_are_compared_again(db: Database) -> None:
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    await resolve(db, history(3, WORKSPACE, aliases=True, size=60))
    rebuild_id = await begin(db, NEW)
    added: list[str] = []

    async def correct(at: str) -> None:
        if at in {"compared", "switched"} and at not in added:
            added.append(at)
            number = len(added)
            link = ManualLink(f"l{number}", "apart", ("user_id", f"u{number}"), ("anonymous_id", "d1x"), "a test")
            await Reassigner(db).reassign(WORKSPACE, Change(add_links=[link]))

    assert await rebuilder(db, at_step=correct).step()
    assert (await read(db, rebuild_id))["st"] == DONE
    assert added == ["compared", "switched"]
    links = await LinksStore(db).read(await Workspaces(db).read(WORKSPACE))
    assert_equals_replay(await read_stored(db), NEW, links)


async def test_too_many_events_at_once_fail_with_what_to_do(db: Database) -> None:
    await RulesStore(db).write(WORKSPACE, OLD.as_json())
    events = [event(f"m{i}", ("email", "e@shop.example"), ("anonymous_id", f"d{i % 3}")) for i in range(30)]
    await resolve(db, events)
    rebuild_id = await begin(db, NEW)
    made = RebuildStore(db, RulesStore(db))
    assert await Rebuilder(db, made, Reassigner(db, most_events=10)).step()
    found = await read(db, rebuild_id)
    assert found["st"] == FAILED
    assert "events are concerned" in found["er"]
    assert "shop.example" not in found["er"]
    assert_equals_replay(await read_stored(db), OLD)
    await RulesStore(db).write(WORKSPACE, OLD.as_json())


async def test_who_was_nobody_becomes_somebody_and_the_other_way_round(db: Database) -> None:
    await RulesStore(db).write(WORKSPACE, {"blocked": [{"equals": "guest-7"}]})
    await resolve(
        db,
        [
            event("m1", ("user_id", "guest-7")),
            event("m2", ("user_id", "kiosk-1")),
            event("m3", ("user_id", "guest-7"), ("anonymous_id", "dev1"), day=1),
        ],
    )
    stored = await read_stored(db)
    assert [bool(stored.root_of(m)) for m in ("m1", "m2", "m3")] == [False, True, True]
    rules = parse({"blocked": [{"equals": "kiosk-1"}]})
    await begin(db, rules)
    assert await rebuilder(db).step()
    stored = await read_stored(db)
    assert stored.root_of("m1") == stored.root_of("m3") != stored.root_of("m2") == ""
    assert_equals_replay(stored, rules)


async def test_a_correction_by_the_old_rules_is_found(db: Database) -> None:
    """Nobody differs between the rules, until a link parts two whose events the old rules would then join otherwise."""
    rules = parse({"max_merges": 0})
    await resolve(
        db,
        [
            event("m1", ("user_id", "u1"), ("email", "e@shop.example"), ("anonymous_id", "dev1")),
            event("m2", ("anonymous_id", "dev1"), ("anonymous_id", "dev5")),
            event("m3", ("user_id", "u7"), ("anonymous_id", "dev6")),
            event("m4", ("anonymous_id", "dev5"), ("anonymous_id", "dev6")),
        ],
    )
    rebuild_id = await begin(db, rules)
    passes: list[str] = []

    async def correct(at: str) -> None:
        if at == "compared":
            passes.append(at)
            if len(passes) == 1:
                link = ManualLink("l1", "apart", ("email", "e@shop.example"), ("anonymous_id", "dev1"), "a test")
                await Reassigner(db).reassign(WORKSPACE, Change(add_links=[link]))

    assert await rebuilder(db, at_step=correct).step()
    assert (await read(db, rebuild_id))["st"] == DONE
    assert len(passes) == 2
    links = await LinksStore(db).read(await Workspaces(db).read(WORKSPACE))
    assert_equals_replay(await read_stored(db), rules, links)
