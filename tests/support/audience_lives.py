"""Lives of the incremental engine, step by step: how events came, restarts, merges made and undone, deletions.

A step is plain data, so that what hypothesis finds can be kept (see `audience_cases`) and lived through again.

Steps of a Delivery, to an engine that nobody is merged in::

    {"clock": TIME}                              time passes up to that; the first step is one
    {"arrive": [MESSAGE_ID, ...], "now": TIME}   in one batch, without "now" at the engine's own time
    {"restart": true}                            from snapshots

Steps of a Life, in which identity assigns events anew::

    {"clock": TIME}
    {"resolve": MESSAGE_ID, "profile": ID, "loser": ID, "late": true}   with a loser it is merged into the profile
    {"assign": {...}}                            see World.assign()
    {"erase": PROFILE_ID}
    {"send": "late"}                             what was stored and not sent yet
    {"again": [PARTITION, PLACE]}                what was sent in a partition comes again
    {"read": [ENTRIES, ...]}                     so many of each partition
    {"restart": [ENTRIES, ...]}                  from snapshots, reading so many of each partition again
    {"archive": true}                            files of all events are written, as they are
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from unittest import mock

import duckdb
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.moved import StoredMerge, follow
from headrace_audience.archive.view import create_events, merged_table
from headrace_audience.batch import queries
from headrace_audience.definitions.catalog import Audience
from headrace_audience.engine.engine import Engine, Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.language.definition import Definition
from headrace_audience.offline.facts import Fact, facts_of_resolved, resolved_of
from headrace_audience.partitions import streaming
from headrace_audience.people import merges, reassignments
from headrace_audience.store import ACTIVE

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import format_time_us, parse_time_us
from headrace.storage.mongo import log
from tests.support.reassigned import World

PARTITIONS = 4
Step = dict[str, Any]
_NOTHING: Any = None


def clock_step(at_us: int) -> Step:
    """Time passes up to a moment."""
    return {"clock": format_time_us(at_us)}


class Delivery:
    """Events are given to an engine, which starts again now and then."""

    def __init__(self, audiences: dict[str, Definition], facts: Iterable[Fact], at_us: int) -> None:
        self.audiences = audiences
        self.seen: list[Fact] = []
        self.engine = new_engine(audiences, at_us)
        self.members: dict[str, list[str]] = {audience_id: [] for audience_id in audiences}
        self._facts = {fact.message_id: fact for fact in facts}

    def do(self, step: Step) -> list[Flip]:
        """Do a step; returns what changed by it."""
        if "clock" in step:
            flips = self.engine.advance(parse_time_us(step["clock"]))
            self.members = found(self.engine, self.audiences)
            return flips
        if "restart" in step:
            self.engine = restarted(self.engine, self.audiences, self.members, self.engine.clock_us)
            return self.engine.advance(self.engine.clock_us)
        arrived = [self._facts[message_id] for message_id in step["arrive"]]
        self.seen += arrived
        self.engine.fold(map(resolved_of, arrived), now_us=parse_time_us(step["now"]) if "now" in step else None)
        return []


def new_engine(audiences: dict[str, Definition], now_us: int) -> Engine:
    """An engine that evaluates audiences of nobody yet."""
    engine = Engine("w", PARTITIONS, now_us, capacity=1)
    for audience_id, definition in reversed(audiences.items()):
        engine.set_audience(audience_id, definition)
    for audience_id in audiences:
        engine.start_audience(audience_id)
    return engine


def found(engine: Engine, audiences: Iterable[str]) -> dict[str, list[str]]:
    """The members of audiences."""
    return {audience_id: engine.members(audience_id) for audience_id in audiences}


def restarted(engine: Engine, audiences: dict[str, Definition], members: dict[str, list[str]], clock: int) -> Engine:
    """An engine from the snapshots of another, with the memberships that are stored."""
    snapshots = [engine.export_partition(partition) for partition in range(PARTITIONS)]
    again = Engine("w", PARTITIONS, clock)
    for audience_id, definition in audiences.items():
        again.set_audience(audience_id, definition)
        again.start_audience(audience_id)
    for partition, snapshot in enumerate(snapshots):
        assert again.import_partition(partition, snapshot) == frozenset()
    for audience_id, profiles in members.items():
        again.set_membership(audience_id, profiles)
    for partition in range(PARTITIONS):
        again.start_partition(partition)
    return again


class Life:
    """What a replica does with streams and log, without stores, while identity changes its mind."""

    def __init__(self, audiences: dict[str, Definition], facts: Iterable[Fact], at_us: int, folder: str) -> None:
        self.world = World(PARTITIONS)
        self.audiences = audiences
        self.clock = at_us
        self.positions = dict.fromkeys(range(PARTITIONS), 0)
        self.members: dict[str, set[str]] = {a: set() for a in audiences}
        self.flips: list[Flip] = []
        self.evaluation = self._started({})
        self._facts = {fact.message_id: fact for fact in facts}
        self._files = Files(folder)
        self._paths: list[str] = []
        self._archived: tuple[int, list[StoredMerge]] = (-1, [])

    def do(self, step: Step) -> None:
        """Do a step."""
        world = self.world
        if "clock" in step:
            self._advance(parse_time_us(step["clock"]))
        elif "resolve" in step:
            event = resolved_of(self._facts[step["resolve"]])
            event.profile_id = step["profile"]
            event.event.workspace_id = world.workspace_id
            world.resolve(event, step.get("loser", ""), late=step.get("late", False))
        elif "assign" in step:
            world.assign(**step["assign"])
        elif "erase" in step:
            world.erase(step["erase"])
        elif "send" in step:
            world.send_waiting()
        elif "again" in step:
            world.send_again(*step["again"])
        elif "read" in step:
            with (
                mock.patch("headrace.storage.mongo.log.events_of_profiles", self._of_profiles),
                mock.patch("headrace_audience.memberships.membership_rows.remove", self._remove_rows),
            ):
                asyncio.run(self._read(step["read"]))
        elif "restart" in step:
            self._start_again(step["restart"])
        else:
            self._archive()

    @property
    def is_done(self) -> bool:
        """Whether everything that was sent is read."""
        return all(self.positions[p] == len(self.world.streams[p]) for p in range(PARTITIONS))

    def facts(self) -> list[Fact]:
        """What is left: the events there are, of whom they are now."""
        return list(facts_of_resolved(self.world.log.values(), self.world.into))

    def found(self) -> dict[str, list[str]]:
        """The members that the engine finds."""
        return found(self.evaluation.engine, self.audiences)

    def by_batch(self, definition: Definition, at_us: int, profiles: Sequence[str]) -> list[queries.Outlook]:
        """What the batch evaluator says, over the files as they were written and what the log says since."""
        sequence, stored = self._archived
        told = [r for r in self.world.recorded if r.sequence > sequence]
        events = list(self.world.log.values())
        newer = [e for e in events if e.decision.sequence > sequence]
        by_newer = [StoredMerge(e.decision.sequence, m.loser, m.survivor) for e in newer for m in e.decision.merges]
        survivors, moved = follow([*stored, *by_newer], told)
        anew = [e for e in events if e.profile_id in moved]
        tail, _ = layout.tail_table([log.event_document(e) for e in [*newer, *anew]])
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            create_events(connection, self._files, self._paths, tail, moved, merged_table(survivors.pairs()))
            return queries.outlook(connection, definition, at_us, self.audiences, profiles=profiles)

    def _started(self, snapshots: dict[int, bytes]) -> Evaluation:
        evaluation = Evaluation("acme", PARTITIONS, self.clock)
        for audience_id, definition in self.audiences.items():
            audience = Audience("acme", audience_id, ACTIVE, definition, 1, "fill", 0, 0, frozenset())
            evaluation.set_audience(audience, self.clock)
        for partition in range(PARTITIONS):
            if partition in snapshots:
                evaluation.engine.import_partition(partition, snapshots[partition])
            evaluation.add_partition(partition, ())
        for audience_id, members in self.members.items():
            evaluation.set_members(audience_id, members, range(PARTITIONS), self.clock)
        evaluation.start_what_is_complete(range(PARTITIONS))
        return evaluation

    async def _read(self, entries: Sequence[int]) -> None:
        """Fold some entries of some partitions, as the worker does."""
        evaluation = self.evaluation
        batches = []
        for partition in range(PARTITIONS):
            stream = self.world.streams[partition]
            upto = min(len(stream), self.positions[partition] + entries[partition])
            batches += stream[self.positions[partition] : upto]
            self.positions[partition] = upto
        held = range(PARTITIONS)
        for told in streaming.by_workspace(batches).values():
            newest = reassignments.newest(evaluation.engine, told.reassignments, held, _partition_of)
            await reassignments.follow(_NOTHING, evaluation, newest, asyncio.Lock(), _partition_of, self.clock)
            loaded = await merges.load(_NOTHING, evaluation, told.merges, held, _partition_of)
            evaluation.engine.fold(reassignments.in_time(evaluation.engine, told.events), now_us=self.clock)
            merges.apply(evaluation, loaded, held, _partition_of, self.clock)

    async def _of_profiles(self, db: Any, workspace_id: str, ids: Sequence[str]) -> AsyncIterator[ResolvedEvent]:
        for event in self.world.events_of(ids):
            yield event

    async def _remove_rows(self, db: Any, workspace_id: str, profile_ids: Sequence[str]) -> None:
        for members in self.members.values():
            members.difference_update(profile_ids)

    def _advance(self, clock: int) -> None:
        self.clock = max(self.clock, clock)
        flips = self.evaluation.advance(self.clock)
        for flip in flips:
            members = self.members[flip.audience_id]
            assert (flip.profile_id in members) is not flip.member, "each change changes something"
            (members.add if flip.member else members.remove)(flip.profile_id)
        self.flips += flips

    def _start_again(self, again: Sequence[int]) -> None:
        """End after snapshots; entries before them may be read again."""
        engine = self.evaluation.engine
        snapshots = {p: engine.export_partition(p) for p in range(PARTITIONS)}
        self.evaluation = self._started(snapshots)
        self.positions = {p: max(0, position - again[p]) for p, position in self.positions.items()}

    def _archive(self) -> None:
        events = list(self.world.log.values())
        path = f"{len(self._paths)}.parquet"
        self._files.write(path, layout.event_table(events), layout.SORT_KEYS[layout.EVENTS])
        self._paths = [path]
        stored = [StoredMerge(e.decision.sequence, m.loser, m.survivor) for e in events for m in e.decision.merges]
        self._archived = (self.world.sequence, stored)


def _partition_of(profile_id: str) -> int:
    return partition_of(profile_id, PARTITIONS)
