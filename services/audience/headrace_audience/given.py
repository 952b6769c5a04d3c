"""Definitions as callers give them: read, or refused with the place of the fault."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches

from headrace.domain.definitions import DefinitionError
from headrace.rpc.errors import invalid_argument
from headrace_audience.language.definition import Definition
from headrace_audience.language.places import places_of
from headrace_audience.language.sense import parse_given
from headrace_audience.language.text.reading import TextError, definition_json


def as_json(definition: str, field: str = "audience.definition") -> str:
    """The JSON of a definition that may be in text form. Raises ApiError INVALID_ARGUMENT that names the place."""
    try:
        return definition_json(definition, parse_given) if definition else definition
    except TextError as error:
        raise invalid_argument(field, str(error)) from None


def parse(definition: str, field: str = "audience.definition") -> Definition:
    """A definition from JSON. Raises ApiError INVALID_ARGUMENT that names the place."""
    if not definition:
        raise invalid_argument(field, "is required: a definition as JSON")
    try:
        parsed = parse_given(definition)
    except DefinitionError as error:
        raise definition_fault(error, field) from None
    return parsed


def definition_fault(error: DefinitionError, field: str = "audience.definition") -> Exception:
    """The error that a caller gets for a wrong definition: the field is the place in it."""
    return invalid_argument(f"{field}.{error.path}" if error.path else field, error.reason)


def check_known(
    source: str, known: Mapping[str, Definition], parsed: Definition, field: str = "audience.definition"
) -> None:
    """Refuse a definition that names an audience that does not exist.

    Raises:
        ApiError: INVALID_ARGUMENT that names the place of each.
    """
    unknown = parsed.references - known.keys()
    if not unknown:
        return
    for path, audience_id in places_of(json.loads(source), "audience"):
        if audience_id in unknown:
            close = get_close_matches(audience_id, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise invalid_argument(f"{field}.{path}", f"there is no audience {audience_id!r} in this workspace{hint}")
    raise AssertionError("a reference stands somewhere in the definition")
