"""Identity as the audience service sees it, in memory: a log that is assigned anew, and streams that repeat themselves.

All choices come from a `random.Random`, so that hypothesis can drive it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypedDict

from headrace.api.identity.v1.profile_pb2 import Merge, Reassignment, ResolvedBatch, ResolvedEvent
from headrace.domain.ids import event_key, partition_of
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, transaction
from headrace.storage.mongo.log import Reassigned, StoredReassignment
from headrace.storage.streams import client as streams
from headrace.storage.streams import names


class Assignment(TypedDict):
    """The arguments of World.assign()."""

    roots: list[str]
    moved: dict[str, str]
    into: dict[str, str]
    late: list[str]


@dataclass
class World:
    """A workspace: events by message id with their part as profile_id, and who was merged into whom."""

    partitions: int
    workspace_id: str = "acme"
    log: dict[str, ResolvedEvent] = field(default_factory=dict)
    into: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    sequence: int = 0
    streams: dict[int, list[ResolvedBatch]] = field(default_factory=lambda: defaultdict(list))
    gone: set[str] = field(default_factory=set)
    """Profiles that are none any more; no event comes for them."""
    waiting: list[ResolvedBatch] = field(default_factory=list)
    """Stored, sent later."""
    recorded: list[StoredReassignment] = field(default_factory=list)
    clock: Callable[[], int] = lambda: 0
    """What sequences are at least, in microseconds."""

    def survivor(self, part: str) -> str:
        """The profile that a part belongs to."""
        while part in self.into:
            part = self.into[part]
        return part

    def parts(self) -> list[str]:
        """All parts that have events."""
        return sorted({e.profile_id for e in self.log.values() if e.profile_id})

    def parts_of(self, profile_id: str) -> list[str]:
        """The parts of a profile."""
        return [p for p in self.parts() if self.survivor(p) == profile_id]

    def events_of(self, parts: Iterable[str]) -> list[ResolvedEvent]:
        """Copies of the events of parts."""
        wanted = set(parts)
        return [copy.deepcopy(e) for e in self.log.values() if e.profile_id in wanted]

    def resolve(self, event: ResolvedEvent, loser: str = "", *, late: bool = False) -> None:
        """Store an event of a profile; with a loser it merges that one into the profile. Sent at once, or later."""
        event.profile_id = self.survivor(event.profile_id)
        if loser:
            loser = self.survivor(loser)
        if loser and loser != event.profile_id:
            event.decision.merges.add(loser=loser, survivor=event.profile_id, loser_parts=self.parts_of(loser))
            self.into[loser] = event.profile_id
        event.decision.sequence = self._next_sequence()
        self.log[event.event.message_id] = event
        self._send(self._batches(event), late=late)

    def _next_sequence(self) -> int:
        self.sequence = max(self.sequence + 1, self.clock())
        return self.sequence

    def _batches(self, event: ResolvedEvent) -> list[ResolvedBatch]:
        sent = copy.deepcopy(event)
        sent.profile_id = self.survivor(event.profile_id)
        sent.epoch = self.epoch
        batches = [self._batch(sent.profile_id or event.event.message_id, events=[sent])]
        for merge in event.decision.merges:
            announced = copy.deepcopy(merge)
            announced.epoch = self.epoch
            by_partition = {partition_of(p, self.partitions): p for p in (merge.loser, merge.survivor)}
            batches += [self._batch(p, merges=[announced]) for p in by_partition.values()]
        return batches

    def _batch(
        self, profile_id: str, **fields: list[ResolvedEvent] | list[Merge] | list[Reassignment]
    ) -> ResolvedBatch:
        partition = partition_of(profile_id, self.partitions)
        return ResolvedBatch(workspace_id=self.workspace_id, partition=partition, **fields)  # type: ignore[arg-type]

    def _send(self, batches: Iterable[ResolvedBatch], *, late: bool = False) -> None:
        for batch in batches:
            if late:
                self.waiting.append(batch)
            else:
                self.streams[batch.partition].append(batch)

    def send_waiting(self) -> None:
        """Send what was stored and not sent."""
        self._send(self.waiting)
        self.waiting = []

    def some_entry(self, r: Random) -> tuple[int, int] | None:
        """Partition and place of something that was sent, rather of something that is not true any more."""
        sent = [(partition, place) for partition, stream in self.streams.items() for place in range(len(stream))]
        stale = [(n, place) for n, place in sent if any(self._is_stale(e) for e in self.streams[n][place].events)]
        return r.choice(stale if stale and r.randint(0, 1) else sent) if sent else None

    def repeat(self, r: Random) -> None:
        """Send something again, see some_entry()."""
        if entry := self.some_entry(r):
            self.send_again(*entry)

    def send_again(self, partition: int, place: int) -> None:
        """Send something again that was sent long ago."""
        self._send([copy.deepcopy(self.streams[partition][place])])

    def _is_stale(self, event: ResolvedEvent) -> bool:
        stored = self.log.get(event.event.message_id)
        return stored is None or event.profile_id != self.survivor(stored.profile_id)

    def assign_anew(self, r: Random, roots: Iterable[str]) -> list[Reassigned]:
        """Assign the events of some profiles anew, in any way: merges undone and made, events moved, profiles gone.

        It is announced at once or later.
        """
        return self.assign(**self.some_assignment(r, list(roots)))

    def some_assignment(self, r: Random, roots: list[str]) -> Assignment:
        """Any way in which the events of some profiles can be assigned anew."""
        parts = sorted(part for root in roots for part in self.parts_of(root))
        events = [e for e in self.log.values() if e.profile_id in parts]
        moved = {e.event.message_id: r.choice(parts) for e in events if r.randint(0, 2) == 2}
        there = sorted({moved.get(e.event.message_id, e.profile_id) for e in events})
        into = {part: r.choice(there[:place]) for place, part in enumerate(there) if place and r.randint(0, 1)}
        return {"roots": roots, "moved": moved, "into": into, "late": [p for p in parts if not r.randint(0, 3)]}

    def assign(
        self, roots: Collection[str], moved: Mapping[str, str], into: Mapping[str, str], late: Collection[str]
    ) -> list[Reassigned]:
        """Assign the events of some profiles anew.

        Args:
            roots: The profiles, with all their parts.
            moved: The part that an event has from now on, by message id; the others stay.
            into: The merges that there are then, as the survivor of each loser.
            late: Profiles of which it is announced later.
        """
        parts = {part for root in roots for part in self.parts_of(root)}
        events = [e for e in self.log.values() if e.profile_id in parts]
        for event in events:
            event.profile_id = moved.get(event.event.message_id, event.profile_id)
            del event.decision.merges[:]
        there = sorted({e.profile_id for e in events})
        for part in parts:
            self.into.pop(part, None)
        self.gone.update(parts.difference(there))
        for loser, survivor in into.items():
            self.into[loser] = survivor
            by = next(e for e in events if e.profile_id == survivor)
            by.decision.merges.add(loser=loser, survivor=survivor, loser_parts=[loser])
        new = {p for p in there if self.survivor(p) == p}
        items = [self._item(p, there) for p in sorted(new.union(roots))]
        self._announce(items, late=late)
        return items

    def split(self, profile_id: str, *parts: str) -> None:
        """Undo merges: parts of a profile become a profile of their own, the first of them the survivor."""
        for event in self.log.values():
            merges = [m for m in event.decision.merges if m.loser not in parts]
            del event.decision.merges[:]
            event.decision.merges.extend(merges)
        self.into.pop(parts[0])
        self.into.update(dict.fromkeys(parts[1:], parts[0]))
        for part in parts[1:]:
            by = next(e for e in self.log.values() if e.profile_id == parts[0])
            by.decision.merges.add(loser=part, survivor=parts[0], loser_parts=[part])
        self._announce([self._item(p, self.parts()) for p in (profile_id, parts[0])])

    def split_nothing(self, profile_id: str) -> None:
        """Announce that events of a profile changed, whatever they are now."""
        self._announce([self._item(profile_id, self.parts())])

    def erase(self, profile_id: str) -> tuple[list[str], list[str]]:
        """Delete a person; returns the ids of the parts and of the events."""
        parts = self.parts_of(profile_id)
        messages = sorted(m for m, e in self.log.items() if e.profile_id in parts)
        for message_id in messages:
            del self.log[message_id]
        for part in parts:
            self.into.pop(part, None)
        self.gone.update(parts)
        self._announce([Reassigned(part, ()) for part in parts], erased=True)
        return parts, messages

    def _announce(self, items: list[Reassigned], *, late: Collection[str] = (), erased: bool = False) -> None:
        self.epoch += 1
        sequence = self._next_sequence()
        self.recorded.append(
            StoredReassignment(str(self.epoch), self.workspace_id, sequence, self.epoch, erased, items)
        )
        for item in items:
            said = Reassignment(
                profile_id=item.profile_id,
                parts=item.parts,
                survivor=item.survivor,
                epoch=self.epoch,
                erased=erased,
            )
            self._send([self._batch(item.profile_id, reassignments=[said])], late=item.profile_id in late)

    def _item(self, profile_id: str, there: list[str]) -> Reassigned:
        if profile_id not in there:
            return Reassigned(profile_id, ())
        survivor = self.survivor(profile_id)
        if survivor != profile_id:
            return Reassigned(profile_id, (), survivor)
        return Reassigned(profile_id, [p for p in there if self.survivor(p) == profile_id])


class Stores:
    """Writes what a world knows to the log and sends it on the streams, as identity does."""

    def __init__(self, world: World, db: Database, redis: streams.Redis) -> None:
        self.world = world
        self._db = db
        self._redis = redis
        self._written: dict[str, bytes] = {}
        self._recorded = 0
        self._sent: dict[int, int] = defaultdict(int)

    async def write(self) -> None:
        """Commit what changed, all in one transaction."""
        world = self.world
        serialised = {m: e.SerializeToString(deterministic=True) for m, e in world.log.items()}
        changed = [m for m, data in serialised.items() if self._written.get(m) != data]
        gone = self._written.keys() - serialised.keys()
        async with transaction(self._db.client) as session:
            for message_id in changed:
                document = log.event_document(world.log[message_id])
                key = {"_id": document["_id"]}
                await self._db[log.EVENTS].replace_one(key, document, upsert=True, session=session)
            if gone:
                keys = [event_key(world.workspace_id, m) for m in gone]
                await self._db[log.EVENTS].delete_many({"_id": {"$in": keys}}, session=session)
            for one in world.recorded[self._recorded :]:
                await log.add_reassignments(
                    self._db,
                    session,
                    world.workspace_id,
                    epoch=one.epoch,
                    sequence=one.sequence,
                    items=one.items,
                    erased=one.erased,
                )
        self._written = serialised
        self._recorded = len(world.recorded)

    async def send(self) -> None:
        """Send entries that were not sent yet."""
        messages = []
        for partition, stream in self.world.streams.items():
            messages += [(names.resolved(partition), b.SerializeToString()) for b in stream[self._sent[partition] :]]
            self._sent[partition] = len(stream)
        await streams.send(self._redis, messages)

    async def flush(self) -> None:
        """Write and send everything."""
        await self.write()
        await self.send()
