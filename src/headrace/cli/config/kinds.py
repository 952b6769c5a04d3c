"""The kinds of resources in configuration files: their keys, what each holds, and what a change of it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any


class Holds(Enum):
    """What a key holds."""

    TEXT = auto()
    TEXTS = auto()
    FLAG = auto()
    NUMBER = auto()
    OBJECT = auto()
    DEFINITION = auto()
    CHOICE = auto()
    REFERENCE = auto()


@dataclass(frozen=True)
class Key:
    """A key of a kind.

    Args:
        holds: What it holds.
        help: One sentence for the reference.
        field: Field of the proto that it becomes; the key's own name when empty.
        required: True when it must be there.
        fixed: True when it cannot be changed once the resource exists.
        switch: True for what people switch in daily work: left as it is when the key is absent.
        default: Value when it is absent; of a display name, the id.
        choices: Allowed values, in lower case.
        of: For references, the kind.
    """

    holds: Holds
    help: str
    field: str = ""
    required: bool = False
    fixed: bool = False
    switch: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    of: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of resource.

    Args:
        name: As in `kind: Source`.
        collection: Part of its resource names.
        keys: Its keys beside `kind` and `id`.
        after: Kinds that have to exist before it.
        only_id: The id of the one resource of this kind that each workspace has; empty for kinds of any number.
    """

    name: str
    collection: str
    keys: dict[str, Key]
    after: tuple[str, ...] = field(default=())
    only_id: str = ""


_DISPLAY_NAME = Key(Holds.TEXT, "Name for people; the id when left out.")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "Source",
            "sources",
            {
                "display_name": _DISPLAY_NAME,
                "type": Key(
                    Holds.CHOICE,
                    "What sends to it.",
                    field="kind",
                    required=True,
                    fixed=True,
                    choices=("http", "website", "webhook"),
                ),
                "allowed_origins": Key(Holds.TEXTS, "Origins of browsers that may send; none means any.", default=[]),
                "mapping": Key(Holds.OBJECT, "For webhooks: how a message becomes an event."),
                "disabled": Key(Holds.FLAG, "True refuses everything that it sends.", switch=True),
            },
        ),
        Kind(
            "IdentityRules",
            "identityRules",
            {
                "rules": Key(
                    Holds.OBJECT,
                    "The identity rules of the workspace; what is left out has its default. They apply to what is "
                    "resolved from then on.",
                    required=True,
                )
            },
            only_id="workspace",
        ),
        Kind(
            "ComputedTrait",
            "computedTraits",
            {
                "display_name": _DISPLAY_NAME,
                "definition": Key(Holds.OBJECT, "What it computes of which events.", required=True),
            },
        ),
        Kind(
            "Audience",
            "audiences",
            {
                "display_name": _DISPLAY_NAME,
                "definition": Key(Holds.DEFINITION, "Who is in it, as text or as a mapping.", required=True),
                "active": Key(Holds.FLAG, "True computes it; false pauses it.", switch=True),
                "archived": Key(Holds.FLAG, "True puts it away; active brings it back.", field="state", switch=True),
            },
        ),
        Kind(
            "Destination",
            "destinations",
            {
                "display_name": _DISPLAY_NAME,
                "connector": Key(Holds.TEXT, "Name of the connector.", required=True, fixed=True),
                "settings": Key(
                    Holds.OBJECT, "Settings by the connector's model; a masked secret stays as it is.", default={}
                ),
                "required_consents": Key(
                    Holds.TEXTS, "Purposes that people must have granted before anything is sent.", default=[]
                ),
                "alert_hook": Key(
                    Holds.OBJECT,
                    "Where alerts about it and its syncs go: `url` and `secret`; a masked secret stays as it is.",
                    default={},
                ),
                "paused": Key(Holds.FLAG, "True lets deliveries wait.", field="state", switch=True),
            },
        ),
        Kind(
            "Sync",
            "syncs",
            {
                "display_name": _DISPLAY_NAME,
                "type": Key(
                    Holds.CHOICE,
                    "What it sends.",
                    field="kind",
                    required=True,
                    fixed=True,
                    choices=("list", "event", "forwarding"),
                ),
                "destination": Key(
                    Holds.REFERENCE, "Id of the destination.", required=True, fixed=True, of="Destination"
                ),
                "audience": Key(Holds.REFERENCE, "Id of the audience, for list and event.", fixed=True, of="Audience"),
                "event_names": Key(Holds.TEXTS, "For forwarding: only events of these names.", default=[]),
                "mapping": Key(Holds.OBJECT, "Field of the connector: expression."),
                "send_removals": Key(Holds.FLAG, "For event: also removed_from_segment.", default=False),
                "require_approval": Key(
                    Holds.FLAG, "For list: true sends no change before it is approved.", default=False
                ),
                "most_changed_percent": Key(
                    Holds.NUMBER, "For list: percent of the list that may change within a day unasked.", default=0
                ),
                "identifier_values": Key(
                    Holds.CHOICE,
                    "Which values are sent of people with several of an identifier.",
                    default="all",
                    choices=("all", "first", "last"),
                ),
                "schedule": Key(
                    Holds.TEXT, "For list: when changes are sent, such as daily 03:00 Asia/Kolkata.", default=""
                ),
                "list": Key(
                    Holds.TEXT,
                    "For list: id of the vendor's list, in place of the one in the destination's settings.",
                    default="",
                ),
                "delay_seconds": Key(Holds.NUMBER, "For forwarding: sends events so many seconds later.", default=0),
                "paused": Key(Holds.FLAG, "True stops it.", switch=True),
            },
            after=("Destination", "Audience"),
        ),
    )
}
"""Every kind, in the order in which they are made."""
