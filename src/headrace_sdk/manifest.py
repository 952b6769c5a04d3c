"""The manifest: what a connector is, what it can do and how it wants to be called. Declared, never coded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel

API_VERSION = "1.0"
"""The version of the plugin interface that this SDK speaks. A plugin of another major version is refused."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Capability(StrEnum):
    """What a destination connector can do."""

    LIST_SYNC = "list_sync"
    """Keeps a list equal to an audience: rows, add_members, remove_members."""
    EVENT_SYNC = "event_sync"
    """Takes added_to_segment and removed_from_segment: send_events."""
    FORWARDING = "forwarding"
    """Takes events as they happen: send_events."""
    DELETION = "deletion"
    """Forgets a person on demand: delete."""


class Idempotency(StrEnum):
    """What happens at the vendor when the same item is sent twice."""

    KEY = "key"
    """The vendor drops the second one by its key."""
    NATURAL = "natural"
    """The second one changes nothing: a list has an entry or has it not."""
    NONE = "none"
    """The second one counts again: after a lost answer the host may not repeat the request unasked."""


class LimitScope(StrEnum):
    """Who shares a rate limit."""

    DESTINATION = "destination"
    """Each configured destination has the budget for itself."""
    CONNECTOR = "connector"
    """All destinations of the connector share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """How items are put together.

    Attributes:
        max_items: Most items in a batch.
        max_bytes: Most bytes in a request's body; the host halves a batch whose request is larger.
        max_wait_s: How long an item may wait for company, in seconds.
    """

    max_items: int = 1
    max_bytes: int = 1_000_000
    max_wait_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `count` requests per `per_s` seconds, shared by all replicas.

    Attributes:
        count: Requests.
        per_s: Seconds.
        scope: Who shares it.
    """

    count: int
    per_s: float
    scope: LimitScope = LimitScope.DESTINATION


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter.

    Attributes:
        max_age_s: Seconds after which an item that is still refused goes to the dead letter.
        base_s: Largest first wait, in seconds; it doubles with every try.
        cap_s: Largest wait, in seconds.
    """

    max_age_s: float = 4 * 3600.0
    base_s: float = 2.0
    cap_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field that a mapping can fill.

    Attributes:
        name: As workspaces name it ("email", "first_name"), whatever the vendor calls it.
        title: Name for people.
        description: What goes into it.
        required: True when every item must have it.
        hashed: True when the connector sends only a digest of it.
        many: True when a person may have several values.
        default: Mapping expression proposed when the customer gives none; empty for none.
    """

    name: str
    title: str
    description: str = ""
    required: bool = False
    hashed: bool = False
    many: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a connector is. Returned by the plugin's `headrace_connectors` hook; checked when it is made.

    Attributes:
        name: Unique name: lower-case letters, digits and dashes.
        title: Name for people.
        factory: "package.module:Class" of the connector; imported only when it is used.
        settings: Pydantic model of the settings. `SecretStr` marks what must be hidden.
        capabilities: What it can do.
        fields: Fields that a mapping can fill.
        kind: "destination".
        api: Version of the plugin interface that it was written for.
        description: A sentence for the catalogue.
        batch: How items are put together.
        limits: Rate limits, all of which hold.
        concurrency: Most requests under way at a time per destination.
        retry: How refused items are tried again.
        timeout_s: Seconds that the vendor has to answer.
        idempotency: What a repeated item does.
        rows_match_people: True when the vendor finds people by the rows and keeps the people, not the rows. Taking one
            row off then takes the person off, even if another of their rows is still there: the host sends the removals
            of a member first, and then all rows the member still has.
    """

    name: str
    title: str
    factory: str
    settings: type[BaseModel]
    capabilities: frozenset[Capability]
    fields: tuple[Field, ...] = ()
    kind: str = "destination"
    api: str = API_VERSION
    description: str = ""
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    limits: tuple[RateLimit, ...] = ()
    concurrency: int = 4
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float = 30.0
    idempotency: Idempotency = Idempotency.NATURAL
    rows_match_people: bool = False

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ValueError(f"manifest {self.name!r}: " + "; ".join(problems))


def _problems(manifest: Manifest) -> list[str]:
    """Everything that is wrong with a manifest, one clause each."""
    found = []
    if not _NAME.fullmatch(manifest.name):
        found.append("name must be 1 to 63 lower-case letters, digits and dashes")
    if manifest.kind != "destination":
        found.append(f"kind {manifest.kind!r} is not known")
    if manifest.api.split(".")[0] != API_VERSION.split(".", maxsplit=1)[0]:
        found.append(f"written for plugin API {manifest.api}, this platform has {API_VERSION}")
    if not _FACTORY.fullmatch(manifest.factory):
        found.append('factory must be "package.module:Class"')
    if not (isinstance(manifest.settings, type) and issubclass(manifest.settings, BaseModel)):
        found.append("settings must be a pydantic model")
    if not manifest.capabilities:
        found.append("capabilities must name at least one")
    names = [item.name for item in manifest.fields]
    if len(set(names)) != len(names):
        found.append("a field is declared twice")
    found += [
        f"field name {name!r} must be lower-case letters, digits and _"
        for name in names
        if not _FIELD_NAME.fullmatch(name)
    ]
    if min(manifest.batch.max_items, manifest.batch.max_bytes, manifest.concurrency) < 1 or manifest.timeout_s <= 0:
        found.append("batch sizes, concurrency and timeout_s must be positive")
    if any(limit.count < 1 or limit.per_s <= 0 for limit in manifest.limits):
        found.append("limits must be positive")
    return found
