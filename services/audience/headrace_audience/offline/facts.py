"""Facts: events as the offline evaluators take them, resolved to a profile and decoded.

They are made from the people of a case file, from NDJSON lines that name their profile, or from resolved events; the
command line gives events without a profile to the identity service's offline resolver first and brings the result here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1.profile_pb2 import Decision, ResolvedEvent
from headrace.domain.consent import statements_of
from headrace.domain.event_names import canonical
from headrace.domain.predicates import decode_object
from headrace.domain.times import parse_time_us
from headrace_audience.engine.touches import PARTS, touch_in, touch_parts
from headrace_audience.engine.traits import decoded_traits

KINDS = ("identify", "track", "page", "screen", "group", "alias")

SCHEMA = pa.schema(
    [
        ("profile", pa.string()),
        ("timestamp_us", pa.int64()),
        ("message_id", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("properties", pa.string()),
        ("traits", pa.string()),
        ("namespaces", pa.list_(pa.string())),
        ("consents", pa.string()),
        ("touch", pa.string()),
    ]
)


MENTIONS_SCHEMA = pa.schema(
    [
        ("group_id", pa.string()),
        ("profile", pa.string()),
        ("timestamp_us", pa.int64()),
        ("message_id", pa.string()),
        ("traits", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of one person.

    Attributes:
        profile: Id of the person, over all merges; empty for an event of nobody that names a group.
        timestamp_us: Event time.
        message_id: Equal ids are the same event.
        kind: One of KINDS.
        name: Name of a track event.
        properties: Decoded.
        traits: Traits of the person that it sets, decoded; None removes one.
        identifiers: (namespace, value) pairs with which it was resolved.
        consents: Purposes that it speaks of: whether each is granted.
        group_id: The group that it names.
        group_traits: Traits of that group that it sets, decoded.
        context: The parts of its context that say how it reached the person, see `engine.touches`.
    """

    profile: str
    timestamp_us: int
    message_id: str
    kind: str = "track"
    name: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    identifiers: tuple[tuple[str, str], ...] = ()
    consents: Mapping[str, bool] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    group_id: str = ""
    group_traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def touch(self) -> dict[str, Any]:
        """How it reached the person."""
        return touch_in(self.context)


class FactError(ValueError):
    """Input that makes no fact; the text says where and what is wrong."""


def facts_of_resolved(events: Iterable[ResolvedEvent], survivors: Mapping[str, str] | None = None) -> Iterator[Fact]:
    """Facts of resolved events, those of merged profiles under the survivor.

    Events of nobody give some only when they name a group.

    Args:
        events: The events.
        survivors: Survivor by the id of each merged profile, when `profile_id` is that of the time of resolving.
    """
    survivors = survivors or {}
    for resolved in events:
        profile = resolved.profile_id
        while profile in survivors:
            profile = survivors[profile]
        event = resolved.event
        if not profile and not event.group_id:
            continue
        is_group_call = event.kind == EventKind.EVENT_KIND_GROUP
        yield Fact(
            profile,
            event.timestamp_us,
            event.message_id,
            EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower(),
            event.name,
            decode_object(event.properties),
            decoded_traits(event),
            tuple((i.namespace, i.value) for i in resolved.decision.identifiers),
            statements_of(event),
            touch_parts(event),
            event.group_id,
            decode_object(event.traits) if is_group_call and event.group_id else {},
        )


def facts_of_people(people: Mapping[str, Any], at_us: int) -> Iterator[Fact]:
    """Facts of the `people` of a case: name -> list of track events, or {"traits", "events"}.

    Each person has the identifier user_id = name. Traits were set long ago: a microsecond before everything else of
    that person, and before `at_us`. Raises FactError.
    """
    for profile, content in people.items():
        place = f"people[{profile!r}]"
        traits, events = _parts_of(content, place)
        identifiers = (("user_id", profile),)
        facts: list[Fact] = []
        for i, raw in enumerate(events):
            if not isinstance(raw, Mapping) or not isinstance(raw.get("event"), str):
                raise FactError(f'{place}[{i}] must be an object with "event" and "timestamp"')
            time = _time(raw.get("timestamp"), f"{place}[{i}].timestamp")
            message_id = str(raw.get("message_id") or raw.get("messageId") or f"{profile}-{i:06d}")
            properties = _object(raw, "properties", f"{place}[{i}]")
            name = canonical(raw["event"])
            facts.append(Fact(profile, time, message_id, "track", name, properties, {}, identifiers))
        first = min([at_us, *(fact.timestamp_us for fact in facts)]) - 1
        yield Fact(profile, first, f"{profile}-traits", "identify", "", {}, dict(traits), identifiers)
        yield from facts


def _parts_of(content: object, place: str) -> tuple[Mapping[str, Any], list[Any]]:
    """The traits and the events of one of the `people`."""
    if isinstance(content, list):
        return {}, content
    if not isinstance(content, Mapping) or not content.keys() <= {"traits", "events"}:
        raise FactError(f'{place} must be a list of events, or an object with "traits" and "events"')
    events = content.get("events")
    if not isinstance(events, list | None):
        raise FactError(f"{place}.events must be a list of events")
    return _object(content, "traits", place), events or []


def _object(holder: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """What a key holds, which must be a JSON object when it is there."""
    found = holder.get(key)
    if not isinstance(found, Mapping | None):
        raise FactError(f"{place}.{key} must be a JSON object")
    return found or {}


def facts_of_lines(lines: Iterable[str]) -> Iterator[Fact]:
    """Facts of NDJSON lines in Segment's form with the key "profile" beside: whose event it is.

    Of an event of nobody that names a group the profile is null.

    Raises FactError, which names the line. Lines without a profile must be resolved first: see facts_of_resolved().
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise FactError(f"{place} is no valid JSON: {error}") from None
        if not isinstance(raw, dict):
            raise FactError(f"{place} must be a JSON object")
        profile = raw.get("profile")
        if "profile" in raw and profile is None and raw.get("groupId"):
            profile = ""
        elif not isinstance(profile, str) or not profile:
            raise FactError(f'{place} names no "profile"')
        kind = raw.get("type", "track")
        if kind not in KINDS:
            raise FactError(f"{place}: type must be one of {', '.join(KINDS)}, not {kind!r}")
        context = _object(raw, "context", place)
        in_context = _object(context, "traits", f"{place}.context")
        traits = _object(raw, "traits", place)
        identifiers = [(n, raw[k]) for n, k in (("user_id", "userId"), ("anonymous_id", "anonymousId")) if raw.get(k)]
        identifiers += _object(raw, "identifiers", place).items()
        properties, name = _object(raw, "properties", place), canonical(str(raw.get("event") or ""))
        said = Event(
            kind=EventKind.Value(f"EVENT_KIND_{kind.upper()}"),
            name=name,
            properties=_json(properties),
            traits=_json(traits),
            context=_json(context),
        )
        yield Fact(
            profile,
            _time(raw.get("timestamp"), f"{place}.timestamp"),
            str(raw.get("messageId") or raw.get("message_id") or f"line-{number}"),
            kind,
            name or str(raw.get("name") or ""),
            properties,
            {**in_context, **(traits if kind != "group" else {})},
            tuple((n, str(v)) for n, v in identifiers),
            statements_of(said),
            context={p: context[p] for p in PARTS if p in context},
            group_id=str(raw.get("groupId") or ""),
            group_traits=traits if kind == "group" and raw.get("groupId") else {},
        )


def _time(raw: object, place: str) -> int:
    try:
        return parse_time_us(str(raw))
    except ValueError:
        raise FactError(f"{place} must be a time such as 2026-01-31T12:00:00Z, not {raw!r}") from None


def resolved_of(fact: Fact) -> ResolvedEvent:
    """A fact as the incremental engine takes it."""
    return ResolvedEvent(
        profile_id=fact.profile,
        event=Event(
            message_id=fact.message_id,
            kind=EventKind.Value(f"EVENT_KIND_{fact.kind.upper()}"),
            name=fact.name,
            timestamp_us=fact.timestamp_us,
            properties=_json(fact.properties),
            # A group's own traits are no traits of the person; those of its context are.
            traits=_json(fact.group_traits if fact.kind == "group" else fact.traits),
            group_id=fact.group_id,
            context=_json(_context(fact)),
        ),
        decision=Decision(identifiers=[Identifier(namespace=n, value=v) for n, v in fact.identifiers]),
    )


def _context(fact: Fact) -> dict[str, Any]:
    traits = {"traits": fact.traits} if fact.kind == "group" and fact.traits else {}
    return {**fact.context, **traits, **({"consent": fact.consents} if fact.consents else {})}


def table_of(facts: Iterable[Fact]) -> pa.Table:
    """Facts as the relation `events` of the batch evaluator."""
    rows = [
        {
            "profile": fact.profile,
            "timestamp_us": fact.timestamp_us,
            "message_id": fact.message_id,
            "kind": fact.kind,
            "name": fact.name,
            "properties": _json(fact.properties).decode() or None,
            "traits": _json(fact.traits).decode() or None,
            "namespaces": sorted({namespace for namespace, _ in fact.identifiers}),
            "consents": _json(fact.consents).decode() or None,
            "touch": _json(fact.touch).decode() or None,
        }
        for fact in facts
        if fact.profile
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def mentions_of(facts: Iterable[Fact]) -> pa.Table:
    """Facts as the relation `mentions` of the batch evaluator, see `batch.groups`."""
    rows = [
        {
            "group_id": fact.group_id,
            "profile": fact.profile,
            "timestamp_us": fact.timestamp_us,
            "message_id": fact.message_id,
            "traits": _json(fact.group_traits).decode() or None,
        }
        for fact in facts
        if fact.group_id
    ]
    return pa.Table.from_pylist(rows, schema=MENTIONS_SCHEMA)


def _json(value: Mapping[str, Any]) -> bytes:
    if not value:
        return b""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, msgspec.MsgspecError):
        return json.dumps(value).encode()  # integers beyond 64 bits
