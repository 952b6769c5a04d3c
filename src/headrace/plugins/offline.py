"""Events and members from NDJSON files, for dry runs: both spellings of names (messageId, message_id) are taken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.domain.consent import DENIED, GRANTED
from headrace.domain.times import parse_time_us
from headrace_sdk import EventItem, Profile

_KINDS = frozenset({"identify", "track", "page", "screen", "group", "alias"})
_OWN_MEMBERS = frozenset({"identifiers", "traits", "fields", "profile", "consents", "action"})
_LONGEST_LINE = 10_000_000


class InputError(ValueError):
    """A line of an input file that cannot be used.

    Attributes:
        line: Its number, from 1.
        reason: One sentence without its values.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class MemberLine:
    """A member of an audience, as a file has it.

    Attributes:
        id: What it is called in the result.
        profile: Identifiers and traits, which the mapping reads.
        fields: Fields of the connector that are given as they are; they win over the mapping.
        remove: True when it is to be taken off the list.
    """

    id: str
    profile: Profile
    fields: Mapping[str, Any]
    remove: bool


def read_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of an NDJSON file with their line numbers; empty lines are skipped.

    Raises:
        InputError: A line is no JSON object.
    """
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if len(text) > _LONGEST_LINE:
            raise InputError(number, f"is longer than {_LONGEST_LINE} characters")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(number, "is no JSON") from None
        if not isinstance(value, dict):
            raise InputError(number, "is no JSON object")
        yield number, value


def read_events(lines: Iterable[str], *, now_us: int) -> list[EventItem]:
    """Events in Segment's form. Without a "profile" of its own, an event gets one made of its identifiers and traits.

    Args:
        lines: The file.
        now_us: Time of events that have none, in microseconds. An event that does not say when it was received was so
            when it happened.

    Raises:
        InputError: A line is no event.
    """
    return [_event(number, value, now_us) for number, value in read_lines(lines)]


def read_members(lines: Iterable[str], *, field_names: Iterable[str]) -> list[MemberLine]:
    """Members: {"id", "identifiers": {namespace: value or values}, "traits", "fields", "action": "add" or "remove"}.

    A member called like a field of the connector ("email") at the top is taken as that field, but for these.

    Args:
        lines: The file.
        field_names: Fields of the connector.

    Raises:
        InputError: A line is no member.
    """
    names = frozenset(field_names)
    return [_member(number, value, names) for number, value in read_lines(lines)]


def _event(number: int, value: dict[str, Any], now_us: int) -> EventItem:
    kind = _text(number, value, "type", "kind") or "track"
    if kind not in _KINDS:
        raise InputError(number, f"type must be one of {', '.join(sorted(_KINDS))}")
    name = _text(number, value, "event", "name")
    if kind == "track" and not name:
        raise InputError(number, "a track event needs a name in event")
    identifiers = _identifiers(number, value.get("identifiers"))
    for namespace, spelled in (("user_id", "userId"), ("anonymous_id", "anonymousId")):
        single = _text(number, value, namespace, spelled)
        if single and single not in identifiers.setdefault(namespace, []):
            identifiers[namespace].append(single)
    identifiers = {namespace: values for namespace, values in identifiers.items() if values}
    context = _object(number, value, "context")
    traits = _object(number, value, "traits") or _object(number, context, "traits")
    timestamp_us = _time(number, value, now_us, "timestamp", "originalTimestamp", "original_timestamp")
    return EventItem(
        message_id=_text(number, value, "message_id", "messageId") or f"line-{number}",
        kind=kind,
        name=name,
        timestamp_us=timestamp_us,
        received_at_us=_time(number, value, timestamp_us, "received_at", "receivedAt"),
        source_id=_text(number, value, "source_id"),
        identifiers=identifiers,
        group_id=_text(number, value, "group_id", "groupId"),
        previous_id=_text(number, value, "previous_id", "previousId"),
        traits=traits,
        properties=_object(number, value, "properties"),
        context=context,
        profile=_profile_of_event(number, value, identifiers, traits),
        traceparent=_text(number, value, "traceparent"),
    )


def _profile_of_event(
    number: int, value: dict[str, Any], identifiers: Mapping[str, list[str]], traits: dict[str, Any]
) -> Profile | None:
    given = value.get("profile")
    if isinstance(given, dict):
        return _profile(number, given, _text(number, given, "id", "profile_id"))
    found = {namespace: list(values) for namespace, values in identifiers.items()}
    for namespace in ("email", "phone"):
        trait = traits.get(namespace)
        if isinstance(trait, str) and trait and trait not in found.setdefault(namespace, []):
            found[namespace].append(trait)
    found = {namespace: values for namespace, values in found.items() if values}
    return Profile(id="", identifiers=found, traits=traits) if found else None


def _member(number: int, value: dict[str, Any], names: frozenset[str]) -> MemberLine:
    inner = value.get("profile")
    described = inner if isinstance(inner, dict) else value
    fallback = inner if isinstance(inner, str) else ""
    # An id that is also a field of the connector ("user_id") names the member when nothing else does.
    identity = _text(number, value, "id", "profile_id", "message_id", "messageId") or fallback
    identity = identity or _text(number, described, "id", "profile_id") or f"line-{number}"
    action = _text(number, value, "action") or "add"
    if action not in ("add", "remove"):
        raise InputError(number, 'action must be "add" or "remove"')
    fields = {name: field for name, field in value.items() if name in names - _OWN_MEMBERS}
    fields |= _object(number, value, "fields")
    for name, field in fields.items():
        if name not in names:
            raise InputError(number, f"the connector has no field {name!r}")
        if not _is_field_value(field):
            raise InputError(number, f"field {name!r} must be text or a list of texts")
    present = {name: field for name, field in fields.items() if field not in (None, "", [])}
    return MemberLine(identity, _profile(number, described, identity), present, remove=action == "remove")


def _is_field_value(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _profile(number: int, value: dict[str, Any], identity: str) -> Profile:
    return Profile(
        id=identity,
        identifiers=_identifiers(number, value.get("identifiers")),
        traits=_object(number, value, "traits"),
        consents=_consents(number, value),
    )


def _consents(number: int, value: Mapping[str, Any]) -> dict[str, str]:
    """What the person said about purposes, as profiles have it."""
    found = _object(number, value, "consents")
    if any(status not in (GRANTED, DENIED) for status in found.values()):
        raise InputError(number, f'consents must be "{GRANTED}" or "{DENIED}" by purpose')
    return found


def _identifiers(number: int, value: Any) -> dict[str, list[str]]:
    """Identifiers as {namespace: value or values}, [[namespace, value], ...] or [{"namespace", "value"}, ...]."""
    found: dict[str, list[str]] = {}
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        for namespace, given in value.items():
            pairs += [(namespace, item) for item in (given if isinstance(given, list) else [given])]
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                pairs.append((item.get("namespace"), item.get("value")))
            elif isinstance(item, list) and len(item) == 2:
                pairs.append((item[0], item[1]))
            else:
                raise InputError(number, "identifiers must be pairs of namespace and value")
    elif value is not None:
        raise InputError(number, "identifiers must be an object or a list of pairs")
    for namespace, item in pairs:
        if not isinstance(namespace, str) or not isinstance(item, str | int) or isinstance(item, bool):
            raise InputError(number, "identifiers must be texts")
        if str(item).strip():
            found.setdefault(namespace, []).append(str(item))
    return found


def _text(number: int, value: Mapping[str, Any], *names: str) -> str:
    """The first of the members that is there, as text; empty when none is."""
    for name in names:
        found = value.get(name)
        if isinstance(found, str):
            return found
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        if found is not None and not isinstance(found, dict | list):
            raise InputError(number, f"{name} must be text")
    return ""


def _object(number: int, value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(number, f"{name} must be an object")
    return found


def _time(number: int, value: Mapping[str, Any], default_us: int, *names: str) -> int:
    for name in names:
        found = value.get(name)
        if isinstance(found, str):
            try:
                return parse_time_us(found)
            except (ValueError, OverflowError):
                raise InputError(number, f"{name} is no ISO 8601 time") from None
        if found is not None:
            raise InputError(number, f"{name} must be an ISO 8601 time")
    return default_us
