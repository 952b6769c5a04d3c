"""What resolving anew changes: how many profiles join and split, whom that concerns, some examples. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headrace_identity.rebuilds.shadow import Shadow

MOST_EXAMPLES = 20
_MOST_PROFILES = 10
"""Profiles that an example names on either side."""


class Example(NamedTuple):
    """Profiles that become one, or the one that becomes several: ids of those before and of those now."""

    before: tuple[str, ...]
    now: tuple[str, ...]


class Group(NamedTuple):
    """People who can be put in place together, without others.

    Attributes:
        profiles: Parts and profiles before.
        messages: Message ids of events that belonged to nobody.
        events: About how many events they have.
    """

    profiles: tuple[str, ...]
    messages: tuple[str, ...]
    events: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the graph of now differs from the one before.

    Attributes:
        profiles_before: Number of profiles before.
        profiles_now: Number of profiles now.
        joining: Profiles before that are one with others now.
        splitting: Profiles before that are several now.
        moved_events: Events that belong to another profile now.
        joins: Examples of joins, those of the oldest profiles.
        splits: Examples of splits, likewise.
        groups: Everybody for whom anything differs, in an order that depends on nothing else.
    """

    profiles_before: int
    profiles_now: int
    joining: int
    splitting: int
    moved_events: int
    joins: tuple[Example, ...]
    splits: tuple[Example, ...]
    groups: tuple[Group, ...]


def compare(shadow: Shadow) -> Comparison:
    """Compare before and now."""
    edges = _edges(shadow)
    now_of: defaultdict[str, set[str]] = defaultdict(set)
    before_of: defaultdict[str, set[str]] = defaultdict(set)
    for before, now in edges:
        if before and now:
            now_of[before].add(now)
            before_of[now].add(before)
    joined = {now: sources for now, sources in before_of.items() if len(sources) > 1}
    split = {before: targets for before, targets in now_of.items() if len(targets) > 1}
    return Comparison(
        profiles_before=shadow.profiles_before,
        profiles_now=shadow.profiles_now(),
        joining=len(set().union(*joined.values())),
        splitting=len(split),
        moved_events=sum(count for (before, now), count in edges.items() if before != now),
        joins=tuple(
            Example(_first(joined[now]), (now,))
            for now in sorted(joined, key=lambda p: (shadow.graph.profiles[p].created, p))[:MOST_EXAMPLES]
        ),
        splits=tuple(Example((before,), _first(split[before])) for before in sorted(split)[:MOST_EXAMPLES]),
        groups=tuple(_groups(shadow)),
    )


def _edges(shadow: Shadow) -> Mapping[tuple[str, str], int]:
    """Number of events by (profile before, profile now), for profiles where any of them differ."""
    edges: Counter[tuple[str, str]] = Counter()
    for (old_part, part), count in shadow.moved.items():
        edges[shadow.root_before(old_part), shadow.root_now(part) if part else ""] += count
    for part, count in shadow.same.items():
        before, now = shadow.root_before(part), shadow.root_now(part)
        if before != now:
            edges[before, now] += count
    concerned = {profile for edge in edges for profile in edge}
    for part, count in shadow.same.items():
        before, now = shadow.root_before(part), shadow.root_now(part)
        if before == now and now in concerned:
            edges[before, now] += count
    return edges


def _groups(shadow: Shadow) -> Iterator[Group]:
    """Everybody for whom anything differs, in groups that no event ties to each other."""
    union = _Union()
    different = set(shadow.differing)
    for before, now in shadow.moved:
        ends = [part for part in (before, now) if part]
        union.join(ends)
        # An event may have come to a part just when that was merged: it is the same person's all the same.
        if len(ends) == 1 or shadow.root_before(before) != shadow.root_now(now):
            different.update(ends)
    for loser, survivor in shadow.merges():
        union.join((loser, survivor))
    for part in shadow.same:
        if shadow.root_before(part) != shadow.root_now(part):
            different.add(part)
    for tie in shadow.ties:
        union.join(tie)
    members: defaultdict[str, set[str]] = defaultdict(set)
    roots = {union.root(part) for part in different}
    for part in {*union.parts(), *different}:
        if (root := union.root(part)) in roots:
            members[root].add(part)
    events: Counter[str] = Counter()
    for part, count in (*shadow.same.items(), *((before or now, n) for (before, now), n in shadow.moved.items())):
        if (root := union.root(part)) in roots:
            events[root] += count
    for root in sorted(members, key=lambda r: min(members[r])):
        messages = [m for part in sorted(members[root]) for m in shadow.found.get(part, ())]
        yield Group(tuple(sorted(members[root])), tuple(messages), events[root])
    for message in shadow.nobodys:
        yield Group((), (message,), 1)


def _first(profiles: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(profiles)[:_MOST_PROFILES])


class _Union:
    """Disjoint sets of parts; a part that was joined with nothing is a set of its own."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def parts(self) -> Iterable[str]:
        return self._parents.keys()

    def root(self, part: str) -> str:
        root = part
        while (parent := self._parents.get(root, root)) != root:
            root = parent
        while part != root:  # shorten the way for the next time
            self._parents[part], part = root, self._parents[part]
        return root

    def join(self, parts: Iterable[str]) -> None:
        first = ""
        for part in parts:
            root = self.root(part)
            self._parents.setdefault(part, root)
            if not first:
                first = root
            elif root != first:
                self._parents[root] = first
