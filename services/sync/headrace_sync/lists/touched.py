"""Which events may have changed what a list holds of a person: their profile's identifiers or traits. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.api.identity.v1.profile_pb2 import Merge, ResolvedEvent

_KEPT = 100_000


@dataclass(slots=True)
class Found:
    """Profiles that may have changed.

    Attributes:
        profiles: Their ids.
        seen: What told it; to be remembered once the profiles are marked.
    """

    profiles: set[str] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)


class Touched:
    """Finds profiles that changed; remembers the identifiers it saw together, which most events only repeat."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()

    def find(self, events: Iterable[ResolvedEvent], merges: Iterable[Merge]) -> Found:
        """Profiles whose identifiers or traits may be new; found again until they are remembered."""
        found = Found({merge.survivor for merge in merges})
        for resolved in events:
            if resolved.profile_id and self._may_change(resolved, found.seen):
                found.profiles.add(resolved.profile_id)
            found.profiles.update(merge.survivor for merge in resolved.decision.merges)
            for handover in resolved.decision.handovers:  # one lost an identifier, the other got it
                found.profiles |= {handover.from_profile, resolved.profile_id}
        return found

    def remember(self, found: Found) -> None:
        """The profiles are marked where they have to be: the same identifiers together tell nothing new."""
        for key in found.seen:
            self._seen[key] = None
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)

    def _may_change(self, resolved: ResolvedEvent, seen: set[int]) -> bool:
        event = resolved.event
        # A group's traits are not the person's.
        if event.traits and event.kind != EventKind.EVENT_KIND_GROUP:
            return True
        identifiers = resolved.decision.identifiers
        if len(identifiers) < 2:
            return False  # it found the profile by its only identifier, or made the profile
        key = hash((resolved.profile_id, *sorted((i.namespace, i.value) for i in identifiers)))
        if key in self._seen:
            self._seen.move_to_end(key)
            return False
        seen.add(key)
        return True
