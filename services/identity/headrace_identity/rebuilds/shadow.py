"""A shadow: the recorded events, resolved anew in memory, beside what was decided when they came.

Nothing here reads or writes a store. What is kept is what a comparison needs: the graph that the events make now, where
profiles merged before, and how many events are in which part before and now. Traits and consents are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import Decision, DecisionAction
from headrace.storage.mongo.client import Document
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.links import NO_LINKS, Links
from headrace_identity.resolving.resolver import Prepared, prepare, resolve
from headrace_identity.resolving.rules import Rules

_CREATED = DecisionAction.DECISION_ACTION_CREATED

Keep = Callable[[Prepared, Decision], Prepared | None]
"""What may be resolved anew of a stored event; None for nothing."""


class Shadow:
    """Recorded events before and now.

    Attributes:
        graph: The graph that the events make now.
        events: How many events were resolved.
        same: Number of events in a part that are in it before and now.
        moved: Number of events by (part before, part now), when these differ; "" for nobody.
        found: Message ids of events that belonged to nobody and have a part now, by part.
        nobodys: Message ids of events that belong to nobody before and now, decided differently.
        differing: Parts now (before, for events of nobody) with events that were decided differently.
        ties: (part, part) of now, where an event of the first carried an identifier that the second holds.
    """

    def __init__(
        self, rules: Rules, version: int, links: Links = NO_LINKS, keep: Keep = lambda prepared, _: prepared
    ) -> None:
        """Nothing has been resolved yet.

        Args:
            rules: Rules for all events.
            version: Their version; -1 for rules that are not in force.
            links: Manual links of the workspace.
            keep: Leaves out what tombstones name.
        """
        self._rules = rules
        self._version = version
        self._links = links
        self._keep = keep
        self._into: dict[str, str] = {}
        self._created = 0
        self.graph = Graph()
        self.events = 0
        self.same: Counter[str] = Counter()
        self.moved: Counter[tuple[str, str]] = Counter()
        self.found: dict[str, list[str]] = {}
        self.nobodys: list[str] = []
        self.differing: set[str] = set()
        self.ties: set[tuple[str, str]] = set()

    @property
    def profiles_before(self) -> int:
        """Number of profiles before."""
        return self._created - len(self._into)

    def profiles_now(self) -> int:
        """Number of profiles now."""
        return sum(profile.merged_into is None for profile in self.graph.profiles.values())

    def root_before(self, part: str) -> str:
        """The profile that a part belonged to."""
        while part in self._into:
            part = self._into[part]
        return part

    def root_now(self, part: str) -> str:
        """The profile that a part belongs to now."""
        return self.graph.root(part).id

    def merges(self) -> Iterator[tuple[str, str]]:
        """(loser, survivor) of every merge before or now."""
        yield from self._into.items()
        for profile in self.graph.profiles.values():
            if profile.merged_into is not None:
                yield profile.id, profile.merged_into

    def add(self, documents: Iterable[Document]) -> None:
        """Resolve stored events, in recorded order, after all that were added before."""
        for document in documents:
            self._add(document)

    def _add(self, document: Document) -> None:
        self.events += 1
        before = Decision.FromString(document["d"])
        old_part: str = document["p"]
        if before.action == _CREATED:
            self._created += 1
        for merge in before.merges:
            self._into[merge.loser] = merge.survivor
        event = Event.FromString(document["e"])
        for field in ("traits", "context", "properties"):  # what they hold identifies nobody
            event.ClearField(field)
        prepared = self._keep(prepare(event, self._rules), before)
        if prepared is None:
            return
        part, now = resolve(self.graph, self._rules, prepared, document["s"], Changes(), self._links)
        if part == old_part:
            if part:
                self.same[part] += 1
        else:
            self.moved[old_part, part] += 1
            if not old_part:
                self.found.setdefault(part, []).append(event.message_id)
        if not self._equal(document["d"], before, now):
            if part or old_part:
                self.differing.add(part or old_part)
            else:
                self.nobodys.append(event.message_id)
        if part:
            self._tie(part, before, now)

    def _equal(self, serialised: bytes, before: Decision, now: Decision) -> bool:
        """Whether two decisions say the same.

        Workers that were quicker than each other may have seen another of several broken rules first: under the same
        rules that is no difference.
        """
        now.rules_version = before.rules_version
        if now.SerializeToString() == serialised:
            return True
        same_rules = before.rules_version == self._version
        return _essence(before, with_rules=not same_rules) == _essence(now, with_rules=not same_rules)

    def _tie(self, part: str, before: Decision, now: Decision) -> None:
        for decision in (before, now):
            for aside in decision.set_aside:
                if aside.action == "demoted":
                    holder = self.graph.holders.get((aside.identifier.namespace, aside.identifier.value))
                    if holder is not None and holder != part:
                        self.ties.add((part, holder))
            for handover in decision.handovers:
                if handover.from_profile in self.graph.profiles:
                    self.ties.add((part, handover.from_profile))


def _essence(decision: Decision, *, with_rules: bool) -> tuple[object, ...]:
    return (
        decision.action,
        decision.rule,
        [(i.namespace, i.value) for i in decision.identifiers],
        [
            (s.identifier.namespace, s.identifier.value, s.action, s.rule if with_rules else "")
            for s in decision.set_aside
        ],
        [(m.loser, m.survivor, sorted(m.loser_parts)) for m in decision.merges],
        [(h.identifier.namespace, h.identifier.value, h.from_profile) for h in decision.handovers],
        decision.stems_from,
    )
