"""What an event says about purposes: which of them the person allows, and which not. Pure.

Three parts of an event can say so:

- a track event named `trackConsent` (in any spelling), or Segment's "Segment Consent Preference Updated": its
  properties are purposes with their status;
- the context of any event: `context.consent`, as a map of purposes or with Segment's `categoryPreferences` inside, and
  RudderStack's `context.consentManagement` with lists of allowed and denied ids;
- a trait `consent` that holds such a map, among the event's own traits (unless it is a group call, whose traits are the
  group's) or those in its context.

A status is "granted" or "denied" (in any case), true or false. Anything else says nothing. When parts of one event
contradict each other, the purpose is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.event_names import fold

GRANTED = "granted"
DENIED = "denied"

MAX_PURPOSES = 50
"""Purposes that one event can speak of; further ones, by name, are passed over."""
MAX_PURPOSE_LENGTH = 64
MAX_STATEMENT_BYTES = 256 * 1024
"""Largest part of an event in which consent is looked for."""

GOOGLE_PURPOSES = (
    "ad_storage",
    "ad_user_data",
    "ad_personalization",
    "analytics_storage",
    "functionality_storage",
    "personalization_storage",
    "security_storage",
)
"""Purposes of Google's consent mode, known in any spelling."""

_TRACK = EventKind.EVENT_KIND_TRACK
_GROUP = EventKind.EVENT_KIND_GROUP
_EVENT_NAMES = frozenset({"trackconsent", "segmentconsentpreference", "segmentconsentpreferenceupdated"})
_GOOGLE = {fold(name): name for name in GOOGLE_PURPOSES}
_STATUSES: Mapping[Any, bool] = {GRANTED: True, DENIED: False, "true": True, "false": False}
_HINT = b"onsent"
"""In every part that says something: "consent", "Consent" and "consentManagement" hold it."""

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


class ConsentValue(NamedTuple):
    """What a person said last about a purpose, and where it came from."""

    granted: bool
    time_us: int
    message_id: str
    source_id: str

    @property
    def status(self) -> str:
        """GRANTED or DENIED."""
        return GRANTED if self.granted else DENIED

    def newer_than(self, other: ConsentValue) -> bool:
        """Whether this one wins over the other: last writer by (event time, message id), and a denial at a tie."""
        return (self.time_us, self.message_id, not self.granted) > (other.time_us, other.message_id, not other.granted)


@lru_cache(maxsize=4_096)  # a workspace has some hundred names, and each comes millions of times
def is_consent_event(name: str) -> bool:
    """True for the names of track events whose properties are purposes."""
    return fold(name) in _EVENT_NAMES


def statements_of(event: Event) -> dict[str, bool]:
    """What an event says: purpose -> True when it is granted, False when it is denied. Never fails.

    Most events say nothing, and for those this costs a search for a word in their traits and their context.
    """
    found: dict[str, bool] = {}
    context, traits = event.context, event.traits
    if _HINT in context:
        parts = _members(context)
        _map(parts.get("consent"), found)
        _lists(parts.get("consentManagement"), found)
        inner = parts.get("traits")
        if inner is not None and _HINT in bytes(inner):
            _map(_members(bytes(inner)).get("consent"), found)
    if _HINT in traits and event.kind != _GROUP:
        _map(_members(traits).get("consent"), found)
    if event.kind == _TRACK and is_consent_event(event.name):
        _map(msgspec.Raw(event.properties), found)
    if len(found) > MAX_PURPOSES:
        return {purpose: found[purpose] for purpose in sorted(found)[:MAX_PURPOSES]}
    return found


def values_of(event: Event) -> dict[str, ConsentValue]:
    """What an event says, with its provenance: purpose -> value."""
    said = statements_of(event)
    if not said:
        return {}
    time_us, message_id, source_id = event.timestamp_us, event.message_id, event.source_id
    return {purpose: ConsentValue(granted, time_us, message_id, source_id) for purpose, granted in said.items()}


def unknown_statuses(properties: Mapping[str, Any]) -> list[str]:
    """Google's purposes among the properties of a consent event whose value is no status, sorted: surely a mistake.

    Any other property may be meant for something else, such as the name of a banner.
    """
    return sorted({_GOOGLE[f] for name, value in properties.items() if (f := fold(name)) in _GOOGLE and _is_odd(value)})


def newest(values: Iterable[Mapping[str, ConsentValue]]) -> dict[str, ConsentValue]:
    """The newest value of each purpose over several sources, by name."""
    union: dict[str, ConsentValue] = {}
    for part in values:
        for purpose, value in part.items():
            known = union.get(purpose)
            if known is None or value.newer_than(known):
                union[purpose] = value
    return {purpose: union[purpose] for purpose in sorted(union)}


def purpose_of(name: str) -> str | None:
    """A purpose as it is stored: trimmed, Google's names in their own spelling; None for what is no name.

    A purpose has 1 to 64 printable characters.
    """
    trimmed = name.strip()
    if not trimmed or len(trimmed) > MAX_PURPOSE_LENGTH or not trimmed.isprintable():
        return None
    return _GOOGLE.get(fold(trimmed), trimmed)


def _members(part: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, not yet read; nothing when it is none."""
    if len(part) > MAX_STATEMENT_BYTES:
        return {}
    try:
        return _decode(part)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}


def _any(raw: msgspec.Raw | None) -> Any:
    if raw is None or len(bytes(raw)) > MAX_STATEMENT_BYTES:
        return None
    try:
        return _decode_any(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _map(raw: msgspec.Raw | None, found: dict[str, bool]) -> None:
    """Add the purposes of a map, and of the category preferences in it."""
    value = _any(raw)
    if not isinstance(value, dict):
        return
    _add_all(value, found)
    preferences = value.get("categoryPreferences")
    if isinstance(preferences, dict):
        _add_all(preferences, found)
    inner = value.get("consent")
    if isinstance(inner, dict):  # trackConsent({"consent": {...}})
        _add_all(inner, found)


def _lists(raw: msgspec.Raw | None, found: dict[str, bool]) -> None:
    value = _any(raw)
    if not isinstance(value, dict):
        return
    for name, granted in (("allowedConsentIds", True), ("deniedConsentIds", False)):
        ids = value.get(name)
        for purpose in ids if isinstance(ids, list) else ():
            if isinstance(purpose, str):
                _add(purpose, granted, found)


def _add_all(statuses: Mapping[str, Any], found: dict[str, bool]) -> None:
    for name, value in statuses.items():
        granted = _status(value)
        if granted is not None:
            _add(name, granted, found)


def _add(name: str, granted: bool, found: dict[str, bool]) -> None:
    purpose = purpose_of(name)
    if purpose is not None:
        found[purpose] = granted and found.get(purpose, True)


def _is_odd(value: Any) -> bool:
    return _status(value) is None


def _status(value: Any) -> bool | None:
    """True for granted, False for denied, None for anything else."""
    if isinstance(value, bool):
        return value
    return _STATUSES.get(value.strip().lower()) if isinstance(value, str) and len(value) < 20 else None
