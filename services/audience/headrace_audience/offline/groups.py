"""Audiences of groups by the reference: naive, over a list of facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from headrace_audience.batch.groups import MOST_EXAMPLES, GroupFacts, LeafFacts, MemberFacts
from headrace_audience.language.definition import (
    All,
    Any_,
    AudienceMember,
    Condition,
    Definition,
    Members,
    Not,
    TraitTest,
    walk,
)
from headrace_audience.offline.facts import Fact
from headrace_audience.offline.reference import Audiences, Reference, trait_holds


class GroupReference:
    """Evaluates audiences of groups."""

    def __init__(
        self,
        facts: Iterable[Fact],
        audiences: Audiences | None = None,
        person_holds: Callable[[Condition, str, int], bool] | None = None,
    ) -> None:
        """Know some facts; `person_holds` says whether a condition holds for a person, by default the reference."""
        listed = list(facts)
        self._person_holds = person_holds or Reference(listed, audiences).holds
        self._audiences = audiences or {}
        self._mentions: dict[str, dict[str, Fact]] = {}
        for fact in listed:
            if fact.group_id:
                self._mentions.setdefault(fact.group_id, {}).setdefault(fact.message_id, fact)

    @property
    def groups(self) -> list[str]:
        """All groups, sorted: whatever any event names, of whatever time."""
        return sorted(self._mentions)

    def members(self, definition: Definition, at_us: int) -> list[str]:
        """The groups that are in at a moment, sorted."""
        return [group_id for group_id in self.groups if self.holds(definition.where, group_id, at_us)]

    def people_of(self, group_id: str, at_us: int) -> list[str]:
        """Who belongs to a group at a moment, sorted: people of whom an event up to then names it."""
        return sorted({f.profile for f in self._past(group_id, at_us) if f.profile})

    def holds(self, condition: Condition, group_id: str, at_us: int) -> bool:
        """Whether a condition holds for a group at a moment."""
        if isinstance(condition, All):
            return all(self.holds(part, group_id, at_us) for part in condition.parts)
        if isinstance(condition, Any_):
            return any(self.holds(part, group_id, at_us) for part in condition.parts)
        if isinstance(condition, Not):
            return not self.holds(condition.part, group_id, at_us)
        if isinstance(condition, AudienceMember):
            meaning: Definition | Collection[str] = self._audiences.get(condition.audience_id, ())
            if isinstance(meaning, Definition):
                return self.holds(meaning.where, group_id, at_us)
            return group_id in meaning
        if isinstance(condition, TraitTest):
            said = [f for f in self._past(group_id, at_us) if condition.path[0] in f.group_traits]
            writer = max(said, key=lambda fact: (fact.timestamp_us, fact.message_id), default=None)
            return trait_holds(condition, writer.group_traits if writer else {}, at_us)
        assert isinstance(condition, Members)  # the parser lets nothing else into an audience of groups
        truths = [self._person_holds(condition.part, p, at_us) for p in self.people_of(group_id, at_us)]
        if condition.quantifier == "all":
            return bool(truths) and all(truths)
        return any(truths) is (condition.quantifier == "any")

    def facts(self, definition: Definition, group_id: str, at_us: int) -> GroupFacts:
        """What holds of a group at a moment, for each condition of a definition that combines no others."""
        return {leaf: self._facts(leaf, group_id, at_us) for leaf in walk(definition.where)}

    def _facts(self, leaf: Condition, group_id: str, at_us: int) -> LeafFacts:
        holds = self.holds(leaf, group_id, at_us)
        if isinstance(leaf, Members):
            people = self.people_of(group_id, at_us)
            holding = [p for p in people if self._person_holds(leaf.part, p, at_us)]
            lacking = [p for p in people if p not in holding]
            some_holding, some_lacking = holding[:MOST_EXAMPLES], lacking[:MOST_EXAMPLES]
            return LeafFacts(holds, MemberFacts(len(people), len(holding), some_holding, some_lacking))
        if isinstance(leaf, TraitTest):
            name = leaf.path[0]
            said = [f for f in self._past(group_id, at_us) if name in f.group_traits]
            writer = max(said, key=lambda fact: (fact.timestamp_us, fact.message_id), default=None)
            if writer is not None:
                set_by = (writer.timestamp_us, writer.message_id)
                return LeafFacts(holds, value=writer.group_traits[name], set_by=set_by)
        return LeafFacts(holds)

    def _past(self, group_id: str, at_us: int) -> list[Fact]:
        return [f for f in self._mentions.get(group_id, {}).values() if f.timestamp_us <= at_us]
