"""Groups: companies, accounts, households. Who belongs to one, and what is known of it. Pure functions.

Start reading here. Any event may name a group. It says that the event's person belongs to the group; a group call says
in its traits what the group is like. Both are functions of the set of events, whatever order they come in:

- a membership is kept per part of a person, like traits, and is where the first event that says so, by (event time,
  message id), puts it; the memberships of a person are those of all parts;
- traits are last writer wins by (event time, message id). An event that belongs to nobody still sets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace_identity.resolving.graph import TraitValue

_GROUP = EventKind.EVENT_KIND_GROUP

_decode_traits = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Mention(NamedTuple):
    """An event that names a group.

    Attributes:
        event: The event.
        part: Profile at the time of resolving, "" for nobody.
        sequence: Place in the recorded order.
        traits: The traits that it sets on the group, as JSON by name.
    """

    event: Event
    part: str
    sequence: int
    traits: dict[str, bytes]

    @classmethod
    def of(cls, event: Event, part: str, sequence: int) -> Mention:
        """An event that names a group.

        Raises:
            ValueError: The traits of a group call are no JSON object; ingest lets none of these pass.
        """
        return cls(event, part, sequence, _traits_of(event))


class Membership(NamedTuple):
    """The event that made somebody a member: its time in microseconds, its message id, its source."""

    time_us: int
    message_id: str
    source_id: str

    def earlier_than(self, other: Membership) -> bool:
        """Whether this one came before the other: by (event time, message id)."""
        return (self.time_us, self.message_id) < (other.time_us, other.message_id)


class MemberKey(NamedTuple):
    """A part of a person in a group."""

    group_id: str
    part: str


@dataclass(slots=True)
class Groups:
    """What is known of groups, and what of it was changed by folding.

    Attributes:
        created: Sequence of the first event of each known group.
        traits: Traits by group, deleted ones as null.
        members: Memberships.
        new: Groups that folding made.
        changed_traits: Groups of which folding changed traits.
        changed_members: Memberships that folding added or moved.
    """

    created: dict[str, int] = field(default_factory=dict)
    traits: dict[str, dict[str, TraitValue]] = field(default_factory=dict)
    members: dict[MemberKey, Membership] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed_traits: set[str] = field(default_factory=set)
    changed_members: set[MemberKey] = field(default_factory=set)


def fold(groups: Groups, mentions: Iterable[Mention]) -> None:
    """Take in events that name a group, in the recorded order; folding one again changes nothing.

    Args:
        groups: Holds what is known of the groups and memberships that the events touch; changed in place.
        mentions: The events.
    """
    for event, part, sequence, traits in mentions:
        group_id = event.group_id
        if group_id not in groups.created:
            groups.created[group_id] = sequence
            groups.new.add(group_id)
        if traits:
            known = groups.traits.setdefault(group_id, {})
            for name, value in traits.items():
                trait = TraitValue(value, event.timestamp_us, event.message_id, event.source_id)
                other = known.get(name)
                if other is None or trait.newer_than(other):
                    known[name] = trait
                    groups.changed_traits.add(group_id)
        if part:
            key = MemberKey(group_id, part)
            membership = Membership(event.timestamp_us, event.message_id, event.source_id)
            first = groups.members.get(key)
            if first is None or membership.earlier_than(first):
                groups.members[key] = membership
                groups.changed_members.add(key)


def memberships_of_person(of_parts: Iterable[tuple[str, Membership]]) -> dict[str, Membership]:
    """The memberships of a person, by group id in order: of each the first one over the parts."""
    first: dict[str, Membership] = {}
    for group_id, membership in of_parts:
        known = first.get(group_id)
        if known is None or membership.earlier_than(known):
            first[group_id] = membership
    return {group_id: first[group_id] for group_id in sorted(first)}


def _traits_of(event: Event) -> dict[str, bytes]:
    if event.kind != _GROUP or not event.traits:
        return {}
    return {name: bytes(value) for name, value in _decode_traits(event.traits).items()}
