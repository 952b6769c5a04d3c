"""Members of audiences by the naive evaluator, over events as the platform's public methods return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent


def members_by_reference(
    definitions: Mapping[str, Mapping[str, Any]],
    audience_id: str,
    events: Mapping[str, Iterable[ResolvedEvent]],
    at_us: int,
) -> set[str]:
    """Profile ids of an audience's members.

    Args:
        definitions: JSON definitions of all audiences, by id.
        audience_id: The audience.
        events: Events by the profile that they belong to after all merges.
        at_us: The moment, in microseconds.
    """
    parsed = {id: parse_definition(raw) for id, raw in definitions.items()}
    resolved = []
    for profile, own in events.items():
        for event in own:
            copy = ResolvedEvent.FromString(event.SerializeToString())
            copy.profile_id = profile
            resolved.append(copy)
    return set(Reference(facts_of_resolved(resolved), parsed).members(parsed[audience_id], at_us))
