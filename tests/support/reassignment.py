"""Helpers of the tests of reassignment: histories with corrections, and the state that replaying them gives."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace_identity.calls.identity_handlers import Corrections
from headrace_identity.demotions import Demotion, demotions_of
from headrace_identity.documents import identifier_key, profile_document, profile_key
from headrace_identity.links_store import LinksStore
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.links import Links
from headrace_identity.resolving.resolver import prepare, resolve
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.store import DEMOTIONS, IDENTIFIERS, PROFILES
from headrace_identity.worker import Incoming
from headrace_identity.workspaces import Workspaces

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, event

Documents = dict[str, Any]

POOLS: dict[str, list[Identifier]] = {
    "user_id": [("user_id", f"u{i}") for i in range(8)],
    "email": [("email", f"e{i}@shop.example") for i in range(8)],
    "anonymous_id": [("anonymous_id", f"dev{i}x") for i in range(8)],
}


def random_history(chance: random.Random, size: int, workspace_id: str = WORKSPACE) -> list[Event]:
    """Events of a few people who share some things: merges, demotions, aliases, late events, shared devices."""
    events = []
    for number in range(size):
        # Most events are of neighbours, so that there are several people; some are of anybody.
        centre = chance.randrange(8)
        spread = 1 if chance.random() < 0.7 else 8
        identifiers = [
            pool[(centre + chance.randrange(spread)) % 8] for pool in POOLS.values() if chance.random() < 0.5
        ] or [chance.choice(POOLS["anonymous_id"])]
        previous = chance.choice([f"u{centre}", f"dev{centre}x", "u9"]) if chance.random() < 0.08 else ""
        events.append(
            event(
                f"m{number:03}",
                *identifiers,
                previous_id=previous,
                traits={chance.choice("xyz"): number} if chance.random() < 0.4 else None,
                day=chance.choice([0, 1, 2, 5, 30]),
                name=chance.choice(["Viewed", "Viewed", "Signed Out"]),
                source_id=chance.choice(["web", "web", "kiosk", "tablet"]),
                workspace_id=workspace_id,
            )
        )
    return events


@dataclass(frozen=True)
class State:
    """Everything that is stored of a workspace's people, without counters that only make transactions conflict.

    Attributes:
        profiles: Documents by key.
        identifiers: Parts by key of the identifier.
        demotions: Keys.
        events: (part, decision) by message id, in the recorded order.
    """

    profiles: Documents
    identifiers: dict[str, str]
    demotions: frozenset[str]
    events: dict[str, tuple[str, bytes]]


async def links_of(db: Database, workspace_id: str = WORKSPACE) -> Links:
    """The manual links that are stored."""
    return await LinksStore(db).read(await Workspaces(db).read(workspace_id))


async def stored_state(db: Database, workspace_id: str = WORKSPACE) -> State:
    """Read everything, without the code under test."""
    prefix = {"$regex": f"^{workspace_id}\x1f"}
    profiles = {d["_id"]: _plain(d) async for d in db[PROFILES].find({"w": workspace_id})}
    identifiers = {d["_id"]: d["p"] async for d in db[IDENTIFIERS].find({"_id": prefix}) if d["p"]}
    demotions = frozenset([d["_id"] async for d in db[DEMOTIONS].find({"_id": prefix})])
    events = {
        d["_id"].partition("\x1f")[2]: (d["p"], bytes(d["d"]))
        async for d in db[log.EVENTS].find({"w": workspace_id}).sort("s", 1)
    }
    return State(profiles, identifiers, demotions, events)


def replayed_state(
    events: Iterable[ResolvedEvent],
    rules: Rules | Mapping[int, Rules],
    links: Links,
    workspace_id: str = WORKSPACE,
) -> State:
    """What replaying recorded events with these links from the start gives."""
    graph = Graph()
    found: dict[str, tuple[str, bytes]] = {}
    demotions: set[Demotion] = set()
    for recorded in events:
        of_event = rules if isinstance(rules, Rules) else rules[recorded.decision.rules_version]
        prepared = prepare(recorded.event, of_event)
        part, decision = resolve(graph, of_event, prepared, recorded.decision.sequence, Changes(), links)
        decision.rules_version = recorded.decision.rules_version
        found[recorded.event.message_id] = (part, decision.SerializeToString())
        demotions.update(demotions_of(part, decision))
    return State(
        {profile_key(workspace_id, p.id): profile_document(workspace_id, p) for p in graph.profiles.values()},
        {identifier_key(workspace_id, i): part for i, part in graph.holders.items()},
        frozenset(f"{identifier_key(workspace_id, i)}\x1f{part}" for i, part in demotions),
        found,
    )


async def assert_as_from_the_start(
    db: Database, rules: Rules | Mapping[int, Rules], workspace_id: str = WORKSPACE
) -> State:
    """What is stored is what the same events give with the links of now from the start, to the byte."""
    recorded = [log.resolved_event(d) async for d in db[log.EVENTS].find({"w": workspace_id}).sort("s", 1)]
    stored = await stored_state(db, workspace_id)
    expected = replayed_state(recorded, rules, await links_of(db, workspace_id), workspace_id)
    assert stored.events == expected.events
    assert stored.profiles == expected.profiles
    assert stored.identifiers == expected.identifiers
    assert stored.demotions == expected.demotions
    return stored


def corrections(db: Database, **options: Any) -> Corrections:
    """Corrections on a database; options are those of Reassigner."""
    return Corrections(db, Workspaces(db), LinksStore(db), Reassigner(db, **options))


def incoming(events: Sequence[Event]) -> list[Incoming]:
    """Events as a worker takes them."""
    return [Incoming(event, "", place) for place, event in enumerate(events)]


async def merges_of(db: Database, workspace_id: str = WORKSPACE) -> list[str]:
    """Ids of the profiles that are merged into others, sorted."""
    found = [d["_id"] async for d in db[PROFILES].find({"w": workspace_id, "into": {"$exists": True}}, {"_id": 1})]
    return sorted(key.partition("\x1f")[2] for key in found)


def _plain(document: Documents) -> Documents:
    return {k: v for k, v in document.items() if k != "g"}
