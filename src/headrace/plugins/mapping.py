"""Mappings: expressions that fill a connector's fields from profiles and events. Pure.

A mapping is a JSON object: field of the connector -> JMESPath expression over

    {"profile": {"id", "identifiers": {namespace: [values]}, "traits": {...}},
     "event": {"message_id", "type", "name", "timestamp", "received_at", "identifiers", "properties", ...}}

with the functions of `headrace.plugins.functions` besides JMESPath's own. A field that is not in it gets the default of
the connector's manifest; null switches a field off. `event` is null in list syncs.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from headrace.connector import wire
from headrace.plugins.functions import MappingFunctions, as_text
from headrace_sdk import EventItem, Field, Profile

_NEAR = 0.6
_LONGEST_EXPRESSION = 2_000
_PLAIN_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_FALSE: tuple[Any, ...] = (None, False, "", [], {})
_OPTIONS = jmespath.Options(custom_functions=MappingFunctions())

Document = Mapping[str, Any]
Expression = Callable[[Document], Any]


class MappingError(ValueError):
    """A mapping that cannot be used, or that fails on an item. The text holds no value of a person.

    Attributes:
        field: Name of the connector's field, empty when it is about the mapping as a whole.
        reason: One sentence.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """How one field is filled."""

    field: Field
    source: str
    expression: Expression


class CompiledMapping:
    """A mapping that was checked against a connector.

    Attributes:
        fields: How each field is filled, in the connector's order; fields without an expression are not among them.
    """

    def __init__(self, fields: tuple[FieldMapping, ...]) -> None:
        """Made by compile_mapping."""
        self.fields = fields

    def member_fields(self, profile: Profile) -> dict[str, str | list[str]]:
        """Values of `Member.fields`: text, or a list of texts for fields that take many. Empty values are left out.

        Raises:
            MappingError: An expression fails on this profile, or gives an object where text is due.
        """
        document = {"profile": profile.document(), "event": None}
        found: dict[str, str | list[str]] = {}
        for mapped in self.fields:
            texts = _texts(mapped.field.name, _evaluate(mapped, document))
            if mapped.field.many and texts:
                found[mapped.field.name] = texts
            elif texts:
                found[mapped.field.name] = texts[0]
        return found

    def event_fields(self, event: EventItem) -> dict[str, Any]:
        """Values of `EventItem.fields`: any JSON. Nulls are left out. The profile is that of the item.

        Raises:
            MappingError: An expression fails on this event.
        """
        if not self.fields:
            return {}
        document = {"profile": event.profile.document() if event.profile else None, "event": event.document()}
        found = {mapped.field.name: _evaluate(mapped, document) for mapped in self.fields}
        return {name: value for name, value in found.items() if value is not None}

    def values(self, document: Document) -> dict[str, Any]:
        """What each expression gives for a document, nulls included.

        Raises:
            MappingError: An expression fails on it.
        """
        return {mapped.field.name: _evaluate(mapped, document) for mapped in self.fields}

    def sources(self) -> dict[str, str]:
        """The expression of each field, defaults included, for display."""
        return {mapped.field.name: mapped.source for mapped in self.fields}


def compile_mapping(mapping: str | Mapping[str, Any] | None, connector: wire.ConnectorInfo) -> CompiledMapping:
    """Check a mapping against a connector and make it ready.

    Args:
        mapping: Field name -> expression (or null), as an object or as JSON text; None or "" for the defaults alone.
        connector: The connector.

    Raises:
        MappingError: The first thing that is wrong; it names the field.
    """
    given = _object(mapping)
    known = {field.name: field for field in connector.fields}
    for name in given:
        if name not in known:
            offered = ", ".join(known) or "none"
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=_NEAR)
            hint = f" (did you mean {near[0]}?)" if near else ""
            reason = f"connector {connector.name!r} has no such field{hint}; it has: {offered}"
            raise MappingError(str(name), reason)
    mapped = []
    for field in connector.fields:
        source = given.get(field.name, field.default)
        if source is not None and not isinstance(source, str):
            raise MappingError(field.name, "an expression must be text (or null for no value)")
        if source and source.strip():
            mapped.append(FieldMapping(field, source, compile_expression(field.name, source)))
        elif field.required:
            raise MappingError(field.name, "is required and has no expression")
    return CompiledMapping(tuple(mapped))


def compile_expression(field: str, source: str) -> Expression:
    """An expression as a function of the document.

    Args:
        field: Named in errors.
        source: JMESPath.

    Raises:
        MappingError: It is no expression, or calls an unknown function, or reads neither `profile` nor `event`.
    """
    if len(source) > _LONGEST_EXPRESSION:
        raise MappingError(field, f"the expression is longer than {_LONGEST_EXPRESSION} characters")
    alternatives = [part.strip() for part in source.split("||")]
    if all(_PLAIN_PATH.fullmatch(part) for part in alternatives):
        return _first_of([_path(field, tuple(part.split("."))) for part in alternatives])
    try:
        parsed = jmespath.compile(source)
        parsed.search({"profile": None, "event": None}, options=_OPTIONS)
    except JMESPathError as error:
        # Types can only be judged on real values; everything else is wrong for all of them.
        if type(error).__name__ != "JMESPathTypeError":
            raise MappingError(field, f"not a valid expression: {_first_line(error)}") from None
    except RecursionError:
        raise MappingError(field, "the expression is nested too deeply") from None
    return lambda document: parsed.search(document, options=_OPTIONS)


def _first_of(paths: list[Expression]) -> Expression:
    """The first value that JMESPath holds for true, else the last one."""
    if len(paths) == 1:
        return paths[0]

    def find(document: Document) -> Any:
        value = None
        for path in paths:
            value = path(document)
            if value is not False and (value == 0 or value not in _FALSE):
                return value
        return value

    return find


def _path(field: str, steps: tuple[str, ...]) -> Expression:
    """The same as JMESPath for the commonest expressions, a path of names, at a tenth of the time."""
    if steps[0] not in ("profile", "event"):
        raise MappingError(field, f"{steps[0]!r} is not known: an expression starts at profile or event")

    def walk(document: Document) -> Any:
        value: Any = document
        for step in steps:
            if type(value) is not dict and not isinstance(value, Mapping):  # the common case first: it is the cheap one
                return None
            value = value.get(step)
        return value

    return walk


def _evaluate(mapped: FieldMapping, document: Document) -> Any:
    try:
        return mapped.expression(document)
    except JMESPathError as error:
        # The error's own text quotes the value.
        reason = "a function is given a value of a type it cannot take"
        if type(error).__name__ != "JMESPathTypeError":
            reason = "the expression cannot be computed"
        raise MappingError(mapped.field.name, reason) from None
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        raise MappingError(mapped.field.name, "the expression cannot be computed") from None


def _texts(field: str, value: Any) -> list[str]:
    """A value as the texts in it, in order, without empty and repeated ones."""
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    texts = [item if type(item) is str else as_text(item) for item in values if item is not None]
    if not all(isinstance(text, str) for text in texts):
        raise MappingError(field, "the expression gives an object or a list of lists where text is due")
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _object(mapping: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if mapping is None:
        return {}
    if isinstance(mapping, str):
        if not mapping.strip():
            return {}
        try:
            mapping = json.loads(mapping)
        except (ValueError, RecursionError):
            raise MappingError("", "the mapping is no JSON") from None
    if not isinstance(mapping, Mapping):
        raise MappingError("", "the mapping must be an object: field -> expression")
    return mapping


def _first_line(error: JMESPathError) -> str:
    return str(error).strip().partition("\n")[0][:200]
