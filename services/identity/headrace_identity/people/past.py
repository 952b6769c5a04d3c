"""What was known of a person at a moment of the past: a fold of the events up to then. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain import consent
from headrace.domain.consent import ConsentValue
from headrace_identity.groups.statements import Membership
from headrace_identity.resolving.graph import TraitValue
from headrace_identity.resolving.resolver import traits_of
from headrace_identity.resolving.rules import Identifier


@dataclass(slots=True)
class Past:
    """What the events taken so far say of a person; a function of their set.

    Attributes:
        events: Number of events.
        merges: Merges that they caused.
        parts: Parts that they were resolved to.
        identifiers: Identifiers that they brought or were found by.
        traits: Newest value of each trait, deleted ones as null.
        consents: Newest statement about each purpose.
        groups: First membership of each group.
    """

    events: int = 0
    merges: int = 0
    parts: set[str] = field(default_factory=set)
    identifiers: set[Identifier] = field(default_factory=set)
    traits: dict[str, TraitValue] = field(default_factory=dict)
    consents: dict[str, ConsentValue] = field(default_factory=dict)
    groups: dict[str, Membership] = field(default_factory=dict)

    def take(self, resolved: ResolvedEvent) -> None:
        """Take in an event of the person; the caller has looked at its time."""
        event = resolved.event
        self.events += 1
        self.merges += len(resolved.decision.merges)
        self.parts.add(resolved.profile_id)
        self.identifiers.update((i.namespace, i.value) for i in resolved.decision.identifiers)
        for name, value in traits_of(event).items():
            trait = TraitValue(value, event.timestamp_us, event.message_id, event.source_id)
            known = self.traits.get(name)
            if known is None or trait.newer_than(known):
                self.traits[name] = trait
        for purpose, said in consent.values_of(event).items():
            before = self.consents.get(purpose)
            if before is None or said.newer_than(before):
                self.consents[purpose] = said
        if event.group_id:
            membership = Membership(event.timestamp_us, event.message_id, event.source_id)
            first = self.groups.get(event.group_id)
            if first is None or membership.earlier_than(first):
                self.groups[event.group_id] = membership
