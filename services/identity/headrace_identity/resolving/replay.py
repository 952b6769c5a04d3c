"""Resolves a whole sequence of events in memory: what the rules make of it, without any store.

Offline use, tests, and the reference that the service is compared with: replaying the recorded order
gives the same graph with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import DecisionAction
from headrace.domain.consent import ConsentValue, newest
from headrace_identity.resolving.graph import Changes, Graph, TraitValue, union_of_traits
from headrace_identity.resolving.links import NO_LINKS, Links
from headrace_identity.resolving.resolver import Resolution, prepare, resolve
from headrace_identity.resolving.rules import Identifier, Rules

ACTION_NAMES = {
    DecisionAction.DECISION_ACTION_CREATED: "created",
    DecisionAction.DECISION_ACTION_ATTACHED: "attached",
    DecisionAction.DECISION_ACTION_MERGED: "merged",
    DecisionAction.DECISION_ACTION_UNIDENTIFIED: "unidentified",
}


@dataclass(slots=True)
class Replay:
    """The graph that a sequence of events made, and the decision on each message id, in order."""

    graph: Graph = field(default_factory=Graph)
    resolutions: dict[str, Resolution] = field(default_factory=dict)

    def root_of(self, message_id: str) -> str:
        """Id of the profile that a message belongs to after all; "" when it is unidentified."""
        part = self.resolutions[message_id].profile_id
        return self.graph.root(part).id if part else ""

    def roots(self) -> list[str]:
        """Ids of the profiles that were not merged into others, in order of creation."""
        alive = [p for p in self.graph.profiles.values() if p.merged_into is None]
        return [p.id for p in sorted(alive, key=lambda p: (p.created, p.id))]

    def identifiers(self, root_id: str) -> list[Identifier]:
        """Identifiers of a profile, sorted."""
        return sorted(self.graph.profiles[root_id].identifiers)

    def traits(self, root_id: str) -> dict[str, TraitValue]:
        """Traits of a profile over its parts, by name."""
        return union_of_traits(self.graph.profiles[part] for part in self.graph.profiles[root_id].parts)

    def consents(self, root_id: str) -> dict[str, ConsentValue]:
        """Consents of a profile over its parts, by purpose."""
        graph = self.graph
        return newest(graph.profiles[part].consents for part in graph.profiles[root_id].parts)


def replay(
    events: Iterable[Event], rules: Rules, sequences: Iterable[int] | None = None, links: Links = NO_LINKS
) -> Replay:
    """Resolve events one after the other; a message id that came before changes nothing.

    Args:
        events: Events of one workspace, in order.
        rules: Rules of the workspace.
        sequences: Recorded sequence of each event; their places when not given.
        links: Manual links of the workspace.

    Raises:
        ValueError: An event's traits or context are no JSON object.
    """
    result = Replay()
    numbers = iter(sequences) if sequences is not None else None
    for place, event in enumerate(events, start=1):
        sequence = place if numbers is None else next(numbers)
        if event.message_id not in result.resolutions:
            prepared = prepare(event, rules)
            result.resolutions[event.message_id] = resolve(result.graph, rules, prepared, sequence, Changes(), links)
    return result


def as_json(result: Replay) -> dict[str, Any]:
    """The result as `headrace identity replay --json` prints it."""
    messages: dict[str, list[str]] = {root: [] for root in result.roots()}
    for message_id in result.resolutions:
        root = result.root_of(message_id)
        if root:
            messages[root].append(message_id)
    profiles = [
        {
            "id": root,
            "identifiers": [list(identifier) for identifier in result.identifiers(root)],
            "traits": {name: msgspec.json.decode(t.value) for name, t in result.traits(root).items()},
            "message_ids": message_ids,
        }
        | ({"consents": {p: c.status for p, c in said.items()}} if (said := result.consents(root)) else {})
        for root, message_ids in messages.items()
    ]
    decisions = [
        {
            "message_id": message_id,
            "action": ACTION_NAMES[resolution.decision.action],
            "profile": resolution.profile_id,
            "rule": resolution.decision.rule,
            "identifiers": [[i.namespace, i.value] for i in resolution.decision.identifiers],
            "set_aside": [
                {"identifier": [s.identifier.namespace, s.identifier.value], "action": s.action, "rule": s.rule}
                for s in resolution.decision.set_aside
            ],
            "handovers": [
                {"identifier": [h.identifier.namespace, h.identifier.value], "from_profile": h.from_profile}
                for h in resolution.decision.handovers
            ],
            "stems_from": resolution.decision.stems_from,
        }
        for message_id, resolution in result.resolutions.items()
    ]
    return {"profiles": profiles, "decisions": decisions}
