"""Which audiences wait to be computed by the batch evaluator, for one moment each, and in which partitions.

Those are batch audiences: static ones, those refreshed at intervals, and all audiences of groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping

from headrace_audience.definitions.catalog import Audience

_tickets = itertools.count(1)


class BatchAudiences:
    """Batch audiences of one workspace whose members are still to be computed.

    Each partition of each has a ticket that is new for each time it was asked for: what was asked for anew is not
    satisfied by a view of the log that was opened before.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self._waiting: dict[str, dict[int, int]] = {}

    def ask(self, audience: Audience, partitions: Iterable[int]) -> None:
        """Let a generation of an audience be computed in those of the partitions in which it is not done."""
        self._waiting[audience.audience_id] = {p: next(_tickets) for p in partitions if p not in audience.done}

    def ask_again(self, audience: Audience, partition: int) -> None:
        """Let an audience be computed in a partition, whatever was computed there."""
        self._waiting.setdefault(audience.audience_id, {})[partition] = next(_tickets)

    def forget(self, audience_id: str) -> None:
        """Compute an audience no more."""
        self._waiting.pop(audience_id, None)

    def drop_partition(self, partition: int) -> None:
        """A partition is computed elsewhere."""
        for waiting in self._waiting.values():
            waiting.pop(partition, None)

    def partitions_of(self, audience_id: str) -> Collection[int]:
        """Partitions in which an audience waits."""
        return self._waiting.get(audience_id, {}).keys()

    @property
    def is_waiting(self) -> bool:
        """Whether any audience waits in any partition."""
        return any(self._waiting.values())

    def order(self, audiences: Mapping[str, Audience]) -> dict[str, tuple[Audience, Mapping[int, int]]]:
        """Audience id to the audience and partition to ticket, of those that can be computed now.

        Who names others whose stored members are being computed themselves waits for them.
        """
        return {
            a: (audiences[a], dict(waiting))
            for a, waiting in self._waiting.items()
            if waiting and not any(_is_being_stored(audiences[n]) for n in named_by(audiences[a], audiences))
        }

    def take(self, audience_id: str, tickets: Mapping[int, int]) -> set[int]:
        """What was ordered with these tickets is computed; returns the partitions that still waited for it."""
        waiting = self._waiting.get(audience_id, {})
        partitions = {p for p, ticket in tickets.items() if waiting.get(p) == ticket}
        for partition in partitions:
            del waiting[partition]
        return partitions


def named_by(audience: Audience, audiences: Mapping[str, Audience]) -> set[str]:
    """Ids of those of the audiences that one reads: those that it names, and what their definitions name in turn."""
    found: set[str] = set()
    waiting = set(audience.definition.references & audiences.keys())
    while waiting:
        found |= waiting
        read = [audiences[a].definition for a in waiting if audiences[a].is_read_by_definition]
        waiting = {r for definition in read for r in definition.references & audiences.keys()} - found
    return found


def _is_being_stored(audience: Audience) -> bool:
    return audience.awaits_batch and not audience.is_read_by_definition
