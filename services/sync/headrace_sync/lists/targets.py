"""Which list of the vendor a list sync fills, and what its rows go by. Pure.

A list is named by one setting of the destination, which the connector declares (`list_setting`). A sync may name
another one: its connector is then opened with that in the setting's place, and everything else is the destination's:
credentials, limits, breaker. Syncs that name none fill the destination's.

What rows go by is not stored when it changes, but worked out of what is stored anyway, and compared by each pass with
what the last one went by (`following`). So nothing is lost between two writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from headrace.connector import wire
from headrace_sync.config import DestinationConfig, SyncConfig

LONGEST_LIST = 255


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows go, and what of the destination they go by.

    Attributes:
        list_id: The list at the vendor; empty when the connector has one alone, or none is named.
        settings: Digest of the destination's other settings.
        revision: The destination's.
    """

    list_id: str = ""
    settings: str = ""
    revision: int = 0

    @property
    def sign(self) -> str:
        """The same for all places that hold the same rows."""
        return f"{self.settings}:{self.list_id}"


class Change(IntEnum):
    """How what rows go by differs from what it was, the most far-reaching last."""

    NONE = 0
    MAPPING = 1
    """Other rows may be made of members; those that stay the same are on the list."""
    SETTINGS = 2
    """Other rows may be on the same list: all are in doubt."""
    LIST = 3
    """Another list, on which nothing is known to be."""


@dataclass(frozen=True, slots=True)
class RowsBy:
    """What the rows of a list sync go by.

    Attributes:
        place: Where they go.
        mapping: Digest of the sync's mapping, and of which identifiers it sees.
        revision: The sync's.
    """

    place: Place
    mapping: str
    revision: int

    def document(self) -> dict[str, Any]:
        """Its stored form."""
        return {
            "l": self.place.list_id,
            "s": self.place.settings,
            "m": self.mapping,
            "dr": self.place.revision,
            "sr": self.revision,
        }

    def is_older_than(self, stored: Mapping[str, Any] | None) -> bool:
        """True when another process knows of later changes than this one does."""
        return stored is not None and (stored["dr"] > self.place.revision or stored["sr"] > self.revision)

    def change_since(self, stored: Mapping[str, Any] | None) -> Change:
        """How it differs from what is stored; nothing was sent by anything else when nothing is."""
        if stored is None:
            return Change.NONE
        if stored["l"] != self.place.list_id:
            return Change.LIST
        if stored["s"] != self.place.settings:
            return Change.SETTINGS
        return Change.NONE if stored["m"] == self.mapping else Change.MAPPING


def place_of(info: wire.ConnectorInfo, destination: DestinationConfig) -> Place:
    """Where the rows of syncs go that name no list of their own.

    All settings count that are no secrets, except the version of the vendor's API, which changes no row.
    """
    settings = json.loads(destination.masked)
    beside = {info.list_setting, info.versions.setting if info.versions else ""}
    shaping = {name: value for name, value in settings.items() if name not in beside}
    return Place(default_list(info, settings), _digest(shaping), destination.revision)


def rows_by(sync: SyncConfig, place: Place) -> RowsBy:
    """What the rows of a sync go by that go to a place."""
    return RowsBy(place, _digest([sync.mapping, sync.identifier_values]), sync.revision)


def default_list(info: wire.ConnectorInfo, settings: Mapping[str, Any]) -> str:
    """The list that settings name; empty when they name none."""
    if not info.list_setting:
        return ""
    value = settings.get(info.list_setting, _node(info).get("default"))
    return "" if value is None else str(value)


def list_of(info: wire.ConnectorInfo, destination: DestinationConfig, sync: SyncConfig) -> str:
    """The list that a sync fills."""
    return sync.list_id or default_list(info, json.loads(destination.masked))


def with_list(info: wire.ConnectorInfo, settings: Mapping[str, Any], list_id: str) -> dict[str, Any]:
    """Settings in which the list is another one.

    Args:
        info: What the connector is; it declares a `list_setting`.
        settings: The destination's.
        list_id: The list.
    """
    value: str | int = int(list_id) if _is_whole(info) and list_id.isdecimal() else list_id
    return {**settings, info.list_setting: value}


def problem_with_list(info: wire.ConnectorInfo, list_id: str) -> str:
    """Why a sync cannot name this list; empty when it can."""
    if not info.list_setting:
        return f"connector {info.name!r} has no setting that names a list"
    if len(list_id) > LONGEST_LIST or not list_id.isprintable() or list_id != list_id.strip():
        return f"must be the id of a list at the vendor, of at most {LONGEST_LIST} characters"
    if _is_whole(info) and (not list_id.isascii() or not list_id.isdecimal() or list_id != str(int(list_id))):
        return "must be a whole number"
    return ""


def other_of_list(
    info: wire.ConnectorInfo, destination: DestinationConfig, sync: SyncConfig, syncs: Iterable[SyncConfig]
) -> SyncConfig | None:
    """The first other list sync of the destination that fills the same list; None when there is none.

    Args:
        info: What the destination's connector is.
        destination: The destination.
        sync: The sync, as it is to be.
        syncs: All syncs of the destination.
    """
    wanted = list_of(info, destination, sync)
    others = (one for one in syncs if one.is_list and one.doc_id != sync.doc_id)
    return next((one for one in others if list_of(info, destination, one) == wanted), None)


def brought_together(
    info: wire.ConnectorInfo, destination: DestinationConfig, syncs: Iterable[SyncConfig]
) -> tuple[SyncConfig, SyncConfig] | None:
    """Two list syncs, of which one names the very list that the destination's settings name for the other.

    Args:
        info: What the destination's connector is.
        destination: The destination, as it is to be.
        syncs: All syncs of the destination.
    """
    lists = [sync for sync in syncs if sync.is_list]
    following = next((sync for sync in lists if not sync.list_id), None)
    default = default_list(info, json.loads(destination.masked))
    naming = next((sync for sync in lists if sync.list_id and sync.list_id == default), None)
    return (following, naming) if following is not None and naming is not None else None


def _node(info: wire.ConnectorInfo) -> Mapping[str, Any]:
    """The list's setting in the JSON Schema."""
    found: Mapping[str, Any] = info.settings_schema.get("properties", {}).get(info.list_setting, {})
    return found


def _is_whole(info: wire.ConnectorInfo) -> bool:
    node = _node(info)
    return "integer" in [node.get("type"), *(one.get("type") for one in node.get("anyOf", ()))]


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
