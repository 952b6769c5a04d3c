"""Resolving the events of a closure anew, in the recorded order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headrace.api.identity.v1.profile_pb2 import Decision
from headrace_identity.deletion.tombstones import Marks
from headrace_identity.demotions import Demotion, demotions_of
from headrace_identity.reassign.closure import Recorded
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.links import Links
from headrace_identity.resolving.resolver import resolve

_EVENTS_AT_A_TIME = 200


class Assigned(NamedTuple):
    """What came of an event: its part and the decision, also serialised."""

    part: str
    decision: Decision
    serialised: bytes


class BeingDeleted(Exception):
    """Somebody concerned is being deleted at this moment."""


class Anew:
    """The graph that the events of a closure make."""

    def __init__(self, links: Links, marks: Marks | None = None) -> None:
        """Nothing has been resolved yet.

        Args:
            links: Manual links after the change.
            marks: Tombstones of the workspace: what was a deleted person's is set aside.
        """
        self._marks = marks
        self._links = links
        self.graph = Graph()
        self.assigned: dict[str, Assigned] = {}
        """By message id, in the recorded order."""
        self.demotions: set[Demotion] = set()
        self.last = -1
        """Sequence of the last event that was resolved."""

    def from_the_start(self) -> Anew:
        """The same with nothing resolved yet."""
        return Anew(self._links, self._marks)

    async def resolve(self, events: Sequence[Recorded]) -> None:
        """Resolve events that come after all that have been.

        Args:
            events: The events, in the recorded order.

        Raises:
            BeingDeleted: One is of somebody whose deletion is under way.
        """
        for number, event in enumerate(events):
            if number % _EVENTS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # the lanes have their turn
            assert event.sequence > self.last, "not in the recorded order"
            self.last = event.sequence
            prepared = event.prepared
            if self._marks is not None:
                kept = self._marks.keep(prepared, event.resolved.decision)
                if kept is None:
                    raise BeingDeleted
                prepared = kept
            part, decision = resolve(self.graph, event.rules, prepared, event.sequence, Changes(), self._links)
            decision.rules_version = event.rules_version
            self.assigned[event.resolved.event.message_id] = Assigned(part, decision, decision.SerializeToString())
            self.demotions.update(demotions_of(part, decision))
