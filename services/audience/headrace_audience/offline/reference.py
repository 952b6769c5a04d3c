"""The reference evaluator: naive, slow, obviously right. The other two must agree with it at every moment.

It keeps all facts, and answers for one person at one moment by looking at all of them. Where time matters it asks at
all moments at which anything can change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from headrace.domain.predicates_reference import at_path, moment, passes
from headrace_audience.language.definition import (
    Aggregate,
    All,
    Any_,
    AudienceMember,
    ComputedTest,
    ComputedValue,
    Condition,
    ConsentTest,
    DatedCount,
    Definition,
    EventCount,
    IdentifierExists,
    InOrder,
    Members,
    Not,
    TouchTest,
    TraitTest,
    walk,
)
from headrace_audience.offline.facts import Fact
from headrace_audience.offline.reference_events import (
    aggregate_holds,
    as_compared,
    computed_value,
    in_window,
    is_near,
    matches,
    moments_after,
    occurrences_hold,
    sequence_holds,
)

Audiences = Mapping[str, Definition | Collection[str]]
"""What references to other audiences mean: definitions, or ids of the members."""


class Reference:
    """Evaluates over a list of facts."""

    def __init__(self, facts: Iterable[Fact], audiences: Audiences | None = None) -> None:
        self._of_profile: dict[str, dict[str, Fact]] = {}
        for fact in facts:
            if not fact.profile:
                continue
            self._of_profile.setdefault(fact.profile, {}).setdefault(fact.message_id, fact)
        self._audiences = audiences or {}

    @property
    def profiles(self) -> list[str]:
        """All people, sorted: whoever has any event, of whatever time."""
        return sorted(self._of_profile)

    def members(self, definition: Definition, at_us: int) -> list[str]:
        """Who is in at a moment, sorted."""
        return [profile for profile in self.profiles if self.holds(definition.where, profile, at_us)]

    def holds(self, condition: Condition, profile: str, at_us: int) -> bool:
        """Whether a condition holds for a person at a moment."""
        if isinstance(condition, All):
            return all(self.holds(part, profile, at_us) for part in condition.parts)
        if isinstance(condition, Any_):
            return any(self.holds(part, profile, at_us) for part in condition.parts)
        if isinstance(condition, Not):
            return not self.holds(condition.part, profile, at_us)
        if isinstance(condition, AudienceMember):
            meaning = self._audiences.get(condition.audience_id, ())
            if isinstance(meaning, Definition):
                return self.holds(meaning.where, profile, at_us)
            return profile in meaning
        if isinstance(condition, EventCount | DatedCount):
            count = len(self.counted(condition, profile, at_us))
            return condition.accept[min(count, len(condition.accept) - 1)]
        if isinstance(condition, IdentifierExists):
            past = [fact for fact in self._facts(profile) if fact.timestamp_us <= at_us]
            seen = any(namespace == condition.namespace for fact in past for namespace, _ in fact.identifiers)
            return seen is condition.exists
        if isinstance(condition, TraitTest):
            writer = self.writer(condition.path[0], profile, at_us)
            return trait_holds(condition, writer.traits if writer else {}, at_us)
        if isinstance(condition, ConsentTest):
            said = self.statement(condition.purpose, profile, at_us)
            return passes(condition.test, said and ("granted" if said.consents[condition.purpose] else "denied"))
        if isinstance(condition, TouchTest):
            touch = self.touch(condition, profile, at_us)
            return passes(condition.test, touch and at_path(touch.touch, condition.path))
        if isinstance(condition, Aggregate):
            found = [at_path(fact.properties, condition.path) for fact in self.counted(condition, profile, at_us)]
            return aggregate_holds(condition, found)
        if isinstance(condition, ComputedValue):
            return passes(condition.test, as_compared(self.computed_value(condition, profile, at_us)))
        assert not isinstance(condition, ComputedTest)  # `language.computed.bind` comes first
        if isinstance(condition, InOrder):
            return sequence_holds(condition, self._until(profile, at_us), at_us)
        assert not isinstance(condition, Members)  # that is a condition on groups, see `groups`
        return occurrences_hold(condition, self._until(profile, at_us), at_us)

    def computed_value(self, condition: ComputedValue, profile: str, at_us: int) -> Any:
        """The value of a computed trait at a moment, numbers as fractions; None for none."""
        return computed_value(condition, self._until(profile, at_us), at_us)

    def counted(
        self, condition: EventCount | DatedCount | Aggregate | ComputedValue, profile: str, at_us: int
    ) -> list[Fact]:
        """The events that a condition counts at a moment, oldest first."""
        return [
            fact
            for fact in self._until(profile, at_us)
            if matches(fact, condition.names, condition.where)
            and in_window(condition.window, fact.timestamp_us, at_us)
            and (not isinstance(condition, DatedCount) or all(is_near(fact, p, at_us) for p in condition.dated))
        ]

    def named(self, names: Collection[str], profile: str, at_us: int) -> list[Fact]:
        """The events of some names up to a moment, oldest first."""
        return [fact for fact in self._until(profile, at_us) if fact.kind == "track" and fact.name in names]

    def statement(self, purpose: str, profile: str, at_us: int) -> Fact | None:
        """The event that said last what holds for a purpose at a moment."""
        said = [fact for fact in self._until(profile, at_us) if purpose in fact.consents]
        return said[-1] if said else None

    def touch(self, condition: TouchTest, profile: str, at_us: int) -> Fact | None:
        """The event that said first, or last, what a test of touches asks."""
        said = [fact for fact in self._until(profile, at_us) if condition.path[0] in fact.touch]
        return said[0 if condition.which == "first" else -1] if said else None

    def _until(self, profile: str, at_us: int) -> list[Fact]:
        """The events of a person up to a moment, in order."""
        past = [fact for fact in self._facts(profile) if fact.timestamp_us <= at_us]
        return sorted(past, key=lambda fact: (fact.timestamp_us, fact.message_id))

    def writer(self, trait: str, profile: str, at_us: int) -> Fact | None:
        """The event that set the value that a trait has at a moment."""
        writes = [fact for fact in self._facts(profile) if fact.timestamp_us <= at_us and trait in fact.traits]
        return max(writes, key=lambda fact: (fact.timestamp_us, fact.message_id), default=None)

    def edges(self, condition: Condition, profile: str) -> list[int]:
        """All moments at which the truth of a condition may change for a person, ascending."""
        moments: set[int] = set()
        for fact in self._facts(profile):
            moments.add(fact.timestamp_us)
            for leaf in walk(condition):
                moments.update(moments_after(leaf, fact))
        for leaf in walk(condition):
            if isinstance(leaf, AudienceMember):
                meaning = self._audiences.get(leaf.audience_id)
                if isinstance(meaning, Definition):
                    moments.update(self.edges(meaning.where, profile))
        return sorted(moments)

    def next_change(self, definition: Definition, profile: str, at_us: int) -> int | None:
        """The first moment after another at which the membership is a different one; None: never."""
        now = self.holds(definition.where, profile, at_us)
        for edge in self.edges(definition.where, profile):
            if edge > at_us and self.holds(definition.where, profile, edge) != now:
                return edge
        return None

    def since(self, definition: Definition, profile: str, at_us: int) -> int | None:
        """From when the membership has been what it is at a moment; None: always."""
        now = self.holds(definition.where, profile, at_us)
        for edge in reversed(self.edges(definition.where, profile)):
            if edge <= at_us and self.holds(definition.where, profile, edge - 1) != now:
                return edge
        return None

    def identifiers(self, profile: str) -> list[tuple[str, str]]:
        """All identifiers of a person, sorted."""
        return sorted({identifier for fact in self._facts(profile) for identifier in fact.identifiers})

    def _facts(self, profile: str) -> list[Fact]:
        return list(self._of_profile.get(profile, {}).values())


def trait_holds(condition: TraitTest, traits: Mapping[str, Any], at_us: int) -> bool:
    """Whether a test holds of traits, by their names."""
    value = at_path(traits, condition.path)
    if condition.test.op not in ("in_last", "in_next"):
        return passes(condition.test, value)
    said = moment(value)
    if said is None:
        return False
    span = int(float(condition.test.values[0]))
    if condition.test.op == "in_last":
        return at_us - span < said <= at_us
    return at_us < said <= at_us + span
