"""Memberships follow when merges are undone and events move: the engine against the reference over what is left.

People are deleted in between. Identity is imitated at its worst: entries are sent late and again, also such that were
overtaken by a reassignment; partitions lag behind each other; the replica starts again from snapshots in between.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any
from unittest import mock

from headrace_audience import merges, reassignments, streaming
from headrace_audience.catalog import Audience
from headrace_audience.engine.engine import Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.language.definition import Definition
from headrace_audience.offline.facts import Fact, facts_of_resolved, resolved_of
from headrace_audience.offline.reference import Reference
from headrace_audience.store import ACTIVE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from tests.support import audience_histories as random
from tests.support.reassigned import World

PARTITIONS = 4
NOTHING: Any = None
choices = st.randoms(use_true_random=False)


def audience(audience_id: str, definition: Definition) -> Audience:
    return Audience("acme", audience_id, ACTIVE, definition, 1, "fill", 0, 0, frozenset())


class Replica:
    """What a replica does with streams and log, without stores."""

    def __init__(self, world: World, audiences: dict[str, Definition], clock: int) -> None:
        self.world = world
        self.audiences = audiences
        self.clock = clock
        self.positions = dict.fromkeys(range(PARTITIONS), 0)
        self.members: dict[str, set[str]] = {a: set() for a in audiences}
        self.flips: list[Flip] = []
        self.evaluation = self.started({})
        self.lock = asyncio.Lock()

    def started(self, snapshots: dict[int, bytes]) -> Evaluation:
        evaluation = Evaluation("acme", PARTITIONS, self.clock)
        for audience_id, definition in self.audiences.items():
            evaluation.set_audience(audience(audience_id, definition), self.clock)
        for partition in range(PARTITIONS):
            if partition in snapshots:
                evaluation.engine.import_partition(partition, snapshots[partition])
            evaluation.add_partition(partition, ())
        for audience_id, members in self.members.items():
            evaluation.set_members(audience_id, members, range(PARTITIONS), self.clock)
        evaluation.start_what_is_complete(range(PARTITIONS))
        return evaluation

    def partition_of(self, profile_id: str) -> int:
        return partition_of(profile_id, PARTITIONS)

    async def read(self, r: Random) -> None:
        """Fold some entries of some partitions, as the worker does."""
        evaluation = self.evaluation
        batches = []
        for partition in range(PARTITIONS):
            stream = self.world.streams[partition]
            upto = min(len(stream), self.positions[partition] + r.randint(0, 3))
            batches += stream[self.positions[partition] : upto]
            self.positions[partition] = upto
        held = range(PARTITIONS)
        for told in streaming.by_workspace(batches).values():
            newest = reassignments.newest(evaluation.engine, told.reassignments, held, self.partition_of)
            await reassignments.follow(NOTHING, evaluation, newest, self.lock, self.partition_of, self.clock)
            loaded = await merges.load(NOTHING, evaluation, told.merges, held, self.partition_of)
            evaluation.engine.fold(reassignments.in_time(evaluation.engine, told.events), now_us=self.clock)
            merges.apply(evaluation, loaded, held, self.partition_of, self.clock)

    def advance(self, clock: int) -> None:
        self.clock = max(self.clock, clock)
        flips = self.evaluation.advance(self.clock)
        for flip in flips:
            members = self.members[flip.audience_id]
            assert (flip.profile_id in members) is not flip.member, "each change changes something"
            (members.add if flip.member else members.remove)(flip.profile_id)
        self.flips += flips

    def start_again(self, r: Random) -> None:
        """End after snapshots; entries before them may be read again."""
        engine = self.evaluation.engine
        snapshots = {p: engine.export_partition(p) for p in range(PARTITIONS)}
        self.evaluation = self.started(snapshots)
        if r.randint(0, 1):
            self.positions = {p: max(0, position - r.randint(0, 2)) for p, position in self.positions.items()}

    @property
    def is_done(self) -> bool:
        return all(self.positions[p] == len(self.world.streams[p]) for p in range(PARTITIONS))


async def live(r: Random, world: World, replica: Replica) -> None:
    """A history in any order of happening."""
    parts = ("p", "q", "r", "s", "t")
    for number, fact in enumerate(random.history(r)):
        event = resolved_of(fact)
        event.profile_id = r.choice([p for p in parts if p not in world.gone] or [f"new{number}"])
        event.event.workspace_id = "acme"
        known = world.parts()
        loser = r.choice(known) if known and r.randint(0, 3) == 3 else ""
        world.resolve(event, loser, late=r.randint(0, 4) == 4)
        what = r.randint(0, 9)
        roots = sorted({world.survivor(p) for p in world.parts()})
        if what < 3:
            world.assign_anew(r, random.some(r, tuple(roots), 1, 2))
        elif what == 3:
            world.send_waiting()
        elif what < 7:
            world.repeat(r)
        elif what == 7 and roots:
            world.erase(r.choice(roots))
        if r.randint(0, 1):
            await replica.read(r)
        if r.randint(0, 2) == 2:
            replica.advance(random.moment(r))
        if r.randint(0, 9) == 9:
            replica.start_again(r)
    world.send_waiting()
    world.repeat(r)
    while not replica.is_done:
        await replica.read(r)
    replica.advance(random.moment(r))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(r=choices)
def test_whatever_was_merged_and_undone_the_members_are_those_of_what_is_left(r: Random) -> None:
    world = World(PARTITIONS)
    audiences = random.audiences(r)
    replica = Replica(world, audiences, random.moment(r))

    async def of_profiles(db: Any, workspace_id: str, ids: Sequence[str]) -> AsyncIterator[ResolvedEvent]:
        for event in world.events_of(ids):
            yield event

    async def remove_rows(db: Any, workspace_id: str, profile_ids: Sequence[str]) -> None:
        for members in replica.members.values():
            members.difference_update(profile_ids)

    with (
        mock.patch("headrace.storage.mongo.log.events_of_profiles", of_profiles),
        mock.patch("headrace_audience.membership_rows.remove", remove_rows),
    ):
        asyncio.run(live(r, world, replica))
    reference = Reference(list(facts_of_resolved(world.log.values(), world.into)), audiences)
    expected = {a: reference.members(definition, replica.clock) for a, definition in audiences.items()}
    assert {a: replica.evaluation.engine.members(a) for a in audiences} == expected
    assert {a: sorted(members) for a, members in replica.members.items()} == expected
    for flips in by_membership(replica.flips).values():
        assert [f.member for f in flips] == [i % 2 == 0 for i in range(len(flips))]


async def test_a_survivor_is_complete_when_the_merge_in_the_middle_of_a_chain_comes_last() -> None:
    """r into q, q into p, p into s: of the first and the last it is known already that all that is of s."""
    world = World(PARTITIONS)
    losers = {"r": "", "q": "r", "p": "q", "s": "p"}
    for number, (profile, loser) in enumerate(losers.items()):
        world.resolve(resolved_of(Fact(profile, random.START, str(number))), loser)
    first, middle, last = (m for event in world.log.values() for m in event.decision.merges)
    evaluation = Evaluation("acme", PARTITIONS, random.START)

    async def of_profiles(db: Any, workspace_id: str, ids: Sequence[str]) -> AsyncIterator[ResolvedEvent]:
        for event in world.events_of(ids):
            yield event

    with mock.patch("headrace.storage.mongo.log.events_of_profiles", of_profiles):
        for told in ([last, first], [first, last], [last, first, middle]):
            loaded = await merges.load(NOTHING, evaluation, told, range(PARTITIONS), lambda _: 0)
            assert {e.event.message_id: e.profile_id for e in loaded.events} == {"0": "s", "1": "s", "2": "s"}


def by_membership(flips: list[Flip]) -> dict[tuple[str, str], list[Flip]]:
    found: dict[tuple[str, str], list[Flip]] = defaultdict(list)
    for flip in flips:
        found[flip.audience_id, flip.profile_id].append(flip)
    return found
