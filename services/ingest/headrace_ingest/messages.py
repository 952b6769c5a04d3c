"""A Segment message becomes an event, or is refused with a reason. Pure functions; start reading here.

`read_message` is what the HTTP API, repairs and offline commands run. Strict JSON takes the fast path: the
envelope is decoded into a struct, the free-form parts stay bytes and are decoded once to know that they are
exact. Anything else goes through `lenient` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from headrace.api.common.v1 import event_pb2
from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain import consent
from headrace.domain.event_names import canonical, is_reserved
from headrace.domain.identifiers import ANONYMOUS_ID, CLICK_ID_NAMESPACES, USER_ID
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.segment import Found, InvalidIdentifier, as_text, has_control, of_context, of_traits
from headrace.domain.times import parse_time_us
from headrace.telemetry.spans import new_traceparent
from headrace_ingest import lenient
from headrace_ingest.limits import (
    DEFAULT_LIMITS,
    FUTURE_US,
    MAX_IDENTIFIER,
    MAX_IDENTIFIERS,
    MAX_MESSAGE_ID,
    MAX_NAME,
    MAX_TIME_US,
    Limits,
)
from headrace_ingest.location import CountryOf, located
from headrace_ingest.refusal import Code, Refused, refused_of

# Looked up once: an enum's attribute costs a microsecond at each use.
IDENTIFY, TRACK, PAGE = event_pb2.EVENT_KIND_IDENTIFY, event_pb2.EVENT_KIND_TRACK, event_pb2.EVENT_KIND_PAGE
SCREEN, GROUP, ALIAS = event_pb2.EVENT_KIND_SCREEN, event_pb2.EVENT_KIND_GROUP, event_pb2.EVENT_KIND_ALIAS

KINDS: dict[str, EventKind.ValueType] = {
    "identify": IDENTIFY,
    "track": TRACK,
    "page": PAGE,
    "screen": SCREEN,
    "group": GROUP,
    "alias": ALIAS,
}

_NAMED = frozenset({TRACK, PAGE, SCREEN})
_NOTHING: tuple[dict[str, Any], bytes] = ({}, b"")

Scalar = str | int | float | None
Raw = msgspec.Raw

_NONE = Raw(b"null")
_MILLISECONDS_FROM = 100_000_000_000
"""A number as a time is in milliseconds from here on (March 1973), below it in seconds."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a message came.

    Attributes:
        workspace_id: The workspace of its source.
        source_id: The source.
        received_at_us: When it came, in microseconds.
        kind: The kind in the path of the request; "" takes the message's own `type`.
        sent_at: `sentAt` of the whole batch, for messages without their own.
        context: Context of the whole batch, for what a message's own context does not say.
        traceparent: Trace context of the request; "" makes a new trace per event.
        message_id: Id for a message that has none; "" makes one.
        country_of: Finds the country of a message's IP address; None: no country is looked for.
        country: Country of the request's own address, for messages that say no address; "" for none.
        online: True when its source is a website: whatever it sends happened there.
    """

    workspace_id: str
    source_id: str
    received_at_us: int
    kind: str = ""
    sent_at: Scalar = None
    context: dict[str, Any] | None = None
    traceparent: str = ""
    message_id: str = ""
    country_of: CountryOf | None = None
    country: str = ""
    online: bool = False


class _Envelope(msgspec.Struct):
    """What a Segment message may hold; anything else in it is of no interest."""

    type: Scalar = None
    messageId: Scalar = None  # noqa: N815 - these are the wire's names
    event: Scalar = None
    name: Scalar = None
    category: Scalar = None
    userId: Scalar = None  # noqa: N815
    anonymousId: Scalar = None  # noqa: N815
    previousId: Scalar = None  # noqa: N815
    groupId: Scalar = None  # noqa: N815
    timestamp: Scalar = None
    originalTimestamp: Scalar = None  # noqa: N815
    sentAt: Scalar = None  # noqa: N815
    channel: Any = None
    properties: Raw = _NONE
    traits: Raw = _NONE
    context: Raw = _NONE


_ONLINE_KINDS = frozenset({EventKind.EVENT_KIND_PAGE, EventKind.EVENT_KIND_SCREEN})
_ONLINE_CHANNELS = frozenset({"web", "browser", "mobile"})

_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_FIELD_AT_FAULT = re.compile(r"`\$\.(\w+)`")


def read_message(raw: bytes, arrival: Arrival, limits: Limits = DEFAULT_LIMITS) -> Event:
    """Make an event of a message in the form of the Segment spec.

    Args:
        raw: The message as UTF-8 JSON.
        arrival: How it came.
        limits: Sizes that are allowed.

    Returns:
        The event, checked and complete: message id, clock-corrected time, identifiers, trace context.

    Raises:
        Refused: With the reason and the field at fault.
    """
    if len(raw) > limits.message_bytes:
        raise Refused(Code.MESSAGE_TOO_LARGE, f"A message has at most {limits.message_bytes} bytes.")
    if not lenient.suspicious(raw, limits.depth):
        try:
            return _event(_decode_envelope(raw), arrival, [])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # perhaps the lenient reader can take it; it says what is wrong when it cannot
    strict, repairs = _made_strict(raw, limits.depth)
    try:
        return _event(_decode_envelope(strict), arrival, repairs)
    except msgspec.ValidationError as error:
        raise _wrong_type(strict, error) from None


def _made_strict(raw: bytes, depth: int) -> tuple[bytes, list[str]]:
    message, repairs = lenient.read(raw, depth)
    if not isinstance(message, dict):
        raise Refused(Code.NOT_AN_OBJECT, "A message must be a JSON object.")
    exact: dict[str, Any] = {}
    for key, value in message.items():
        if key not in _Envelope.__struct_fields__:
            continue
        if isinstance(value, str) and lenient.has_surrogates(value):
            raise _invalid_characters(key)
        exact[key] = lenient.clean_text(value, repairs) if isinstance(value, dict | list) else value
    return _encode(exact), repairs


def _event(envelope: _Envelope, arrival: Arrival, repairs: list[str]) -> Event:
    kind = KINDS.get(arrival.kind or text_of(envelope.type, "type").lower())
    if kind is None:
        raise Refused(Code.UNKNOWN_KIND, "type must be one of identify, track, page, screen, group and alias.", "type")
    message_id = text_of(envelope.messageId, "messageId") or arrival.message_id or new_time_ordered_id()
    if len(message_id) > MAX_MESSAGE_ID:
        raise Refused(Code.MESSAGE_ID_TOO_LONG, f"messageId has at most {MAX_MESSAGE_ID} characters.", "messageId")
    context, context_bytes = _NOTHING if envelope.context is _NONE else _object(envelope.context, "context")
    if arrival.context:
        context = {**arrival.context, **context}
        context_bytes = _encode(context)
    if arrival.country_of is not None:
        context_bytes = located(context, context_bytes, arrival.country_of, arrival.country)
    traits, traits_bytes = _NOTHING if envelope.traits is _NONE else _object(envelope.traits, "traits")
    raw_properties = envelope.properties
    properties, properties_bytes = _NOTHING if raw_properties is _NONE else _object(raw_properties, "properties")
    if envelope.category is not None and "category" not in properties:
        properties_bytes = _encode({"category": envelope.category, **properties})

    identifiers = _identifiers(envelope, kind, traits, context)
    previous_id = identifier_of(envelope.previousId, "previousId") if kind == ALIAS else ""
    group_id = group_of(kind, envelope.groupId, "groupId", context, repairs)
    require_ids(kind, identifiers, previous_id, group_id, _FIELDS)

    own = envelope.timestamp if envelope.timestamp is not None else envelope.originalTimestamp
    original = _time(own, "timestamp" if envelope.timestamp is not None else "originalTimestamp")
    sent = _sent_at(envelope.sentAt if envelope.sentAt is not None else arrival.sent_at, repairs)
    name = event_name(kind, text_of(envelope.event, "event") if kind == TRACK else text_of(envelope.name, "name"))
    note_consent(kind, name, properties, repairs)
    event = new_event(arrival, kind, message_id, name, identifiers, original, sent, arrival.traceparent, repairs)
    set_parts(event, previous_id, group_id, traits_bytes, properties_bytes, context_bytes)
    if is_online(arrival, kind, envelope.channel, context.get("channel")):
        event.online = True
    return event


def is_online(arrival: Arrival, kind: EventKind.ValueType, *channels: Any) -> bool:
    """Whether an event happened on a website or in an app: by its source, by its kind, or because it says so.

    Args:
        arrival: How it came.
        kind: Its kind.
        channels: What it says of the way it came: `channel` (RudderStack) and `context.channel` (Segment).
    """
    if arrival.online or kind in _ONLINE_KINDS:
        return True
    return any(isinstance(channel, str) and channel.strip().lower() in _ONLINE_CHANNELS for channel in channels)


def note_consent(kind: EventKind.ValueType, name: str, properties: Mapping[str, Any], repairs: list[str]) -> None:
    """Note which purposes of a consent event say neither granted nor denied: that they say nothing is kept with it."""
    if kind == TRACK and consent.is_consent_event(name):
        for purpose in consent.unknown_statuses(properties):
            repairs.append(f"properties.{purpose}: says neither granted nor denied, so it says nothing")


def set_parts(event: Event, previous_id: str, group_id: str, traits: bytes, properties: bytes, context: bytes) -> None:
    """Give an event what only some have; an empty part is not set, which costs nothing on the wire."""
    if previous_id:
        event.previous_id = previous_id
    if group_id:
        event.group_id = group_id
    if traits:
        event.traits = traits
    if properties:
        event.properties = properties
    if context:
        event.context = context


def new_event(
    arrival: Arrival,
    kind: EventKind.ValueType,
    message_id: str,
    name: str,
    identifiers: Found,
    original_us: int,
    sent_us: int,
    traceparent: str,
    repairs: Sequence[str],
) -> Event:
    """An event of checked parts, complete but for its free-form parts and the ids that only some kinds have.

    Args:
        arrival: How it came.
        kind: Its kind.
        message_id: Its id.
        name: Its name.
        identifiers: Its identifiers.
        original_us: When it happened by the sender's clock, in microseconds; 0 for unknown.
        sent_us: When it was sent by the same clock, in microseconds; 0 for unknown.
        traceparent: Its trace context; "" begins a trace.
        repairs: What was corrected.

    Raises:
        Refused: TIMESTAMP_OUT_OF_RANGE.
    """
    received = arrival.received_at_us
    moment = corrected(original_us, sent_us, received)
    # Field by field and only what is set: protobuf takes three times as long for the same as keyword arguments.
    event = Event()
    event.message_id = message_id
    event.workspace_id = arrival.workspace_id
    event.source_id = arrival.source_id
    event.kind = kind
    if name:
        event.name = name
    add = event.identifiers.add
    for namespace, value in identifiers:
        identifier = add()
        identifier.namespace = namespace
        identifier.value = value
    if original_us:
        event.original_timestamp_us = original_us
    if sent_us:
        event.sent_at_us = sent_us
    event.received_at_us = received
    event.timestamp_us = moment
    event.traceparent = traceparent or new_traceparent()
    if moment > received + FUTURE_US:
        event.future = True
    if repairs:
        event.corrections.extend(repairs)
    return event


def _identifiers(
    envelope: _Envelope, kind: EventKind.ValueType, traits: dict[str, Any], context: dict[str, Any]
) -> Found:
    """The different identifiers of a message, in order of appearance; a dict keeps it."""
    found: Found = {}
    user_id = identifier_of(envelope.userId, "userId")
    if user_id:
        found[USER_ID, user_id] = None
    anonymous_id = identifier_of(envelope.anonymousId, "anonymousId")
    if anonymous_id:
        found[ANONYMOUS_ID, anonymous_id] = None
    add_free_form(kind, traits, context, found)
    return found


def add_free_form(
    kind: EventKind.ValueType, traits: dict[str, Any], context: dict[str, Any], found: Found, field: str = ""
) -> None:
    """Add the identifiers in traits and context to those that were given as such.

    Args:
        kind: Kind of the event.
        traits: Its traits.
        context: Its context.
        found: The identifiers.
        field: Field to name when there are too many.

    Raises:
        Refused: INVALID_TYPE, INVALID_NAMESPACE, IDENTIFIER_TOO_LONG or TOO_MANY_IDENTIFIERS.
    """
    try:
        if traits and kind != GROUP:  # a group's traits are not the person's
            of_traits(traits, found)
        if context:
            of_context(context, found)
    except InvalidIdentifier as error:
        raise refused_of(error) from None
    if len(found) > MAX_IDENTIFIERS:
        raise Refused(Code.TOO_MANY_IDENTIFIERS, f"An event has at most {MAX_IDENTIFIERS} identifiers.", field)


class Fields(NamedTuple):
    """What the ids of a message are called where it came from, for errors."""

    user_id: str
    previous_id: str
    group_id: str
    people: str


_FIELDS = Fields("userId", "previousId", "groupId", "userId")


def require_ids(kind: EventKind.ValueType, identifiers: Found, previous_id: str, group_id: str, fields: Fields) -> None:
    """Refuse an event that lacks the ids of its kind, or that names nobody.

    Raises:
        Refused: MISSING_PREVIOUS_ID, MISSING_USER_ID, MISSING_GROUP_ID, or MISSING_IDENTIFIER when there is none, or
            only ids of clicks.
    """
    if kind == ALIAS:
        if not previous_id:
            raise Refused(Code.MISSING_PREVIOUS_ID, f"An alias needs {fields.previous_id}.", fields.previous_id)
        if not any(namespace == USER_ID for namespace, _ in identifiers):
            raise Refused(Code.MISSING_USER_ID, f"An alias needs {fields.user_id}.", fields.people)
    elif kind == GROUP and not group_id:
        raise Refused(Code.MISSING_GROUP_ID, f"A group message needs {fields.group_id}.", fields.group_id)
    for namespace, _ in identifiers:
        if namespace not in CLICK_ID_NAMESPACES:
            return
    raise Refused(
        Code.MISSING_IDENTIFIER,
        "The event names nobody: give userId, anonymousId, an email or phone in traits, or context.externalIds.",
        fields.people,
    )


def event_name(kind: EventKind.ValueType, given: str, field: str = "") -> str:
    """The stored name of an event: of a track its canonical name, of a page or screen its title, else "".

    Args:
        kind: Kind of the event.
        given: The name as it came, trimmed.
        field: Field that holds it, for the error; "" is that of a message of this kind.

    Raises:
        Refused: MISSING_NAME, NAME_TOO_LONG or RESERVED_NAME.
    """
    if len(given) > MAX_NAME and kind in _NAMED:
        field = field or ("event" if kind == TRACK else "name")
        raise Refused(Code.NAME_TOO_LONG, f"The name of an event has at most {MAX_NAME} characters.", field)
    if kind == TRACK:
        if not given:
            raise Refused(Code.MISSING_NAME, "A track message needs the event's name.", field or "event")
        if is_reserved(given):
            reason = "This event name is reserved for what Headrace sends itself."
            raise Refused(Code.RESERVED_NAME, reason, field or "event")
        return canonical(given)
    return given if kind in _NAMED else ""


def corrected(original_us: int, sent_us: int, received_us: int) -> int:
    """Event time: the sender's time, moved by how far the sender's clock was off when it sent.

    Args:
        original_us: When it happened by the sender's clock; 0 means unknown: then it happened when it came.
        sent_us: When it was sent by the same clock; 0 means unknown: then the clock is taken as right.
        received_us: When it came by our clock.

    Raises:
        Refused: TIMESTAMP_OUT_OF_RANGE, when the corrected time is before 1970 or after 9999.
    """
    if not original_us:
        return received_us
    moment = original_us + (received_us - sent_us) if sent_us else original_us
    if not 0 <= moment <= MAX_TIME_US:
        raise _out_of_range("timestamp")
    return moment


def _object(raw: Raw, field: str) -> tuple[dict[str, Any], bytes]:
    """A free-form part, decoded and as bytes; `{}` and b"" for none."""
    text = bytes(raw)
    if text == b"null":
        return {}, b""
    value = _decode_any(text)
    if not isinstance(value, dict):
        raise Refused(Code.INVALID_TYPE, f"{field} must be a JSON object.", field)
    return value, text if value else b""


def text_of(value: Scalar, field: str) -> str:
    """A scalar as trimmed text; "" for none; refused when it holds control characters.

    Args:
        value: As it came.
        field: Field that holds it, for the error.
    """
    if value is None:
        return ""
    text = value.strip() if type(value) is str else as_text(value)
    if not text.isprintable() and has_control(text):
        raise _invalid_characters(field)
    return text


def identifier_of(value: Scalar, field: str) -> str:
    """An identifier's value, as `text_of`; refused when it is too long."""
    text = text_of(value, field)
    if len(text) > MAX_IDENTIFIER:
        raise Refused(Code.IDENTIFIER_TOO_LONG, f"{field} has at most {MAX_IDENTIFIER} characters.", field)
    return text


def group_of(kind: EventKind.ValueType, given: Scalar, field: str, context: dict[str, Any], repairs: list[str]) -> str:
    """The group that an event names: its own group id, else `groupId` of its context; "" for none.

    Args:
        kind: Kind of the event.
        given: Its own group id, as it came.
        field: Field that holds it, for the error.
        context: Its context.
        repairs: Gets a note when what names the group cannot be an id; only a group call is worth nothing without it.

    Raises:
        Refused: IDENTIFIER_TOO_LONG or INVALID_CHARACTERS, for a group call.
    """
    if given is None or given == "":
        given = context.get("groupId") if context else None
        if given is None:
            return ""
        if not isinstance(given, str | int | float):
            repairs.append("context.groupId: is no text or number, the event names no group")
            return ""
        field = "context.groupId"
    try:
        return identifier_of(given, field)
    except Refused:
        if kind == GROUP:
            raise
    repairs.append(f"{field}: cannot be an id, the event names no group")
    return ""


def _time(value: Scalar, field: str) -> int:
    """A time as microseconds; 0 for none."""
    if value is None or value == "":
        return 0
    try:
        moment = parse_time_us(value) if isinstance(value, str) else _epoch(value)
    except (ValueError, OverflowError):
        raise Refused(Code.INVALID_TIMESTAMP, f"{field} must be an ISO 8601 time.", field) from None
    if not 0 <= moment <= MAX_TIME_US:
        raise _out_of_range(field)
    return moment


def _epoch(value: float) -> int:
    return int(value * 1_000) if abs(value) >= _MILLISECONDS_FROM else int(value * 1_000_000)


def _sent_at(value: Scalar, repairs: list[str]) -> int:
    """When it was sent; a time that is none costs only the correction of the clock."""
    try:
        return _time(value, "sentAt")
    except Refused:
        repairs.append("sentAt: is no time between 1970 and 9999, the clock was not corrected")
        return 0


def _wrong_type(raw: bytes, error: msgspec.ValidationError) -> Refused:
    match = _FIELD_AT_FAULT.search(str(error))
    if match is None and not raw.lstrip().startswith(b"{"):
        return Refused(Code.NOT_AN_OBJECT, "A message must be a JSON object.")
    field = match[1] if match else ""
    return Refused(Code.INVALID_TYPE, f"{field or 'A field'} must be text, a number or null.", field)


def _invalid_characters(field: str) -> Refused:
    return Refused(Code.INVALID_CHARACTERS, f"{field} must not hold control characters or half characters.", field)


def _out_of_range(field: str) -> Refused:
    return Refused(Code.TIMESTAMP_OUT_OF_RANGE, f"{field} must lie between the years 1970 and 9999.", field)
