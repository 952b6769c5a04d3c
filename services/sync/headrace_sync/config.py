"""Destinations and syncs as the rest of the service sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.api.sync.v1.destination_service_pb2 import DestinationState
from headrace.api.sync.v1.sync_service_pb2 import SyncKind
from headrace.domain.event_names import canonical
from headrace.storage.mongo.client import Document
from headrace_sync.planning.rules import Forwarding

SEPARATOR = "\x1f"


def key_of(workspace_id: str, resource_id: str) -> str:
    """Database id of a destination or a sync."""
    return f"{workspace_id}{SEPARATOR}{resource_id}"


def workspace_of(key: str) -> str:
    """The workspace of a destination or a sync, by its database id."""
    return key.partition(SEPARATOR)[0]


def erased_digest(workspace_id: str, profile_id: str) -> str:
    """What is kept of the id of a profile whose person is deleted, so that nothing is sent about them any more."""
    return hashlib.blake2b(key_of(workspace_id, profile_id).encode(), digest_size=16).hexdigest()


def sealing_place(destination_key: str) -> str:
    """The place to which a destination's sealed settings are bound."""
    return f"destination{SEPARATOR}{destination_key}"


def alert_sealing_place(destination_key: str) -> str:
    """The place to which the sealed key of a destination's alerts is bound."""
    return f"alerts{SEPARATOR}{destination_key}"


@dataclass(frozen=True)
class DestinationConfig:
    """A configured destination.

    Attributes:
        key: Database id.
        workspace_id: Its workspace.
        id: Last part of its name.
        display_name: Name for people.
        connector: Name of the connector.
        sealed: Settings as JSON, sealed.
        masked: Settings as JSON, secrets masked.
        state: A DestinationState.
        state_reason: Why it is not delivering, when it is not.
        created_us: When it was made.
        updated_us: When it was last changed.
        revision: Counts changes; the etag.
        request_id: Of the call that made it.
        required_consents: Purposes that a person must have granted before anything about them is sent.
        consents_changed_us: When required_consents last changed; 0 means never.
        alert_url: Where alerts go that concern it; empty for where those of the installation go.
        alert_sealed: The key with which they are signed, sealed; empty for none.
    """

    key: str
    workspace_id: str
    id: str
    display_name: str
    connector: str
    sealed: str
    masked: str
    state: int
    state_reason: str
    created_us: int
    updated_us: int
    revision: int
    request_id: str = ""
    required_consents: tuple[str, ...] = ()
    consents_changed_us: int = 0
    alert_url: str = ""
    alert_sealed: str = ""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"workspaces/{self.workspace_id}/destinations/{self.id}"

    @property
    def is_active(self) -> bool:
        """True when it delivers."""
        return self.state == DestinationState.DESTINATION_STATE_ACTIVE

    @classmethod
    def from_document(cls, document: Document) -> DestinationConfig:
        """From its stored form."""
        return cls(
            key=document["_id"],
            workspace_id=document["w"],
            id=document["i"],
            display_name=document["display_name"],
            connector=document["connector"],
            sealed=document["sealed"],
            masked=document["masked"],
            state=document["state"],
            state_reason=document["state_reason"],
            created_us=document["created_us"],
            updated_us=document["updated_us"],
            revision=document["revision"],
            request_id=document.get("rid", ""),
            required_consents=tuple(document.get("required_consents", ())),
            consents_changed_us=document.get("consents_changed_us", 0),
            alert_url=document.get("alert_url", ""),
            alert_sealed=document.get("alert_sealed", ""),
        )

    def document(self) -> Document:
        """Its stored form."""
        return {
            "_id": self.key,
            "w": self.workspace_id,
            "i": self.id,
            "display_name": self.display_name,
            "connector": self.connector,
            "sealed": self.sealed,
            "masked": self.masked,
            "state": self.state,
            "state_reason": self.state_reason,
            "created_us": self.created_us,
            "updated_us": self.updated_us,
            "revision": self.revision,
            "rid": self.request_id,
            "required_consents": list(self.required_consents),
            "consents_changed_us": self.consents_changed_us,
            "alert_url": self.alert_url,
            "alert_sealed": self.alert_sealed,
        }


@dataclass(frozen=True)
class SyncConfig:
    """A sync.

    Attributes:
        doc_id: Database id.
        key: Unique key of this sync, never used again, even for a sync of the same name.
        workspace_id: Its workspace.
        id: Last part of its name.
        display_name: Name for people.
        kind: A SyncKind.
        destination_id: Id of the destination.
        audience_id: Id of the audience; empty for forwarding.
        event_names: Forwarding: names that it sends; empty means all.
        mapping: The mapping as JSON; empty for the connector's defaults.
        send_removals: Event sync: True also sends removed_from_segment.
        paused: True stops it.
        created_us: When it was made.
        updated_us: When it was last changed.
        changed_us: When something that decides on events last changed; 0 means never.
        revision: Counts changes; the etag.
        request_id: Of the call that made it.
        offline_only: Forwarding: True when the connector takes events of offline sources alone, as it said when the
            sync was made. What becomes of an event must come out the same however often it is asked.
        require_approval: List sync: True sends no change before it is approved.
        most_changed_percent: List sync: share of the list that may be changed unasked within a day; 0 for all of it.
        identifier_values: Which values of an identifier are sent, an IdentifierValues.
        delay_seconds: Forwarding: how long after planning an event is sent.
        schedule: List sync: when changes are sent, see `schedules`; empty for soon after they happen.
        list_id: List sync: the vendor's list, in place of the one in the destination's settings; empty for that one.
        swept_us: Deliveries of events and changes from before this were removed; 0 for none.
        deleting: List sync: True while everybody is taken off its list; then it is deleted.
    """

    doc_id: str
    key: str
    workspace_id: str
    id: str
    display_name: str
    kind: int
    destination_id: str
    audience_id: str
    event_names: tuple[str, ...]
    mapping: str
    send_removals: bool
    paused: bool
    created_us: int
    updated_us: int
    changed_us: int
    revision: int
    request_id: str = ""
    offline_only: bool = False
    require_approval: bool = False
    most_changed_percent: int = 0
    identifier_values: int = 0
    delay_seconds: int = 0
    swept_us: int = 0
    schedule: str = ""
    list_id: str = ""
    deleting: bool = False

    @property
    def begins_us(self) -> int:
        """From when on events and changes concern it: since it was made, or since what is kept begins."""
        return max(self.created_us, self.swept_us)

    @property
    def is_guarded(self) -> bool:
        """True when not everything may be sent unasked."""
        return self.require_approval or self.most_changed_percent > 0

    @property
    def name(self) -> str:
        """Resource name."""
        return f"workspaces/{self.workspace_id}/syncs/{self.id}"

    @property
    def destination_key(self) -> str:
        """Database id of the destination."""
        return key_of(self.workspace_id, self.destination_id)

    @property
    def audience_name(self) -> str:
        """Resource name of the audience."""
        return f"workspaces/{self.workspace_id}/audiences/{self.audience_id}"

    @property
    def is_list(self) -> bool:
        """True for list syncs."""
        return self.kind == SyncKind.SYNC_KIND_LIST

    @property
    def is_event(self) -> bool:
        """True for event syncs."""
        return self.kind == SyncKind.SYNC_KIND_EVENT

    @property
    def is_forwarding(self) -> bool:
        """True for forwarding syncs."""
        return self.kind == SyncKind.SYNC_KIND_FORWARDING

    @property
    def maps_consents(self) -> bool:
        """True when what is sent of a person depends on their consents by the mapping."""
        return "consents" in self.mapping

    @cached_property
    def forwarding(self) -> Forwarding:
        """The part that the planner needs."""
        return Forwarding(
            key=self.key,
            workspace_id=self.workspace_id,
            destination_key=self.destination_key,
            # Events are stored in the canonical spelling, syncs name them as their users do.
            event_names=frozenset(self.event_names) | frozenset(map(canonical, self.event_names)),
            paused=self.paused,
            created_us=self.begins_us,
            changed_us=self.changed_us,
            offline_only=self.offline_only,
        )

    @classmethod
    def from_document(cls, document: Document) -> SyncConfig:
        """From its stored form."""
        values: dict[str, Any] = {name: document[name] for name in _SYNC_FIELDS}
        return cls(
            doc_id=document["_id"],
            workspace_id=document["w"],
            id=document["i"],
            event_names=tuple(document["event_names"]),
            request_id=document.get("rid", ""),
            **{name: document[name] for name in _OPTIONAL_FIELDS if name in document},
            **values,
        )

    def document(self) -> Document:
        """Its stored form."""
        return {
            "_id": self.doc_id,
            "w": self.workspace_id,
            "i": self.id,
            "event_names": list(self.event_names),
            "rid": self.request_id,
            **{name: getattr(self, name) for name in (*_SYNC_FIELDS, *_OPTIONAL_FIELDS)},
        }


_SYNC_FIELDS = (
    "key",
    "display_name",
    "kind",
    "destination_id",
    "audience_id",
    "mapping",
    "send_removals",
    "paused",
    "created_us",
    "updated_us",
    "changed_us",
    "revision",
)

_OPTIONAL_FIELDS = (
    "offline_only",
    "require_approval",
    "most_changed_percent",
    "identifier_values",
    "delay_seconds",
    "swept_us",
    "schedule",
    "list_id",
    "deleting",
)
"""Fields with defaults: syncs that were stored before there were these have none."""
