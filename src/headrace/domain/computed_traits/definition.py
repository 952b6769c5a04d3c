"""Definitions of computed traits: from JSON to a frozen object, or an error that says where and what to do.

The JSON is described in docs/reference/computed-traits.md. Everything that computes starts from this object; nothing
else looks at the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.domain.definitions import (
    ALL_COUNT,
    TOO_LONG,
    DefinitionError,
    Predicate,
    check_keys,
    load_json,
    need_path,
    parse_duration,
    parse_event_names,
    parse_predicates,
)

COUNT = "count"
PROPERTY_FUNCTIONS = ("sum", "avg", "min", "max", "first", "last", "most_frequent", "unique_list")
"""What can be computed of a property; `count` needs none."""
FUNCTION_NAMES = (COUNT, *PROPERTY_FUNCTIONS)

MAX_DEFINITION_BYTES = 64 * 1024
MAX_PREDICATES = 50
MAX_NAMES = 100


@dataclass(frozen=True, slots=True)
class Definition:
    """What a computed trait computes of a person's events.

    Attributes:
        names: Names of the track events that count, in their stored spelling.
        where: What the properties of an event must pass, all of it.
        within_us: Only events with a time in (now - within_us, now] count, in microseconds; None: all up to now.
        function: One of FUNCTION_NAMES.
        path: Where the property is; empty for "count".
    """

    names: tuple[str, ...]
    where: tuple[Predicate, ...]
    within_us: int | None
    function: str
    path: tuple[str, ...]


def parse_definition(source: str | bytes | Mapping[str, Any]) -> Definition:
    """Read a definition from JSON text or from the parsed object.

    Raises:
        DefinitionError: It is no definition; the error names the place and says what to write instead.
    """
    raw = _load(source)
    if not isinstance(raw, Mapping):
        raise DefinitionError("", 'is no object such as {"event": "Purchased", "compute": "count"}')
    check_keys("", raw, allowed=("event", "where", "within", "compute"), required=("event", "compute"))
    names = parse_event_names("event", raw["event"])
    if len(names) > MAX_NAMES:
        raise DefinitionError("event", f"has more than {MAX_NAMES} names")
    where = parse_predicates("where", raw["where"]) if "where" in raw else ()
    if len(where) > MAX_PREDICATES:
        raise DefinitionError("where", f"has more than {MAX_PREDICATES} predicates")
    too_long = f"{TOO_LONG}; {ALL_COUNT}"
    within_us = parse_duration("within", raw["within"], too_long=too_long) if "within" in raw else None
    function, path = _compute(raw["compute"])
    return Definition(names, where, within_us, function, path)


def _load(source: str | bytes | Mapping[str, Any]) -> Any:
    return source if isinstance(source, Mapping) else load_json(source, MAX_DEFINITION_BYTES)


def _compute(raw: object) -> tuple[str, tuple[str, ...]]:
    functions = ", ".join(PROPERTY_FUNCTIONS)
    known = f'"count" or an object with one of {functions} and a property, such as {{"sum": "value"}}'
    if raw == COUNT:
        return COUNT, ()
    if not isinstance(raw, Mapping):
        raise DefinitionError("compute", f"must be {known}")
    check_keys("compute", raw, allowed=PROPERTY_FUNCTIONS, required=())
    if len(raw) != 1:
        raise DefinitionError("compute", f"must be {known}")
    ((function, path),) = raw.items()
    return function, need_path(f"compute.{function}", path)
