"""Reading the streams of resolved events by position, and telling when a position can be trusted no longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from headrace.api.identity.v1.profile_pb2 import Merge, Reassignment, ResolvedBatch, ResolvedEvent
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from headrace.telemetry import logs

log = logs.get_logger(__name__)

START = "0-0"


@dataclass(frozen=True)
class Edges:
    """The first entry of a stream (empty: none) and the last id that it gave."""

    first: str
    last: str

    def reach_back_to(self, position: str) -> bool:
        """Whether every entry after a position is certainly still there."""
        return streams.reaches_back(position, self.first, self.last)


@dataclass(frozen=True)
class Reading:
    """What one read of all streams gave."""

    batches: Sequence[ResolvedBatch]
    positions: dict[int, str]
    """Partition to the id of its last entry in this reading."""
    lagging: frozenset[int]
    """Partitions of which more may wait."""
    broken: dict[int, str]
    """Partition to the id of an entry that could not be read: the log must be read instead."""


NOTHING = Reading((), {}, frozenset(), {})
"""A reading without entries."""


async def edges(redis: streams.Redis, partitions: Iterable[int]) -> dict[int, Edges]:
    """The edges of partitions' streams."""
    by_stream = {names.resolved(p): p for p in partitions}
    found = await streams.edges(redis, list(by_stream))
    return {by_stream[stream]: Edges(first, last) for stream, (first, last) in found.items()}


async def read(redis: streams.Redis, positions: dict[int, str], *, count: int, block_ms: int) -> Reading:
    """New entries of all partitions in one call, up to `count` each; waits up to `block_ms` for the first."""
    by_stream = {names.resolved(p): p for p in positions}
    entries = await streams.read_from(
        redis, {names.resolved(p): position for p, position in positions.items()}, count=count, block_ms=block_ms
    )
    batches: list[ResolvedBatch] = []
    moved: dict[int, str] = {}
    counts: dict[int, int] = {}
    broken: dict[int, str] = {}
    for entry in entries:
        partition = by_stream[entry.stream]
        moved[partition] = entry.id
        counts[partition] = counts.get(partition, 0) + 1
        try:
            batches.append(ResolvedBatch.FromString(entry.payload))
        except DecodeError:
            log.warning("an entry of a stream cannot be read", partition=partition, entry=entry.id)
            broken[partition] = entry.id
    lagging = frozenset(p for p, n in counts.items() if n >= count)
    return Reading(batches, moved, lagging, broken)


def moment_us(entry_id: str) -> int:
    """When an entry was sent, by the clock of Redis, in microseconds."""
    return streams.id_order(entry_id)[0] * 1000


@dataclass
class Told:
    """What entries say of one workspace, in order."""

    events: list[ResolvedEvent] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    reassignments: list[Reassignment] = field(default_factory=list)


def by_workspace(batches: Iterable[ResolvedBatch]) -> dict[str, Told]:
    """Workspace to what is said of it."""
    found: dict[str, Told] = {}
    for batch in batches:
        told = found.get(batch.workspace_id)
        if told is None:
            told = found[batch.workspace_id] = Told()
        told.events.extend(batch.events)
        told.merges.extend(batch.merges)
        told.reassignments.extend(batch.reassignments)
    return found


def is_at(position: str, target: str) -> bool:
    """Whether a position has reached an entry."""
    return streams.id_order(position) >= streams.id_order(target)
