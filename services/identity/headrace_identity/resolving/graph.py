"""What the resolver works on: profiles and who holds which identifier, in memory.

A graph is either all of a workspace (offline replay) or just the part of it that a micro-batch
touches (the service loads it inside its transaction). `Changes` collects what came of resolving,
so that the service can write it with one write per changed profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.domain.consent import ConsentValue
from headrace_identity.resolving.rules import Identifier


class TraitValue(NamedTuple):
    """A trait with where it came from; `value` is JSON, b"null" says that the trait was deleted."""

    value: bytes
    time_us: int
    message_id: str
    source_id: str

    def newer_than(self, other: TraitValue) -> bool:
        """Whether this one wins over the other: last writer by (event time, message id)."""
        return (self.time_us, self.message_id) > (other.time_us, other.message_id)


@dataclass(slots=True)
class Profile:
    """A profile, as the resolver needs it.

    Attributes:
        id: Profile id.
        created: Sequence of the event that made it.
        parts: Ids of all parts, itself first.
        merges: Merges in its history.
        identifiers: Identifiers over all parts, with the time of the event that brought each, in microseconds; to be
            changed by the methods only.
        traits: Traits that events set while this profile was their survivor. The traits of the whole person are
            the union over the parts.
        consents: What events said about purposes, kept like the traits.
        merged_into: Id of the profile that it was merged into, or None.
        merged_sequence: Sequence of the event that merged it, or 0.
    """

    id: str
    created: int
    parts: list[str]
    merges: int = 0
    identifiers: dict[Identifier, int] = field(default_factory=dict)
    traits: dict[str, TraitValue] = field(default_factory=dict)
    consents: dict[str, ConsentValue] = field(default_factory=dict)
    merged_into: str | None = None
    merged_sequence: int = 0
    _counts: Counter[str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many identifiers there are of each namespace, which limits ask at each event, however many there are."""
        if self._counts is None:
            self._counts = Counter(namespace for namespace, _ in self.identifiers)
        return self._counts

    def hold(self, identifier: Identifier, time_us: int) -> None:
        """Add an identifier that it does not hold."""
        self.identifiers[identifier] = time_us
        if self._counts is not None:
            self._counts[identifier[0]] += 1

    def give_away(self, identifier: Identifier) -> None:
        """Take an identifier away that it holds."""
        del self.identifiers[identifier]
        self._counts = None

    def take_over(self, other: Profile) -> None:
        """Add the identifiers of another profile, which are none of its own."""
        if self._counts is not None:
            self._counts.update(other.counts)
        self.identifiers.update(other.identifiers)


@dataclass(slots=True)
class Graph:
    """Profiles by id, and the part that holds each known identifier."""

    profiles: dict[str, Profile] = field(default_factory=dict)
    holders: dict[Identifier, str] = field(default_factory=dict)

    def root(self, profile_id: str) -> Profile:
        """The profile that a part's id leads to: itself, or what it was merged into."""
        profile = self.profiles[profile_id]
        while profile.merged_into is not None:
            profile = self.profiles[profile.merged_into]
        return profile

    def find(self, identifier: Identifier) -> Profile | None:
        """The profile that holds an identifier, or None."""
        holder = self.holders.get(identifier)
        return None if holder is None else self.root(holder)


@dataclass(slots=True)
class Changes:
    """What resolving changed.

    Attributes:
        created: Ids of new profiles.
        identifiers: New identifiers with the part that each was attached to.
        traits: Ids of profiles whose own traits changed.
        consents: Ids of profiles whose own consents changed.
        attached: Ids of profiles whose identifiers grew, or lost one that was handed over.
        survivors: Ids of profiles that others were merged into.
        merged: Ids of profiles that were merged into others.
        watched: Ids of profiles that a decision depended on in a way that a concurrent change could undo. Whoever
            commits concurrently must be made to conflict.
        absent: Identifiers whose absence a decision depended on. Whoever adds one concurrently must be made to
            conflict.
        relied: Identifiers that were found where they are, and that a logout may hand over to another profile. Whoever
            does so concurrently must be made to conflict. Empty without a policy for shared devices.
    """

    created: set[str] = field(default_factory=set)
    identifiers: dict[Identifier, str] = field(default_factory=dict)
    traits: set[str] = field(default_factory=set)
    consents: set[str] = field(default_factory=set)
    attached: set[str] = field(default_factory=set)
    survivors: set[str] = field(default_factory=set)
    merged: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)
    absent: set[Identifier] = field(default_factory=set)
    relied: set[Identifier] = field(default_factory=set)


def union_of_traits(parts: Iterable[Profile]) -> dict[str, TraitValue]:
    """Traits of a person: the newest of each over the parts, deleted ones left out, by name."""
    return newest_traits(part.traits for part in parts)


def newest_traits(places: Iterable[Mapping[str, TraitValue]]) -> dict[str, TraitValue]:
    """Traits that are kept in several places, by name: the newest of each, deleted ones left out."""
    union: dict[str, TraitValue] = {}
    for place in places:
        for name, trait in place.items():
            known = union.get(name)
            if known is None or trait.newer_than(known):
                union[name] = trait
    return {name: union[name] for name in sorted(union) if union[name].value != b"null"}


def most_in_a_period(times_us: Sequence[int], period_us: int | None) -> int:
    """The greatest number of these times that lie in one period (t - period, t]; all of them when it is None."""
    if period_us is None:
        return len(times_us)
    ordered = sorted(times_us)
    most = start = 0
    for end, time_us in enumerate(ordered):
        while ordered[start] <= time_us - period_us:
            start += 1
        most = max(most, end - start + 1)
    return most


def most_different_in_a_period(dated: Sequence[tuple[int, Hashable]], period_us: int | None) -> int:
    """The greatest number of different things in one period (t - period, t], of (time, thing); ever when it is None."""
    if period_us is None:
        return len({thing for _, thing in dated})
    ordered = sorted(dated, key=lambda one: one[0])
    inside: Counter[Hashable] = Counter()
    most = start = 0
    for time_us, thing in ordered:
        inside[thing] += 1
        while ordered[start][0] <= time_us - period_us:
            inside[ordered[start][1]] -= 1
            if not inside[ordered[start][1]]:
                del inside[ordered[start][1]]
            start += 1
        most = max(most, len(inside))
    return most
