"""Helpers of the identity tests: events, what the service stored, and the replay that it must equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from headrace_identity.documents import profile_from
from headrace_identity.resolving.graph import Graph
from headrace_identity.resolving.links import NO_LINKS, Links
from headrace_identity.resolving.replay import Replay, replay
from headrace_identity.resolving.rules import Rules
from headrace_identity.store import IDENTIFIERS, PROFILES

from headrace.api.common.v1.event_pb2 import Event, EventBatch, EventKind, Identifier
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedBatch, ResolvedEvent
from headrace.domain.ids import new_time_ordered_id, partition_of
from headrace.domain.times import DAY_US
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, read_from, send

WORKSPACE = "shop"
START_US = 1_767_225_600_000_000


def event(
    message_id: str,
    *identifiers: tuple[str, str],
    previous_id: str = "",
    traits: Mapping[str, object] | None = None,
    day: float = 0,
    name: str = "Viewed",
    source_id: str = "web",
    workspace_id: str = WORKSPACE,
) -> Event:
    """An event with these identifiers; an alias when it has a previous id."""
    kind = EventKind.EVENT_KIND_ALIAS if previous_id else EventKind.EVENT_KIND_TRACK
    return Event(
        message_id=message_id,
        workspace_id=workspace_id,
        source_id=source_id,
        kind=kind,
        name=name,
        identifiers=[Identifier(namespace=n, value=v) for n, v in identifiers],
        previous_id=previous_id,
        traits=msgspec.json.encode(traits) if traits else b"",
        received_at_us=START_US,
        timestamp_us=START_US + int(day * DAY_US),
    )


def segments(events: Sequence[Event], size: int, workspace_id: str = WORKSPACE) -> list[EventBatch]:
    """Events in segments of a size."""
    return [
        EventBatch(segment_id=new_time_ordered_id(), workspace_id=workspace_id, events=events[i : i + size])
        for i in range(0, len(events), size)
    ]


@dataclass(frozen=True)
class Stored:
    """All that identity stored of a workspace: events in recorded order, and the graph."""

    events: list[ResolvedEvent]
    graph: Graph

    def root_of(self, message_id: str) -> str:
        """Profile that a message belongs to now."""
        (part,) = [e.profile_id for e in self.events if e.event.message_id == message_id]
        return self.graph.root(part).id if part else ""


async def read_stored(db: Database, workspace_id: str = WORKSPACE) -> Stored:
    """Read everything of a workspace, without the code under test where that is possible."""
    documents = [d async for d in db[log.EVENTS].find({"w": workspace_id}).sort("s", 1)]
    graph = Graph()
    async for document in db[PROFILES].find({"w": workspace_id}):
        profile = profile_from(document)
        graph.profiles[profile.id] = profile
    async for document in db[IDENTIFIERS].find({}):
        workspace, namespace, value = document["_id"].split("\x1f")
        if workspace == workspace_id and document["p"]:
            graph.holders[namespace, value] = document["p"]
    return Stored([log.resolved_event(d) for d in documents], graph)


def replayed(stored: Stored, rules: Rules, links: Links = NO_LINKS) -> Replay:
    """The recorded order, replayed."""
    sequences = (r.decision.sequence for r in stored.events)
    return replay((r.event for r in stored.events), rules, sequences, links)


def assert_equals_replay(stored: Stored, rules: Rules, links: Links = NO_LINKS) -> Replay:
    """The stored outcome is the one of replaying the recorded order: decisions, profiles, identifiers, traits."""
    expected = replayed(stored, rules, links)
    sequences = [r.decision.sequence for r in stored.events]
    assert sequences == sorted(set(sequences))
    for resolved in stored.events:
        message_id = resolved.event.message_id
        decision = expected.resolutions[message_id].decision
        assert essence(resolved.decision) == essence(decision), message_id
        root = stored.graph.root(resolved.profile_id).id if resolved.profile_id else ""
        assert root == expected.root_of(message_id), message_id
    graph = stored.graph
    assert graph.profiles.keys() == expected.graph.profiles.keys()
    for profile_id, profile in graph.profiles.items():
        other = expected.graph.profiles[profile_id]
        assert (profile.created, profile.merged_into, profile.merged_sequence) == (
            other.created,
            other.merged_into,
            other.merged_sequence,
        )
        assert profile.identifiers == other.identifiers
        assert sorted(profile.parts) == sorted(other.parts)
        assert profile.merges == other.merges
        # An event may have set a trait on a part just before that part was merged: the person is the same.
        if profile.merged_into is None:
            assert traits_of(graph, profile_id) == traits_of(expected.graph, profile_id)
    assert graph.holders.keys() == expected.graph.holders.keys()
    for identifier, holder in graph.holders.items():
        assert graph.root(holder).id == expected.graph.root(expected.graph.holders[identifier]).id
    return expected


def traits_of(graph: Graph, root_id: str) -> dict[str, tuple[bytes, str]]:
    """Traits of a person and the message that set each, worked out in the plainest way."""
    everything = [
        (t.time_us, t.message_id, name, t.value)
        for part in graph.profiles[root_id].parts
        for name, t in graph.profiles[part].traits.items()
    ]
    return {name: (value, message_id) for _, message_id, name, value in sorted(everything)}


def essence(decision: Decision) -> tuple[object, ...]:
    """What of a decision does not depend on which of several broken rules was seen first."""
    return (
        decision.action,
        decision.sequence,
        decision.rule,
        [(i.namespace, i.value) for i in decision.identifiers],
        [(s.identifier.namespace, s.identifier.value, s.action) for s in decision.set_aside],
        [(m.loser, m.survivor, sorted(m.loser_parts)) for m in decision.merges],
        [(h.identifier.namespace, h.identifier.value, h.from_profile) for h in decision.handovers],
        decision.stems_from,
    )


def partition(graph: Graph) -> set[frozenset[tuple[str, str]]]:
    """Which identifiers belong together."""
    people: dict[str, set[tuple[str, str]]] = {}
    for identifier, holder in graph.holders.items():
        people.setdefault(graph.root(holder).id, set()).add(identifier)
    return {frozenset(identifiers) for identifiers in people.values()}


def all_messages(stored: Iterable[ResolvedEvent]) -> list[str]:
    """Message ids, sorted, repeated ones repeated."""
    return sorted(r.event.message_id for r in stored)


async def put_in_log(db: Database, redis: Redis, batches: Sequence[EventBatch], event_partitions: int) -> None:
    """What ingest does: append to the log, then dispatch."""
    partitions = [partition_of(batch.segment_id, event_partitions) for batch in batches]
    await log.append_segments(db, batches, partitions)
    await dispatch(db, redis, [batch.segment_id for batch in batches])


async def dispatch(db: Database, redis: Redis, segment_ids: Sequence[str]) -> None:
    """Send segments to their streams."""
    segments_read = await log.read_segments(db, segment_ids)
    await send(redis, [(names.events(q), batch.SerializeToString()) for q, batch in segments_read])


async def unfinished(db: Database) -> list[str]:
    """Segments that are not marked done."""
    return await log.unfinished_segments(db, "", "g", 100_000)


async def sent_on(redis: Redis, partitions: int) -> list[ResolvedBatch]:
    """Everything on the resolved streams."""
    positions = {names.resolved(p): "0" for p in range(partitions)}
    entries = await read_from(redis, positions, count=100_000, block_ms=1)
    return [ResolvedBatch.FromString(entry.payload) for entry in entries]


def assert_sent_on(stored: Stored, batches: Sequence[ResolvedBatch], partitions: int) -> None:
    """Every event and every merge was sent where whoever needs it looks for it, with what is stored of it."""
    decisions = {r.event.message_id: r for r in stored.events}
    merges: dict[tuple[str, str], set[int]] = {}
    places: dict[str, set[int]] = {}
    for batch in batches:
        for sent in batch.events:
            original = decisions[sent.event.message_id]
            assert (sent.event, sent.decision) == (original.event, original.decision)
            assert batch.partition == partition_of(sent.profile_id or sent.event.message_id, partitions)
            if sent.profile_id:
                assert stored.graph.root(sent.profile_id) == stored.graph.root(original.profile_id)
            places.setdefault(sent.event.message_id, set()).add(batch.partition)
        for merge in batch.merges:
            merges.setdefault((merge.loser, merge.survivor), set()).add(batch.partition)
    assert places.keys() == decisions.keys()
    expected = {
        (m.loser, m.survivor): {partition_of(m.loser, partitions), partition_of(m.survivor, partitions)}
        for r in stored.events
        for m in r.decision.merges
    }
    assert merges == expected
