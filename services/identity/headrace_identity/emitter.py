"""What identity tells the services after it: resolved events and merges, by partition of their profiles.

An event is serialised once, for the store and for the stream. Protobuf messages are put together from serialised
parts: a message is the concatenation of its fields, and a field that holds a message is a tag, a length and that
message's bytes. This halves what sending on costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import Decision, Merge, ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.storage.streams import names

_EVENT_OF_RESOLVED = ResolvedEvent.EVENT_FIELD_NUMBER
_DECISION_OF_RESOLVED = ResolvedEvent.DECISION_FIELD_NUMBER
_EVENTS_OF_BATCH = ResolvedBatch.EVENTS_FIELD_NUMBER


class Resolved(NamedTuple):
    """A resolved event, as it is stored and sent on.

    Attributes:
        event: The event.
        event_bytes: The event, serialised.
        profile_id: Its profile at the time of resolving, "" for none.
        decision: The recorded decision.
        decision_bytes: The decision, serialised.
        resolved_at_us: When, in microseconds.
        segment_id: Segment that brought it.
        place: Its place in that segment.
        epoch: Epoch of the workspace in which the profile holds.
    """

    event: Event
    event_bytes: bytes
    profile_id: str
    decision: Decision
    decision_bytes: bytes
    resolved_at_us: int
    segment_id: str
    place: int
    epoch: int = 0

    @classmethod
    def of(cls, stored: ResolvedEvent, epoch: int) -> Resolved:
        """A resolved event that was stored before; the epoch was read before it was."""
        return cls(
            stored.event,
            stored.event.SerializeToString(),
            stored.profile_id,
            stored.decision,
            stored.decision.SerializeToString(),
            stored.resolved_at_us,
            stored.segment_id,
            stored.segment_index,
            epoch,
        )


def messages(
    workspace_id: str,
    resolved: Sequence[Resolved],
    survivors: Mapping[str, str],
    traceparents: Sequence[str],
    partitions: int,
) -> list[tuple[str, bytes]]:
    """The stream messages for resolved events of one workspace.

    Args:
        workspace_id: The workspace.
        resolved: Resolved events, in order.
        survivors: Survivors of profiles that have been merged since: the events are sent with their ids.
        traceparents: Trace context of the resolving span of each event.
        partitions: Number of partitions of profiles.

    Returns:
        (stream, ResolvedBatch) pairs. An event without a profile goes to the partition of its message id, a merge to
        those of its loser and its survivor.
    """
    events: dict[int, list[bytes]] = {}
    merges: dict[int, list[Merge]] = {}
    for one, traceparent in zip(resolved, traceparents, strict=True):
        profile_id = survivors.get(one.profile_id, one.profile_id)
        partition = partition_of(profile_id or one.event.message_id, partitions)
        events.setdefault(partition, []).append(_serialise(one, profile_id, traceparent))
        for merge in one.decision.merges:
            announced = Merge()
            announced.CopyFrom(merge)
            announced.epoch = one.epoch
            for concerned in {partition_of(merge.loser, partitions), partition_of(merge.survivor, partitions)}:
                merges.setdefault(concerned, []).append(announced)
    return [
        (
            names.resolved(p),
            _batch(workspace_id, p, events.get(p, ()), merges.get(p, ())),
        )
        for p in sorted(events.keys() | merges.keys())
    ]


def _serialise(one: Resolved, profile_id: str, traceparent: str) -> bytes:
    """A ResolvedEvent."""
    rest = ResolvedEvent(
        profile_id=profile_id,
        resolved_at_us=one.resolved_at_us,
        segment_id=one.segment_id,
        segment_index=one.place,
        traceparent=traceparent,
        epoch=one.epoch,
    )
    return b"".join(
        (
            _head(_EVENT_OF_RESOLVED, len(one.event_bytes)),
            one.event_bytes,
            _head(_DECISION_OF_RESOLVED, len(one.decision_bytes)),
            one.decision_bytes,
            rest.SerializeToString(),
        )
    )


def _batch(workspace_id: str, partition: int, events: Iterable[bytes], merges: Iterable[Merge]) -> bytes:
    """A ResolvedBatch."""
    rest = ResolvedBatch(workspace_id=workspace_id, partition=partition, merges=merges)
    pieces = [rest.SerializeToString()]
    for event in events:
        pieces += (_head(_EVENTS_OF_BATCH, len(event)), event)
    return b"".join(pieces)


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field that holds a message: the number is below 16, so the tag is one byte."""
    head = bytearray((number << 3 | 2,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)
