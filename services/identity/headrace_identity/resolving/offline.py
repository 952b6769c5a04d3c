"""`headrace identity replay`: what identity rules make of a file of events, without any store.

The events are Segment-spec messages, one JSON object a line. Which of their fields are identifiers is what ingest
takes from such messages: userId, anonymousId, email and phone among the traits, and the external ids of the context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.domain import segment
from headrace.domain.identifiers import ANONYMOUS_ID, USER_ID
from headrace.domain.times import parse_time_us
from headrace_identity.resolving.links import NO_LINKS, Links, ManualLink
from headrace_identity.resolving.replay import as_json, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier, Rules, parse_text

WORKSPACE = "offline"
"""Workspace of events that are replayed offline; profile ids derive from it and the message ids."""

_KINDS = {
    "identify": EventKind.EVENT_KIND_IDENTIFY,
    "track": EventKind.EVENT_KIND_TRACK,
    "page": EventKind.EVENT_KIND_PAGE,
    "screen": EventKind.EVENT_KIND_SCREEN,
    "group": EventKind.EVENT_KIND_GROUP,
    "alias": EventKind.EVENT_KIND_ALIAS,
}
_TIMES = ("timestamp", "originalTimestamp", "receivedAt", "sentAt")


class LineError(ValueError):
    """A line that is no event; `line` counts from 1, `description` says what is wrong without quoting values."""

    def __init__(self, line: int, description: str) -> None:
        super().__init__(f"line {line}: {description}")
        self.line = line
        self.description = description


class LinksError(ValueError):
    """Manual links that cannot be used; the text names the place, as "[1].first"."""


def replay_lines(
    rules: str | bytes | None, lines: Iterable[str | bytes], links: str | bytes | None = None
) -> dict[str, Any]:
    """Resolve a file of events.

    Args:
        rules: Identity rules as JSON text; None means the default rules.
        lines: One Segment-spec message each, in order of arrival; empty lines are passed over. A message without
            messageId is named after its line, one without a time has that of the message before it.
        links: Manual links as JSON text: [{"kind": "together" or "apart", "first": [namespace, value], "second":
            [namespace, value]}, ...]; None means none. Their ids are "1", "2", ... unless they have an "id".

    Returns:
        {"profiles": [...], "decisions": [...]}, ready for JSON.

    Raises:
        RulesError: The rules cannot be used; it names the field.
        LineError: A line is no event; it names the line.
        LinksError: The links cannot be used; it names the place.
    """
    parsed = DEFAULT_RULES if rules is None else parse_text(rules)
    forced = NO_LINKS if links is None else read_links(links, parsed)
    return as_json(replay(read_events(lines), parsed, links=forced))


def read_links(text: str | bytes, rules: Rules) -> Links:
    """Manual links from JSON text, as `replay_lines` takes them.

    Raises:
        LinksError: They cannot be used, or contradict each other; it names the place.
    """
    try:
        items = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise LinksError("the links are no JSON") from None
    if not isinstance(items, list):
        raise LinksError("must be a list")
    links = NO_LINKS
    for number, item in enumerate(items):
        place = f"[{number}]"
        kind = item.get("kind") if isinstance(item, Mapping) else None
        if kind not in ("together", "apart"):
            raise LinksError(f"{place}.kind must be together or apart")
        link = ManualLink(
            str(item.get("id", number + 1)),
            kind,
            _linked(item.get("first"), f"{place}.first", rules),
            _linked(item.get("second"), f"{place}.second", rules),
        )
        if link.id in links.by_id:
            raise LinksError(f"{place}.id stands twice")
        chain = links.contradiction(link)
        if chain is not None:
            raise LinksError(f"{place} contradicts {', '.join(chain) or 'itself'}")
        links = Links([*links.by_id.values(), link])
    return links


def _linked(pair: object, place: str, rules: Rules) -> Identifier:
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, str) for side in pair)):
        raise LinksError(f"{place} must be [namespace, value]")
    namespace, value = pair
    checked = rules.check(namespace, value)
    if checked.rule:
        raise LinksError(f"{place} identifies nobody, by the rules ({checked.rule})")
    return namespace, checked.value


class _Wrong(ValueError):
    """A message that is no event; the text may be shown."""


def read_events(lines: Iterable[str | bytes]) -> list[Event]:
    """Read Segment-spec messages, one a line.

    Raises:
        LineError: A line is no event; it names the line.
    """
    events: list[Event] = []
    time_us = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = event_of(msgspec.json.decode(line), default_id=f"line-{number}", default_time_us=time_us)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise LineError(number, "is no JSON") from None
        except _Wrong as error:
            raise LineError(number, str(error)) from None
        time_us = event.timestamp_us
        events.append(event)
    return events


def event_of(message: object, *, default_id: str = "", default_time_us: int = 0) -> Event:
    """The event in a decoded Segment-spec message.

    Args:
        message: The message.
        default_id: Message id of a message that has none.
        default_time_us: Event time of a message that has none, in microseconds.

    Raises:
        ValueError: It is none; the text names the field.
    """
    if not isinstance(message, Mapping):
        raise _Wrong("must be a JSON object")
    type_name = message.get("type")
    kind = _KINDS.get(type_name) if isinstance(type_name, str) else None
    if kind is None:
        raise _Wrong(f"type must be one of {', '.join(_KINDS)}")
    event = Event(
        message_id=_id_text(message, "messageId") or default_id,
        workspace_id=WORKSPACE,
        source_id=_id_text(message, "sourceId"),
        kind=kind,
        name=_id_text(message, "event") or _id_text(message, "name"),
        previous_id=_id_text(message, "previousId"),
        group_id=_id_text(message, "groupId"),
        timestamp_us=_time_us(message, default_time_us),
    )
    for field in ("traits", "properties", "context"):
        if (part := _object(message, field)) is not None:
            setattr(event, field, msgspec.json.encode(part))
    event.identifiers.extend(
        IdentifierMessage(namespace=namespace, value=value)
        for namespace, value in _identifiers(message, is_group=type_name == "group")
    )
    return event


def _identifiers(message: Mapping[str, Any], *, is_group: bool) -> segment.Found:
    """The same as ingest finds, by the same code."""
    found: segment.Found = {}
    for namespace, field in ((USER_ID, "userId"), (ANONYMOUS_ID, "anonymousId")):
        if value := _id_text(message, field):
            found[namespace, value] = None
    if not is_group:  # the traits of a group call are the group's
        segment.of_traits(_object(message, "traits") or {}, found)
    try:
        segment.of_context(_object(message, "context") or {}, found)
    except segment.InvalidIdentifier as error:
        raise _Wrong(error.reason) from None
    return found


def _time_us(message: Mapping[str, Any], default_us: int) -> int:
    for field in _TIMES:
        text = message.get(field)
        if text is None:
            continue
        if not isinstance(text, str):
            raise _Wrong(f"{field} must be an ISO 8601 time")
        try:
            return parse_time_us(text)
        except ValueError:
            raise _Wrong(f"{field} must be an ISO 8601 time") from None
    return default_us


def _id_text(message: Mapping[str, Any], field: str) -> str:
    """A text or number of a message as text; "" when it is absent or null."""
    value = message.get(field)
    if value is None:
        return ""
    if not _is_scalar(value):
        raise _Wrong(f"{field} must be a text or a number")
    return segment.as_text(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _object(message: Mapping[str, Any], field: str) -> Mapping[str, Any] | None:
    value = message.get(field)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _Wrong(f"{field} must be a JSON object")
    return value
