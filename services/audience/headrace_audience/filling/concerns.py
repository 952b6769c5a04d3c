"""What a definition reads of events, so that an event which it does not read makes nobody compute it anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.consent import statements_of
from headrace_audience.definitions.catalog import Audience
from headrace_audience.engine.touches import touch_parts
from headrace_audience.engine.traits import decoded_traits
from headrace_audience.language.definition import (
    AudienceMember,
    Condition,
    ConsentTest,
    Definition,
    IdentifierExists,
    InOrder,
    Members,
    TouchTest,
    TraitTest,
    walk,
)

MOST_PAIRS = 50_000
"""So many pairs of a group and a person who belongs to it are remembered."""


@dataclass(frozen=True)
class Reads:
    """What the conditions of a definition read of the events of people."""

    names: frozenset[str]
    traits: frozenset[str]
    purposes: frozenset[str]
    namespaces: frozenset[str]
    touches: bool

    def concerns(self, resolved: ResolvedEvent) -> bool:
        """Whether an event may change what any of the conditions says of a person."""
        event = resolved.event
        return (
            event.name in self.names
            or (bool(self.traits) and not self.traits.isdisjoint(decoded_traits(event)))
            or (bool(self.purposes) and not self.purposes.isdisjoint(statements_of(event)))
            or (self.touches and bool(touch_parts(event)))
            or (bool(self.namespaces) and any(i.namespace in self.namespaces for i in resolved.decision.identifiers))
        )


def reads_of(definition: Definition, audiences: Mapping[str, Audience]) -> Reads:
    """What a definition of groups reads of people, directly and through the audiences that it reads by definition."""
    leaves = list(_of_people(definition, audiences, set()))
    return Reads(
        frozenset(name for leaf in leaves for name in _names(leaf)),
        frozenset(leaf.path[0] for leaf in leaves if isinstance(leaf, TraitTest)),
        frozenset(leaf.purpose for leaf in leaves if isinstance(leaf, ConsentTest)),
        frozenset(leaf.namespace for leaf in leaves if isinstance(leaf, IdentifierExists)),
        any(isinstance(leaf, TouchTest) for leaf in leaves),
    )


def _of_people(definition: Definition, audiences: Mapping[str, Audience], seen: set[str]) -> Iterator[Condition]:
    """The conditions on people; a group's own traits are told by events that name the group."""
    for leaf in walk(definition.where):
        if isinstance(leaf, Members):
            yield from _of_people(Definition("dynamic", leaf.part), audiences, seen)
        elif isinstance(leaf, AudienceMember):
            named = audiences.get(leaf.audience_id)
            if named is not None and named.is_read_by_definition and leaf.audience_id not in seen:
                seen.add(leaf.audience_id)
                yield from _of_people(named.definition, audiences, seen)
        elif definition.of == "people":
            yield leaf


def _names(leaf: Condition) -> tuple[str, ...]:
    if isinstance(leaf, InOrder):
        return tuple(name for step in leaf.steps for name in step.names)
    return getattr(leaf, "names", ())


class Belonging:
    """Who is known to belong to which group."""

    def __init__(self) -> None:
        """Nobody is known."""
        self._pairs: set[tuple[str, str]] = set()

    def changes(self, resolved: ResolvedEvent, now_us: int) -> bool:
        """Whether an event that names a group may change who belongs to it, or what the group is like."""
        event = resolved.event
        pair = (event.group_id, resolved.profile_id)
        is_known = pair in self._pairs
        if not is_known and event.timestamp_us <= now_us:
            if len(self._pairs) >= MOST_PAIRS:
                self._pairs.clear()
            self._pairs.add(pair)
        return not is_known or (event.kind == EventKind.EVENT_KIND_GROUP and bool(event.traits))

    def forget(self) -> None:
        """People were merged, separated or forgotten."""
        self._pairs.clear()
