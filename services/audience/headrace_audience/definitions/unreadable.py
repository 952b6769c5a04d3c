"""Stored definitions that cannot be read: they were checked when saved, but a newer program may have written them.

Such an audience keeps its members as they are, as if it were paused, and everything else goes on. What it names is read
from its JSON all the same, so that nobody takes away what it needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.domain.definitions import DefinitionError
from headrace.rpc.errors import wrong_state
from headrace_audience.definitions.stored import definition_of
from headrace_audience.language.definition import All, AudienceMember, Condition, Definition, Members
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.places import places_of

UNREADABLE = "UNREADABLE"
"""What callers are told in place of its state."""


def fault_of(document: Mapping[str, Any]) -> str:
    """Why the definition of a document cannot be read; empty when it can."""
    try:
        definition_of(document)
    except DefinitionError as error:
        return str(error)
    return ""


def readable(document: Mapping[str, Any]) -> Definition | None:
    """The definition of a document, ready to be evaluated; None when it cannot be read."""
    try:
        return definition_of(document)
    except DefinitionError:
        return None


def understood(document: Mapping[str, Any]) -> Definition:
    """The same. Raises ApiError WRONG_STATE when it cannot be read."""
    try:
        return definition_of(document)
    except DefinitionError as error:
        raise _refusal(error) from None


def parsed(document: Mapping[str, Any]) -> Definition:
    """The definition of a document without what its computed traits mean. Raises ApiError as understood()."""
    try:
        return parse_definition(document["def"])
    except DefinitionError as error:
        raise _refusal(error) from None


def _refusal(error: DefinitionError) -> Exception:
    message = f"The stored definition cannot be read by this version of the service ({error}): give it another one."
    return wrong_state(UNREADABLE, message)


def kind_of_members(document: Mapping[str, Any]) -> str:
    """Whether an audience is of "people" or of "groups"."""
    return "groups" if _json_of(document).get("of") == "groups" else "people"


def stand_in(document: Mapping[str, Any]) -> Definition:
    """A definition that names the audiences that an unreadable one names; nothing else of it is known."""
    raw, of = _json_of(document), kind_of_members(document)
    named: list[Condition] = []
    for place, audience_id in places_of(raw, "audience"):
        member = AudienceMember(audience_id)
        # Inside of a condition on members people are meant.
        is_of_members = of == "groups" and place.count("where") > 1
        named.append(Members("any", member) if is_of_members else member)
    return Definition("dynamic", All(tuple(named)), of)


def _json_of(document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        raw = json.loads(document["def"])
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}
