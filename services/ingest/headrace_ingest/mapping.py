"""The mapping of a webhook source: what a body becomes, written as JSON. Pure functions.

See docs/guides/webhooks.md. A mapping is checked when the source is saved; applying it gives a message in the form of
the Segment spec, which then takes the same way as any other message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jmespath
import jmespath.exceptions
import msgspec
from jmespath.parser import ParsedResult

from headrace.domain.segment import InvalidIdentifier, check_namespace
from headrace_ingest.limits import MAX_IDENTIFIERS, MAX_NAME
from headrace_ingest.messages import KINDS
from headrace_ingest.refusal import Code, Refused

MAX_MAPPING = 16 * 1024
"""Characters of a mapping."""
_MAX_EXPRESSION = 500
_MAX_FIELDS = 200


class InvalidMapping(ValueError):
    """A mapping cannot be used; the text says which part of it and why."""


class _Spec(msgspec.Struct, forbid_unknown_fields=True):
    kind: str = "track"
    event: str = ""
    event_from: str = ""
    identifiers: dict[str, str] = {}
    traits: dict[str, str] | str = {}
    properties: dict[str, str] | str = {}
    timestamp: str = ""
    message_id: str = ""
    group_id: str = ""
    previous_id: str = ""
    each: str = ""
    when: str = ""


@dataclass(frozen=True)
class Mapping:
    """A checked mapping."""

    kind: str
    event: str
    scalars: dict[str, ParsedResult] = field(default_factory=dict)
    identifiers: dict[str, ParsedResult] = field(default_factory=dict)
    traits: dict[str, ParsedResult] | ParsedResult = field(default_factory=dict)
    properties: dict[str, ParsedResult] | ParsedResult = field(default_factory=dict)


def parse_mapping(text: str) -> Mapping:
    """Read and check a mapping.

    Raises:
        InvalidMapping: It is no JSON, has an unknown key, or an expression that is no JMESPath.
    """
    if len(text) > MAX_MAPPING:
        raise InvalidMapping(f"has at most {MAX_MAPPING} characters")
    try:
        spec = msgspec.json.decode(text.encode(), type=_Spec)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidMapping(f"is no mapping: {error}") from None
    if spec.kind not in KINDS:
        raise InvalidMapping("kind must be one of identify, track, page, screen, group and alias")
    if spec.event and spec.event_from:
        raise InvalidMapping("give event (a constant) or event_from (an expression), not both")
    if len(spec.event) > MAX_NAME:
        raise InvalidMapping(f"event has at most {MAX_NAME} characters")
    if spec.kind == "track" and not spec.event and not spec.event_from:
        raise InvalidMapping("a mapping of kind track needs event or event_from")
    if len(spec.identifiers) > MAX_IDENTIFIERS:
        raise InvalidMapping(f"identifiers has at most {MAX_IDENTIFIERS} entries")
    for namespace in spec.identifiers:
        try:
            check_namespace(namespace, "identifiers")
        except InvalidIdentifier as error:
            raise InvalidMapping(f"identifiers: {error.reason}") from None
    scalars = {
        name: _compile(getattr(spec, name), name)
        for name in ("event_from", "timestamp", "message_id", "group_id", "previous_id", "each", "when")
        if getattr(spec, name)
    }
    return Mapping(
        kind=spec.kind,
        event=spec.event,
        scalars=scalars,
        identifiers={n: _compile(e, f"identifiers.{n}") for n, e in spec.identifiers.items()},
        traits=_fields(spec.traits, "traits"),
        properties=_fields(spec.properties, "properties"),
    )


def records_of(mapping: Mapping, body: Any) -> list[Any]:
    """The parts of a body that become one event each: what `each` finds, else the body, or the items of an array.

    Raises:
        Refused: MAPPING_FAILED, when `each` finds no array.
    """
    expression = mapping.scalars.get("each")
    if expression is None:
        return body if isinstance(body, list) else [body]
    found = _search(expression, body, "each")
    if found is None:
        return []
    if not isinstance(found, list):
        raise Refused(Code.MAPPING_FAILED, "each must find an array.", "mapping.each")
    return found


def apply_mapping(mapping: Mapping, record: Any) -> dict[str, Any] | None:
    """The message that a record becomes; None when `when` says that it becomes none.

    Raises:
        Refused: MAPPING_FAILED, when an expression does not fit the record.
    """
    when = mapping.scalars.get("when")
    if when is not None:
        found = _search(when, record, "when")
        if found is None or found is False or found in ("", [], {}):  # as JMESPath counts: 0 is something
            return None
    message: dict[str, Any] = {"type": mapping.kind}
    for name, key in _SCALARS.items():
        expression = mapping.scalars.get(name)
        if expression is not None:
            message[key] = _search(expression, record, name)
    if mapping.event:
        message["event"] = mapping.event
    external: list[dict[str, Any]] = []
    for namespace, path in mapping.identifiers.items():
        value = _search(path, record, f"identifiers.{namespace}")
        if namespace in _ENVELOPE_IDS:
            message[_ENVELOPE_IDS[namespace]] = value
        elif value is not None:
            external.append({"type": namespace, "id": value})
    if external:
        message["context"] = {"externalIds": external}
    for name, fields in (("traits", mapping.traits), ("properties", mapping.properties)):
        part = _part(fields, record, name)
        if part:
            message[name] = part
    return message


_SCALARS = {
    "event_from": "event",
    "timestamp": "timestamp",
    "message_id": "messageId",
    "group_id": "groupId",
    "previous_id": "previousId",
}
_ENVELOPE_IDS = {"user_id": "userId", "anonymous_id": "anonymousId"}


def _part(fields: dict[str, ParsedResult] | ParsedResult, record: Any, name: str) -> dict[str, Any]:
    if isinstance(fields, dict):
        found = {key: _search(expression, record, f"{name}.{key}") for key, expression in fields.items()}
        return {key: value for key, value in found.items() if value is not None}
    value = _search(fields, record, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(Code.MAPPING_FAILED, f"{name} must find an object.", f"mapping.{name}")
    return value


def _fields(given: dict[str, str] | str, name: str) -> dict[str, ParsedResult] | ParsedResult:
    if isinstance(given, str):
        return _compile(given, name) if given else {}
    if len(given) > _MAX_FIELDS:
        raise InvalidMapping(f"{name} has at most {_MAX_FIELDS} entries")
    return {key: _compile(expression, f"{name}.{key}") for key, expression in given.items()}


def _compile(expression: str, name: str) -> ParsedResult:
    if len(expression) > _MAX_EXPRESSION:
        raise InvalidMapping(f"{name} has at most {_MAX_EXPRESSION} characters")
    try:
        return jmespath.compile(expression)
    except (jmespath.exceptions.JMESPathError, RecursionError):
        raise InvalidMapping(f"{name} is no JMESPath expression") from None


def _search(expression: ParsedResult, record: Any, name: str) -> Any:
    try:
        return expression.search(record)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError, RecursionError):
        raise Refused(
            Code.MAPPING_FAILED, f"The expression of {name} does not fit the message.", f"mapping.{name}"
        ) from None
