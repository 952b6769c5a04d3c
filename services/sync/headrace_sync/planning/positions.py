"""How far the streams are planned, and whether Redis lost something. Pure.

The *plan mark* is a moment: what was sent to the `resolved` streams before it is planned. After Redis has lost entries
the log is planned again from the mark, less a margin for events that were resolved before the mark and sent after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.storage.streams.client import id_order

TRIMMED_FROM = 1_000
"""Entries from which a stream may have been trimmed; identity keeps about ten times as many."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """What Redis says of one stream and this service's group.

    Attributes:
        length: Number of entries.
        first_id: Id of the first entry, empty when there is none.
        last_id: Id that was generated last.
        delivered_id: Id that the group was given last.
        oldest_pending_id: Id of the oldest entry that was given and not acknowledged; empty when there is none.
    """

    length: int
    first_id: str
    last_id: str
    delivered_id: str
    oldest_pending_id: str


def planned_until_ms(state: StreamState, redis_now_ms: int) -> int:
    """What was sent before this moment is planned, in milliseconds; asked of Redis before the state was read."""
    if state.oldest_pending_id:
        return id_order(state.oldest_pending_id)[0]
    if state.length == 0 or id_order(state.delivered_id) >= id_order(state.last_id):
        return redis_now_ms
    return id_order(state.delivered_id)[0]


def mark_us(states: Iterable[StreamState], redis_now_ms: int) -> int:
    """The plan mark over all partitions, in microseconds."""
    return min((planned_until_ms(state, redis_now_ms) for state in states), default=redis_now_ms) * 1000


def has_gap(state: StreamState) -> bool:
    """True when entries may have been trimmed before the group was given them, or before it acknowledged them."""
    if not state.first_id or state.length < TRIMMED_FROM:
        return False
    first = id_order(state.first_id)
    if state.oldest_pending_id and id_order(state.oldest_pending_id) < first:
        return True
    return id_order(state.delivered_id) < first
