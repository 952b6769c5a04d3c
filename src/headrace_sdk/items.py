"""What a connector is given: members and their rows, events, and the batches they come in.

All of these cross a process boundary, so they hold only what JSON can hold.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The person behind an event or a member, as known when the batch was made.

    Attributes:
        id: Profile id.
        identifiers: Normalised values by namespace, such as {"email": ["ada@example.com"]}.
        traits: Traits by name.
        consents: "granted" or "denied" by purpose, such as {"ad_user_data": "granted"}; what nobody spoke of is not
            in it.
    """

    id: str
    identifiers: dict[str, list[str]] = field(default_factory=dict)
    traits: dict[str, Any] = field(default_factory=dict)
    consents: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The profile as a JSON object, as mappings, templates and the webhook see it.

        Members: id, identifiers, traits, and consents when there are any.
        """
        document: dict[str, Any] = {"id": self.id, "identifiers": self.identifiers, "traits": self.traits}
        return {**document, "consents": self.consents} if self.consents else document


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the audience behind a list sync.

    Attributes:
        profile_id: Profile id.
        fields: The connector's fields as the mapping filled them: text, or several texts where the person has several.
    """

    profile_id: str
    fields: dict[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry of the vendor's list.

    The host stores the rows that the vendor acknowledged, per member, and compares them by key with the rows that
    the member has now. It adds what is missing and removes what is too many *with the stored data*, so that exactly
    what was added is removed, even when the person's e-mail address changed, or the profile was merged or deleted in
    between.

    Attributes:
        key: Stable name of the row: equal keys are the same entry at the vendor. At most 128 characters. Holds no
            personal datum in the clear; a digest of the data is the usual choice (see `Row.of`).
        data: What add_members and remove_members need of it, as JSON. Stored, so hash what the vendor takes hashed.
    """

    key: str
    data: Any

    @classmethod
    def of(cls, data: Any) -> Row:
        """The row with this data, its key being a digest of the data's canonical JSON."""
        return cls(key=digest_key(data), data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberBatch:
    """Rows to be added to, or removed from, the vendor's list.

    Attributes:
        rows: At most the manifest's `batch.max_items`.
        now_us: The host's clock, in microseconds since 1970 UTC: a connector has no clock of its own.
    """

    rows: tuple[Row, ...]
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventItem:
    """An event to be sent, with the person it belongs to.

    Attributes:
        message_id: Unique in the workspace; the natural idempotency key.
        kind: "identify", "track", "page", "screen", "group" or "alias".
        name: Event name ("added_to_segment" and "removed_from_segment" in event syncs), page or screen name, or empty.
        timestamp_us: When it happened, in microseconds since 1970 UTC.
        received_at_us: When it was accepted, in microseconds since 1970 UTC.
        source_id: The source that brought it.
        identifiers: The event's own identifiers by namespace.
        group_id: For group events.
        previous_id: For alias events.
        traits: Traits by name.
        properties: Properties by name.
        context: Context (page, campaign, user agent, ip, click ids, ...).
        profile: The person, when the event is identified.
        fields: The connector's fields as the mapping filled them: any JSON.
        traceparent: W3C trace context of the event.
    """

    message_id: str
    kind: str
    name: str = ""
    timestamp_us: int = 0
    received_at_us: int = 0
    source_id: str = ""
    identifiers: dict[str, list[str]] = field(default_factory=dict)
    group_id: str = ""
    previous_id: str = ""
    traits: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    profile: Profile | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    traceparent: str = ""

    def document(self) -> dict[str, Any]:
        """The event as a JSON object, as mappings, templates and the webhook see it.

        Members: message_id, type, name, timestamp and received_at (ISO 8601 with a Z), source_id, identifiers,
        group_id, previous_id, traits, properties, context. The profile is no part of it, see `Profile.document`.
        """
        return {
            "message_id": self.message_id,
            "type": self.kind,
            "name": self.name,
            "timestamp": iso_time(self.timestamp_us),
            "received_at": iso_time(self.received_at_us),
            "source_id": self.source_id,
            "identifiers": self.identifiers,
            "group_id": self.group_id,
            "previous_id": self.previous_id,
            "traits": self.traits,
            "properties": self.properties,
            "context": self.context,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """Events to be sent.

    Attributes:
        events: At most the manifest's `batch.max_items`.
        now_us: The host's clock, in microseconds since 1970 UTC: a connector has no clock of its own.
    """

    events: tuple[EventItem, ...]
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A person to be forgotten by the vendor.

    Attributes:
        profile_id: Profile id.
        identifiers: All identifiers by namespace.
        merged_ids: Ids of profiles that were merged into it: the vendor may know the person by any of them.
    """

    profile_id: str
    identifiers: dict[str, list[str]] = field(default_factory=dict)
    merged_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteBatch:
    """People to be forgotten by the vendor.

    Attributes:
        subjects: At most the manifest's `batch.max_items`.
        now_us: The host's clock, in microseconds since 1970 UTC.
    """

    subjects: tuple[Subject, ...]
    now_us: int


def iso_time(moment_us: int) -> str:
    """Microseconds since 1970 UTC as ISO 8601 with milliseconds and a Z, such as "2026-01-31T08:15:30.250Z".

    Moments before the year 1 and after the year 9999 are written as the first and the last one that can be.
    """
    moment = _EPOCH + timedelta(microseconds=min(max(moment_us, _FIRST_US), _LAST_US))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def digest_key(data: Any) -> str:
    """A short stable key of JSON data: equal data has equal keys, whatever the order of object members.

    Raises:
        TypeError, ValueError: The data is none that JSON can hold.
    """
    canonical = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
