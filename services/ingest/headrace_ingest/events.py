"""Events that came over gRPC: the same rules as for messages, on events that are already events. Pure functions."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf import json_format

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.segment import Found, InvalidIdentifier, check_namespace
from headrace.telemetry.spans import is_valid
from headrace_ingest import lenient
from headrace_ingest.limits import (
    DEFAULT_LIMITS,
    MAX_MESSAGE_ID,
    MAX_TIME_US,
    Limits,
)
from headrace_ingest.location import located
from headrace_ingest.messages import (
    KINDS,
    Arrival,
    Fields,
    add_free_form,
    event_name,
    group_of,
    identifier_of,
    is_online,
    new_event,
    note_consent,
    require_ids,
    set_parts,
    text_of,
)
from headrace_ingest.refusal import Code, Refused, refused_of

_KINDS = frozenset(KINDS.values())
_FIELDS = Fields("an identifier of namespace user_id", "previous_id", "group_id", "identifiers")

_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def check_event(given: Event, arrival: Arrival, limits: Limits = DEFAULT_LIMITS) -> Event:
    """Complete an event that a gRPC client built; what is output only is overwritten.

    Args:
        given: The event as it came; not changed.
        arrival: How it came.
        limits: Sizes that are allowed.

    Raises:
        Refused: With the reason and the field at fault.
    """
    size = given.ByteSize()
    if size > limits.message_bytes:
        raise Refused(Code.MESSAGE_TOO_LARGE, f"An event has at most {limits.message_bytes} bytes.")
    kind = given.kind
    if kind not in _KINDS:
        raise Refused(Code.UNKNOWN_KIND, "kind must be one of the kinds of EventKind.", "kind")
    repairs: list[str] = []
    traits, traits_bytes = _part(given.traits, "traits", limits.depth, repairs)
    properties, properties_bytes = _part(given.properties, "properties", limits.depth, repairs)
    context, context_bytes = _part(given.context, "context", limits.depth, repairs)
    if arrival.country_of is not None:
        context_bytes = located(context, context_bytes, arrival.country_of, arrival.country)
    message_id = text_of(given.message_id, "message_id") or arrival.message_id or new_time_ordered_id()
    if len(message_id) > MAX_MESSAGE_ID:
        raise Refused(Code.MESSAGE_ID_TOO_LONG, f"message_id has at most {MAX_MESSAGE_ID} characters.", "message_id")
    name = event_name(kind, text_of(given.name, "name"), "name")
    found = _identifiers(given, traits, context)
    previous_id = identifier_of(given.previous_id, "previous_id")
    group_id = group_of(kind, given.group_id, "group_id", context, repairs)
    require_ids(kind, found, previous_id, group_id, _FIELDS)
    original, sent = given.original_timestamp_us, given.sent_at_us
    for field, moment in (("original_timestamp_us", original), ("sent_at_us", sent)):
        if not 0 <= moment <= MAX_TIME_US:
            raise Refused(Code.TIMESTAMP_OUT_OF_RANGE, f"{field} must lie between the years 1970 and 9999.", field)
    traceparent = given.traceparent
    if traceparent and not is_valid(traceparent):
        raise Refused(Code.INVALID_TRACEPARENT, "traceparent must be a W3C trace context.", "traceparent")
    traceparent = traceparent or arrival.traceparent
    note_consent(kind, name, properties, repairs)
    event = new_event(arrival, kind, message_id, name, found, original, sent, traceparent, repairs)
    set_parts(event, previous_id, group_id, traits_bytes, properties_bytes, context_bytes)
    if given.online or is_online(arrival, kind, context.get("channel")):
        event.online = True
    return event


def as_json(event: Event) -> bytes:
    """An event as a refused message keeps it: the JSON mapping of protobuf, with the names of the proto."""
    return json_format.MessageToJson(event, preserving_proto_field_name=True, indent=None).encode()


def from_json(body: bytes) -> Event:
    """The reverse of `as_json`, for repairs.

    Raises:
        Refused: MALFORMED_JSON, when it is no such event.
    """
    try:
        return json_format.Parse(body, Event())
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise Refused(Code.MALFORMED_JSON, "The body is no event in protobuf's JSON mapping.") from None


def _part(raw: bytes, field: str, depth: int, repairs: list[str]) -> tuple[dict[str, Any], bytes]:
    if not raw:
        return {}, b""
    value: Any
    text = raw
    try:
        value = None if lenient.suspicious(raw, depth) else _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if value is None:
        value, notes = lenient.read(raw, depth)
        value = lenient.clean_text(value, notes)
        repairs += notes
        text = _encode(value)
    if not isinstance(value, dict):
        raise Refused(Code.INVALID_TYPE, f"{field} must be a JSON object.", field)
    return value, text if value else b""


def _identifiers(event: Event, traits: dict[str, Any], context: dict[str, Any]) -> Found:
    found: Found = {}
    for identifier in event.identifiers:
        namespace = identifier.namespace.strip()
        try:
            check_namespace(namespace, "identifiers")
        except InvalidIdentifier as error:
            raise refused_of(error) from None
        value = identifier_of(identifier.value, "identifiers")
        if value:
            found[namespace, value] = None
    add_free_form(event.kind, traits, context, found, "identifiers")
    return found
