"""What a stored audience means: its definition, and those of the computed traits that it names, as of then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.domain.computed_traits.definition import Definition as ComputedDefinition
from headrace.domain.computed_traits.definition import parse_definition as parse_computed
from headrace_audience.language.computed import bind
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import FILLING, PAUSED

DEFINITION_FIELDS = {"def": 1, "computed": 1}
"""What definition_of() reads of a document."""
MEANING_FIELDS = {"state": 1, "pending.gen": 1, **DEFINITION_FIELDS}
"""The same, and what keeps_members() reads."""


def definition_of(document: Mapping[str, Any]) -> Definition:
    """The definition of an audience's document, ready to be evaluated. Raises DefinitionError."""
    definition = parse_definition(document["def"])
    return bind(definition, computed_of(document)) if definition.computed_traits else definition


def computed_of(document: Mapping[str, Any]) -> dict[str, ComputedDefinition]:
    """The definitions of computed traits that a document holds, which names some, by id. Raises DefinitionError."""
    return parsed_computed(document["computed"])


def parsed_computed(computed: Mapping[str, str]) -> dict[str, ComputedDefinition]:
    """Definitions of computed traits from their JSON, by id. Raises DefinitionError."""
    return {trait_id: parse_computed(text) for trait_id, text in computed.items()}


def keeps_members(document: Mapping[str, Any]) -> bool:
    """Whether the members of an audience stay as they are stored: paused, or until its new version is in their place.

    Reads `state` and whether there is something in `pending`.
    """
    return document["state"] == PAUSED or (document["state"] == FILLING and bool(document.get("pending")))
