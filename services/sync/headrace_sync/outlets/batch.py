"""A batch on its way to a vendor: its items, who is asked and told about them, and what became of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.connector import wire
from headrace.domain.times import now_us
from headrace_sdk import DeleteBatch, EventBatch, MemberBatch
from headrace_sync.outlets.sending import Connector
from headrace_sync.outlets.verdicts import Kind, Verdict

SEND_EVENTS = "send_events"
ADD_MEMBERS = "add_members"
REMOVE_MEMBERS = "remove_members"
DELETE_PEOPLE = "delete"

Permit = Callable[[Sequence[int]], Awaitable[set[int]]]
"""Asked right before a request is sent: which of these places in the batch may still go."""

Done = Callable[[int, Verdict], None]
"""Told of the verdict on the item at a place of the batch."""

Taken = Callable[[str, Sequence[int], float], Awaitable[None]]
"""Told at once of a job into which the vendor took the items at these places, to be asked for after some seconds."""


@dataclass(slots=True)
class Batch:
    """A batch under way."""

    operation: str
    items: Sequence[Any]
    traceparents: Sequence[str]
    permit: Permit | None
    done: Done | None = None
    not_after: float | None = None
    taken: Taken | None = None
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    traced: set[int] = field(default_factory=set)
    notes: dict[int, str] = field(default_factory=dict)

    def decide(self, place: int, verdict: Verdict) -> None:
        """Note the verdict on an item; a remark of the connector makes a warning of its delivery."""
        if verdict.kind is Kind.DELIVERED and place in self.notes:
            verdict = replace(verdict, kind=Kind.WARNED, reason=self.notes[place])
        self.verdicts[place] = verdict
        if self.done is not None:
            self.done(place, verdict)

    async def build(self, connector: Connector, places: Sequence[int]) -> wire.BuiltBatch:
        """Let the connector make requests of the items at these places."""
        chosen, now = tuple(self.items[place] for place in places), now_us()
        if self.operation == SEND_EVENTS:
            return await connector.send_events(EventBatch(events=chosen, now_us=now))
        if self.operation == DELETE_PEOPLE:
            return await connector.delete(DeleteBatch(subjects=chosen, now_us=now))
        rows = MemberBatch(rows=chosen, now_us=now)
        return await (connector.add_members if self.operation == ADD_MEMBERS else connector.remove_members)(rows)
