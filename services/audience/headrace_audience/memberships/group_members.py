"""Who is in audiences of groups: keeps of groups what the engine, which knows people, keeps of people.

The methods are those of the engine of the same names, so that whoever computes audiences need not ask what they are of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from headrace_audience.language.definition import Definition


class GroupMembers:
    """The members of the audiences of groups of one workspace, in the partitions that are held."""

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        """Know no audience; `partition_of` gives the partition of a group."""
        self._partition_of = partition_of
        self._members: dict[str, dict[int, set[str]]] = {}

    def set_audience(self, audience_id: str, definition: Definition) -> frozenset[str]:
        """Add an audience, or let one go on with its members; no history of events is needed."""
        self._members.setdefault(audience_id, defaultdict(set))
        return frozenset()

    def start_audience(self, audience_id: str, *, cause: str = "") -> None:
        """Nothing is evaluated here: members are computed by the batch evaluator and told by set_membership()."""

    def remove_audience(self, audience_id: str) -> None:
        """Forget an audience."""
        del self._members[audience_id]

    def members(self, audience_id: str) -> list[str]:
        """Ids of the groups that are in, sorted."""
        return sorted(set[str]().union(*self._members[audience_id].values()))

    def members_in(self, audience_id: str, partition: int) -> list[str]:
        """Ids of the groups of a partition that are in, in no order."""
        return list(self._members[audience_id].get(partition, ()))

    def set_membership(self, audience_id: str, group_ids: Iterable[str], member: bool = True) -> None:
        """Say of some groups whether they are in."""
        of_partition = self._members[audience_id]
        for group_id in group_ids:
            groups = of_partition[self._partition_of(group_id)]
            (groups.add if member else groups.discard)(group_id)

    def compare(self, one: str, two: str, partition: int) -> tuple[int, int, int]:
        """How many of a partition are members of the one audience only, of the other only, and of both."""
        ones, twos = self._members[one][partition], self._members[two][partition]
        return len(ones - twos), len(twos - ones), len(ones & twos)

    def drop_partition(self, partition: int) -> None:
        """Forget a partition."""
        for of_partition in self._members.values():
            of_partition.pop(partition, None)
