"""The traits of a person that an event carries, by the same rule as in identity, and what it says of consent.

Traits are those under `traits` in the event's context, overridden by the event's own; the own traits of a "group"
event belong to the group.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.consent import DENIED, GRANTED, statements_of
from headrace.domain.predicates import decode_object

TRAITS_MARK = b'"traits"'
"""A context without these bytes has no traits."""


def decoded_traits(event: Event) -> dict[str, Any]:
    """The traits as Python values; empty when there are none."""
    own = decode_object(event.traits) if event.kind != EventKind.EVENT_KIND_GROUP else {}
    context = event.context
    if context and TRAITS_MARK in context:
        in_context = decode_object(context).get("traits")
        if isinstance(in_context, dict) and in_context:
            return {**in_context, **own}
    return own


def consents_of(event: Event) -> dict[str, str]:
    """Status by purpose, of the purposes that an event speaks of."""
    return {purpose: GRANTED if granted else DENIED for purpose, granted in statements_of(event).items()}


def person_consents(event: Event) -> bytes:
    """Whether each purpose that an event speaks of is granted, as a JSON object; empty when there are none."""
    said = statements_of(event)
    return msgspec.json.encode(said) if said else b""


def person_traits(event: Event) -> bytes:
    """The traits as a JSON object in which each name is once; empty when there are none."""
    traits = decoded_traits(event)
    return msgspec.json.encode(traits) if traits else b""
