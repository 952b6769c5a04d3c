"""Members of audiences that end, who have yet to be told that they leave.

A large audience has very many of them. They leave some at a time, so that they cost nobody else time: neither the
making of so many flips at once, nor the waiting behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from headrace_audience.engine.engine import Flip


class Leaving:
    """Those of one workspace."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        """Know of nobody; `partition_of` gives the partition of a member."""
        self._partition_of = partition_of
        self._members: dict[str, set[str]] = {}
        self._since_us: dict[str, int] = {}

    def add(self, audience_id: str, members: Iterable[str], now_us: int) -> None:
        """Let members leave; all of an audience leave at the moment at which the first was added."""
        waiting = self._members.setdefault(audience_id, set())
        waiting.update(members)
        if waiting:
            self._since_us.setdefault(audience_id, now_us)
        else:
            del self._members[audience_id]

    @property
    def audience_ids(self) -> Collection[str]:
        """Audiences that have any left."""
        return list(self._members)

    def waits_for(self, audience_id: str) -> bool:
        """Whether an audience has any left."""
        return audience_id in self._members

    def members_in(self, audience_id: str, partition: int) -> list[str]:
        """Those of a partition."""
        return [m for m in self._members.get(audience_id, ()) if self._partition_of(m) == partition]

    def next(self, audience_id: str, limit: int, cause: str) -> list[Flip]:
        """The exits of the next of them, up to `limit`."""
        waiting, since_us = self._members[audience_id], self._since_us[audience_id]
        some = [waiting.pop() for _ in range(min(limit, len(waiting)))]
        if not waiting:
            self.drop_audience(audience_id)
        return [Flip(audience_id, member, False, since_us, cause) for member in some]

    def drop_audience(self, audience_id: str) -> set[str]:
        """Let nobody of an audience leave; returns those who had not left."""
        self._since_us.pop(audience_id, None)
        return self._members.pop(audience_id, set())

    def drop_partition(self, partition: int) -> None:
        """Forget the members of a partition that others compute now."""
        self._keep(lambda member: self._partition_of(member) != partition)

    def drop_profiles(self, profile_ids: Collection[str]) -> None:
        """Forget profiles that are erased."""
        self._keep(lambda member: member not in profile_ids)

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        for audience_id, waiting in list(self._members.items()):
            kept = set(filter(wanted, waiting))
            if kept:
                self._members[audience_id] = kept
            else:
                self.drop_audience(audience_id)
