"""What becomes of an event at a forwarding sync: delivered, or filtered by which rule. Pure.

The decision must come out the same however often it is taken, since events are planned again after a crash or a
loss of Redis, and an event may be counted only once. It depends on the event and on the sync; a sync changes seldom,
and events that were accepted around or before a change are checked against what was planned already (`is_settled`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import time_ordered_floor
from headrace.domain.times import SECOND_US

PAUSED = "paused"
OTHER_EVENT_NAME = "event_name"
ONLINE_SOURCE = "online_source"
"""Reason of an event of a website or an app, at a destination that takes offline events alone."""
REMOVALS_OFF = "removals_off"
MERGED = "merged"
ERASED = "erased"

SETTLE_US = 30 * SECOND_US
"""How long after a change of a sync other processes may still act on its earlier form."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A forwarding sync, as the planner needs it.

    Attributes:
        key: Unique key of the sync, never used again.
        workspace_id: Its workspace.
        destination_key: Where it sends.
        event_names: Names that it sends; empty means all.
        paused: True sends nothing.
        created_us: When it was made, or when what is kept begins: earlier events are not its business.
        changed_us: When event_names or paused last changed; 0 means never.
        offline_only: True when the destination takes events of stores and CRMs alone.
    """

    key: str
    workspace_id: str
    destination_key: str
    event_names: frozenset[str]
    paused: bool
    created_us: int
    changed_us: int = 0
    offline_only: bool = False

    @property
    def first_segment_id(self) -> str:
        """The smallest segment id that concerns the sync."""
        return time_ordered_floor(self.created_us)

    def concerns(self, event: ResolvedEvent) -> bool:
        """True when the event was accepted after the sync was made."""
        return event.segment_id >= self.first_segment_id

    def is_settled(self, event: ResolvedEvent) -> bool:
        """True when every process decides on the event as this one does."""
        return self.changed_us == 0 or event.segment_id >= time_ordered_floor(self.changed_us + SETTLE_US)

    def filter_reason(self, event: ResolvedEvent) -> str:
        """The rule by which the event is not sent; empty when it is."""
        if self.paused:
            return PAUSED
        if self.event_names and event.event.name not in self.event_names:
            return OTHER_EVENT_NAME
        if self.offline_only and event.event.online:
            return ONLINE_SOURCE
        return ""


@dataclass(slots=True)
class Plan:
    """What one sync does with some events.

    Attributes:
        deliver: Events to be sent.
        filtered: (segment id, reason) -> place in the segment -> message id, of the events that are not.
        unsettled: True when some of it must be compared with what was planned already.
    """

    deliver: list[ResolvedEvent] = field(default_factory=list)
    filtered: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    unsettled: bool = False


def plan(sync: Forwarding, events: Iterable[ResolvedEvent]) -> Plan:
    """Sort events of the sync's workspace into those to send and those filtered."""
    made = Plan()
    for event in events:
        if not sync.concerns(event):
            continue
        if not sync.is_settled(event):
            made.unsettled = True
        reason = sync.filter_reason(event)
        if reason:
            places = made.filtered.setdefault((event.segment_id, reason), {})
            places[event.segment_index] = event.event.message_id
        else:
            made.deliver.append(event)
    return made


def without_accounted(made: Plan, delivered_ids: set[str], filtered: dict[str, set[int]]) -> Plan:
    """The plan less the events that were planned or filtered before.

    Args:
        made: A plan.
        delivered_ids: Message ids that have a delivery at the sync.
        filtered: Segment id -> places of events filtered before, for any reason.
    """
    nothing: set[int] = set()
    rest = Plan()
    rest.deliver = [
        event
        for event in made.deliver
        if event.event.message_id not in delivered_ids
        and event.segment_index not in filtered.get(event.segment_id, nothing)
    ]
    for (segment_id, reason), places in made.filtered.items():
        before = filtered.get(segment_id, nothing)
        new = {i: m for i, m in places.items() if i not in before and m not in delivered_ids}
        if new:
            rest.filtered[segment_id, reason] = new
    return rest


def event_sync_message_id(sync_key: str, profile_id: str, version: int) -> str:
    """Message id of the synthetic event of a membership change: the same change always has the same."""
    return f"{sync_key}:{profile_id}:{version}"
