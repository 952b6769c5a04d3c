"""The difference between what is stored of the people concerned and what their events make now. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Document
from headrace.storage.mongo.log import Reassigned
from headrace_identity.demotions import Demotion
from headrace_identity.documents import profile_document, profile_from
from headrace_identity.reassign.anew import Anew
from headrace_identity.reassign.closure import Recorded
from headrace_identity.resolving.graph import Graph, Profile
from headrace_identity.resolving.rules import Identifier

CONFLICT_COUNTER = "g"
"""Field of documents that only makes transactions conflict; it is no part of what they say."""


@dataclass(slots=True)
class Stored:
    """What is stored of the people concerned, beside their events.

    Attributes:
        profiles: Documents of profiles, by id.
        holders: Who holds each identifier.
        demotions: Who carried one without holding it.
    """

    profiles: dict[str, Document] = field(default_factory=dict)
    holders: dict[Identifier, str] = field(default_factory=dict)
    demotions: set[Demotion] = field(default_factory=set)

    def graph(self) -> Graph:
        """The stored profiles and holders as a graph."""
        profiles = [profile_from(document) for document in self.profiles.values()]
        return Graph({p.id: p for p in profiles}, dict(self.holders))


class Moved(NamedTuple):
    """An event that is stored with another part or decision than it has now."""

    message_id: str
    part: str
    decision: bytes


@dataclass(slots=True)
class Plan:
    """What is to be written.

    Attributes:
        profiles: Documents of profiles to be put in place, by id.
        removed_profiles: Ids of profiles that are none any more.
        holders: Identifiers with who holds them now.
        freed: Identifiers that nobody holds any more.
        demotions: Demotions to be remembered.
        removed_demotions: Demotions to be forgotten.
        events: Events to be assigned anew.
        old_parts: Parts that had events which are no longer exactly theirs.
        changed_parts: Parts whose events are not exactly those that they had, old and new ones.
        affected: Every profile id for which something changed that others may keep, with what became of it.
        moved_events: Number of events whose profile (survivor) is another one.
    """

    profiles: dict[str, Document] = field(default_factory=dict)
    removed_profiles: list[str] = field(default_factory=list)
    holders: dict[Identifier, str] = field(default_factory=dict)
    freed: list[Identifier] = field(default_factory=list)
    demotions: set[Demotion] = field(default_factory=set)
    removed_demotions: set[Demotion] = field(default_factory=set)
    events: list[Moved] = field(default_factory=list)
    old_parts: set[str] = field(default_factory=set)
    changed_parts: set[str] = field(default_factory=set)
    affected: list[Reassigned] = field(default_factory=list)
    moved_events: int = 0

    @property
    def empty(self) -> bool:
        """Whether everything is stored as it is to be."""
        return not (
            self.profiles
            or self.removed_profiles
            or self.holders
            or self.freed
            or self.demotions
            or self.removed_demotions
            or self.events
        )


def difference(workspace_id: str, events: Iterable[Recorded], stored: Stored, anew: Anew) -> Plan:
    """What is to be written so that the store says what the events make now.

    Args:
        workspace_id: The workspace.
        events: All events concerned, as they are stored.
        stored: What else is stored of the people concerned.
        anew: What their events make now.
    """
    plan = Plan()
    graph = anew.graph
    for profile_id, profile in graph.profiles.items():
        document = profile_document(workspace_id, profile)
        known = stored.profiles.get(profile_id)
        if known is None or {k: v for k, v in known.items() if k != CONFLICT_COUNTER} != document:
            plan.profiles[profile_id] = document
    plan.removed_profiles = sorted(stored.profiles.keys() - graph.profiles.keys())
    plan.holders = {i: part for i, part in graph.holders.items() if stored.holders.get(i) != part}
    plan.freed = sorted(stored.holders.keys() - graph.holders.keys())
    plan.demotions = anew.demotions - stored.demotions
    plan.removed_demotions = stored.demotions - anew.demotions
    _assign(plan, events, stored.graph(), anew)
    return plan


def _assign(plan: Plan, events: Iterable[Recorded], before: Graph, anew: Anew) -> None:
    """Find which events are assigned anew, and for whom that changes something."""
    graph = anew.graph
    touched: set[str] = set()
    for event in events:
        message_id = event.resolved.event.message_id
        old_part = event.resolved.profile_id
        now = anew.assigned[message_id]
        old_root = _root(before, old_part)
        if now.part != old_part:
            plan.old_parts.add(old_part)
            plan.changed_parts |= {old_part, now.part}
        if now.part != old_part or now.serialised != event.decision:
            plan.events.append(Moved(message_id, now.part, now.serialised))
        new_root = _root(graph, now.part)
        if new_root != old_root:
            plan.moved_events += 1
            touched |= {old_root, new_root}
    plan.old_parts.discard("")
    plan.changed_parts.discard("")
    for profile_id in sorted(before.profiles.keys() | graph.profiles.keys()):
        old, new = before.profiles.get(profile_id), graph.profiles.get(profile_id)
        if profile_id not in touched and _view(old, before) == _view(new, graph):
            continue
        plan.affected.append(_reassigned(profile_id, new, graph))


def _root(graph: Graph, part: str) -> str:
    return graph.root(part).id if part in graph.profiles else ""


def _view(profile: Profile | None, graph: Graph) -> object:
    """What others may know of a profile, beside its events."""
    if profile is None:
        return None
    if profile.merged_into is not None:
        return graph.root(profile.id).id
    return frozenset(profile.parts), frozenset(profile.identifiers)


def _reassigned(profile_id: str, profile: Profile | None, graph: Graph) -> Reassigned:
    if profile is None:
        return Reassigned(profile_id, ())
    if profile.merged_into is not None:
        return Reassigned(profile_id, (), graph.root(profile_id).id)
    return Reassigned(profile_id, tuple(profile.parts))


def events_by_part(
    parts: Collection[str], events: Iterable[Recorded], anew: Anew
) -> Mapping[str, Sequence[ResolvedEvent]]:
    """The events of some parts as they are assigned now.

    Args:
        parts: The parts.
        events: All events concerned, in the recorded order, as they are stored.
        anew: What they make now.
    """
    found: dict[str, list[ResolvedEvent]] = defaultdict(list)
    for event in events:
        stored = event.resolved
        now = anew.assigned[stored.event.message_id]
        if now.part in parts:
            found[now.part].append(
                ResolvedEvent(
                    event=stored.event,
                    profile_id=now.part,
                    decision=now.decision,
                    resolved_at_us=stored.resolved_at_us,
                    segment_id=stored.segment_id,
                    segment_index=stored.segment_index,
                )
            )
    return found
