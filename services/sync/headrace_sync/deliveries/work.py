"""Deliveries on their way from planning to the vendor, and the documents they are stored as. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from bson.binary import Binary

from headrace.api.audience.v1.audience_pb2 import Member, MembershipChange
from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import time_ordered_floor
from headrace.domain.times import SECOND_US, format_time_us
from headrace.storage.mongo.client import Document
from headrace.telemetry.spans import is_sampled
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.store import delivery_id
from headrace_sync.planning.rules import MERGED, REMOVALS_OFF, event_sync_message_id
from headrace_sync.store import FILTERED, WAITING

ADDED = "added_to_segment"
REMOVED = "removed_from_segment"
SOURCE_ID = "headrace"


_FROM_OUTSIDE = frozenset({"fill", "definition", "refresh", "archived", "reconciled"})
"""Causes of changes of memberships, see MembershipChange.cause, that are no doing of the person or of time."""


@dataclass(slots=True)
class Work:
    """A delivery that this process holds.

    Attributes:
        document: The delivery as stored.
        event: The event.
        since: When it came into the queue, by the monotonic clock in seconds.
    """

    document: Document
    event: Event
    since: float = 0.0

    @property
    def id(self) -> str:
        """Database id of the delivery."""
        return str(self.document["_id"])

    @property
    def traceparent(self) -> str:
        """Trace context of the event."""
        return str(self.document.get("tp", "")) or self.event.traceparent


def forwarding_document(sync: SyncConfig, resolved: ResolvedEvent, now: int) -> Document:
    """The delivery of an event at a forwarding sync, waiting for as long as the sync says."""
    event = resolved.event
    document = _document(sync.key, sync.destination_key, event.workspace_id, event.message_id, resolved.profile_id, now)
    document["g"] = resolved.segment_id
    document["na"] = now + sync.delay_seconds * SECOND_US
    if is_sampled(resolved.traceparent):
        document["tp"] = resolved.traceparent
    return document


def event_sync_document(sync: SyncConfig, workspace_id: str, change: MembershipChange, now: int) -> Document:
    """The delivery of a membership change at an event sync, waiting or filtered."""
    message_id = event_sync_message_id(sync.key, change.profile_id, change.version)
    document = _document(sync.key, sync.destination_key, workspace_id, message_id, change.profile_id, now)
    document["g"] = time_ordered_floor(change.changed_at_us)
    reason = ""
    if not change.member:
        reason = MERGED if change.merged_into else ("" if sync.send_removals else REMOVALS_OFF)
    if reason:
        document |= {"st": FILTERED, "r": reason}
        del document["na"]
    else:
        document["e"] = Binary(membership_event(sync, workspace_id, message_id, change, now).SerializeToString())
    if is_sampled(change.traceparent):
        document["tp"] = change.traceparent
    return document


def membership_event(sync: SyncConfig, workspace_id: str, message_id: str, change: MembershipChange, now: int) -> Event:
    """The synthetic event of a membership change.

    It happened when the membership changed. By what happens outside of people's own events and of time (an audience is
    filled, gets another definition, or a sync, or is put away) it changes when that is found, however long the
    definition has held: vendors refuse events that are old. The property `since` says how long that is.

    Args:
        sync: The sync.
        workspace_id: Its workspace.
        message_id: Id of the event.
        change: The change.
        now: When the delivery is planned, in microseconds.
    """
    happened_us = now if change.cause in _FROM_OUTSIDE else change.effective_at_us
    properties = {
        "audience_id": change.audience_id,
        "sync_id": sync.id,
        "since": format_time_us(change.effective_at_us),
    }
    return Event(
        message_id=message_id,
        workspace_id=workspace_id,
        source_id=SOURCE_ID,
        kind=EventKind.EVENT_KIND_TRACK,
        name=ADDED if change.member else REMOVED,
        properties=msgspec.json.encode(properties),
        original_timestamp_us=happened_us,
        received_at_us=change.changed_at_us,
        timestamp_us=happened_us,
        traceparent=change.traceparent,
    )


def entry_of(sync: SyncConfig, member: Member, now: int) -> MembershipChange:
    """The entry of somebody who is a member, as if it were found now, in microseconds."""
    return MembershipChange(
        audience_id=sync.audience_id,
        profile_id=member.profile_id,
        member=True,
        version=member.version,
        effective_at_us=member.since_us,
        changed_at_us=now,
        cause="reconciled",
    )


def _document(
    sync_key: str, destination_key: str, workspace_id: str, message_id: str, profile_id: str, now: int
) -> Document:
    return {
        "_id": delivery_id(sync_key, message_id),
        "k": sync_key,
        "w": workspace_id,
        "d": destination_key,
        "m": message_id,
        "p": profile_id,
        "op": "event",
        "st": WAITING,
        "at": 0,
        "pf": 0,
        "na": now,
        "b": 0,
        "c": now,
        "u": now,
    }
