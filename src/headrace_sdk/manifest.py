"""The manifest: what a connector is, what it can do and how it wants to be called. Declared, never coded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from headrace_sdk.auth import Auth, settings_of

API_VERSION = "1.0"
"""The version of the plugin interface that this SDK speaks. A plugin of another major version is refused."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]{0,31}")
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
    LISTS = "lists"
    """Shows the vendor's lists and makes new ones: lists, create_list."""
    CHECK = "check"
    """Finds out whether the settings work and the permissions are there: check."""
    JOBS = "jobs"
    """Some items are taken into jobs whose end is asked for later: poll."""


class Idempotency(StrEnum):
    """What happens at the vendor when the same event is sent twice.

    Rows of lists and deletions are repeated in any case: they come out the same however often they are sent.
    """

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
    """All destinations of the connector share it, those of all workspaces: the platform has one account there."""
    SETTING = "setting"
    """The destinations of a workspace that have the same value in a setting share it, such as an account or an OAuth
    client; each of those where it is empty has the budget for itself."""


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
        setting: With `LimitScope.SETTING`, the setting that tells whose budget it is; else empty.
    """

    count: int
    per_s: float
    scope: LimitScope = LimitScope.DESTINATION
    setting: str = ""


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


class FieldType(StrEnum):
    """What a field holds."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    """ISO 8601."""
    OBJECT = "object"
    """Any JSON object."""
    LIST = "list"
    """Any JSON array."""


class Sources(StrEnum):
    """Events of which sources a destination takes."""

    ANY = "any"
    OFFLINE = "offline"
    """Stores and CRMs alone; events of websites and apps are refused, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardEvent:
    """An event name that the vendor knows and treats in a way of its own.

    Attributes:
        name: As the vendor spells it ("Purchase").
        names: Event names that stand for it unless the customer says otherwise, such as ("Order Completed",).
        requires: Fields without which the vendor refuses it.
    """

    name: str
    names: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersions:
    """The versions of the vendor's API that can be set, with their known ends.

    Attributes:
        setting: Setting with the version; its default is the one that the connector is written for.
        ends: Version to the day from which the vendor does not answer it any more, such as {"v25.0": "2027-02-23"}.
            A check of the destination warns before and after.
    """

    setting: str
    ends: Mapping[str, str]

    def end_of(self, version: str) -> date | None:
        """The day from which a version does not work any more; None when it is not known."""
        end = self.ends.get(version)
        return date.fromisoformat(end) if end else None


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
        type: What it holds.
        normalised: How the connector brings it into the vendor's form, in a few words; empty when it sends it as it is.
        example: A value as a workspace would give it, for docs and seeded test data.
        anonymous: True when it finds or describes a person of whom no identifier is known: a click id, an advertising
            id, a cookie.
    """

    name: str
    title: str
    description: str = ""
    required: bool = False
    hashed: bool = False
    many: bool = False
    default: str = ""
    type: FieldType = FieldType.TEXT
    normalised: str = ""
    example: str = ""
    anonymous: bool = False


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
        auth: How requests prove who sends them; None when the connector's own settings hold no credentials.
        versions: Versions of the vendor's API; None when there are none to choose from.
        any_of: Groups of fields: of each, an item needs at least one, else it is skipped with that reason.
        events: Event names that the vendor knows; empty when any name will do.
        sources: Events of which sources it takes.
        removes: True when members can be taken off the list. If not, a member who leaves stays at the vendor, and says
            so.
        removal_keys: Sets of fields by any of which the vendor finds whom to take off, such as (("email",), ("phone",),
            ("first_name", "last_name", "zip")); empty when it is the row as it was added.
        minimum_list_size: Members below which the vendor does not use a list; 0 when it does not say.
        not_deleted: What the vendor keeps of a person whom it was told to forget, in a sentence; empty for nothing.
        schemes: URL schemes other than http and https of requests that the connector sends by itself (`deliver`), such
            as ("kafka",); empty when it speaks HTTP alone.
        list_setting: Setting that names the vendor's list that list syncs fill, such as "audience_id": a text or a
            whole number, and no secret. A sync may name a list of its own, with which the connector is then opened in
            the setting's place. Empty when there is none: the destination then has room for one list sync.
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
    auth: Auth | None = None
    versions: ApiVersions | None = None
    any_of: tuple[tuple[str, ...], ...] = ()
    events: tuple[StandardEvent, ...] = ()
    sources: Sources = Sources.ANY
    removes: bool = True
    removal_keys: tuple[tuple[str, ...], ...] = ()
    minimum_list_size: int = 0
    not_deleted: str = ""
    schemes: tuple[str, ...] = ()
    list_setting: str = ""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ValueError(f"manifest {self.name!r}: " + "; ".join(problems))


def _problems(manifest: Manifest) -> Iterator[str]:
    """Everything that is wrong with a manifest, one clause each."""
    if not _FACTORY.fullmatch(manifest.factory):
        yield 'factory must be "package.module:Class"'
    if not (isinstance(manifest.settings, type) and issubclass(manifest.settings, BaseModel)):
        yield "settings must be a pydantic model"
        yield from problems_of(manifest)
    else:
        yield from problems_of(manifest, manifest.settings.model_fields)


def problems_of(manifest: Any, settings: Collection[str] | None = None) -> Iterator[str]:
    """Everything that is wrong with what is said about a connector, one clause each.

    Args:
        manifest: A Manifest, or its likeness that came from another process: what has the same attributes.
        settings: Names of the settings; None when they are not known.
    """
    if not _NAME.fullmatch(manifest.name):
        yield "name must be 1 to 63 lower-case letters, digits and dashes"
    if manifest.kind != "destination":
        yield f"kind {manifest.kind!r} is not known"
    if manifest.api.split(".")[0] != API_VERSION.split(".", maxsplit=1)[0]:
        yield f"written for plugin API {manifest.api}, this platform has {API_VERSION}"
    if not manifest.capabilities:
        yield "capabilities must name at least one"
    if min(manifest.batch.max_items, manifest.batch.max_bytes, manifest.concurrency) < 1 or manifest.timeout_s <= 0:
        yield "batch sizes, concurrency and timeout_s must be positive"
    if any(limit.count < 1 or limit.per_s <= 0 for limit in manifest.limits):
        yield "limits must be positive"
    if any((limit.scope is LimitScope.SETTING) != bool(limit.setting) for limit in manifest.limits):
        yield "a limit names a setting if it is shared by one, and else none"
    for scheme in manifest.schemes:
        if not _SCHEME.fullmatch(scheme) or scheme in ("http", "https"):
            yield f"the scheme {scheme!r} must be lower-case letters, digits, + and -, and not that of HTTP"
    if manifest.list_setting and Capability.LIST_SYNC not in manifest.capabilities:
        yield "list_setting is for connectors that can do list_sync"
    yield from _problems_of_fields(manifest)
    if settings is not None:
        yield from _problems_of_settings(manifest, settings)


def _problems_of_fields(manifest: Any) -> Iterator[str]:
    names = [item.name for item in manifest.fields]
    if len(set(names)) != len(names):
        yield "a field is declared twice"
    for name in names:
        if not _FIELD_NAME.fullmatch(name):
            yield f"field name {name!r} must be lower-case letters, digits and _"
    spoken_of = [("any_of", group) for group in manifest.any_of]
    spoken_of += [("removal_keys", keys) for keys in manifest.removal_keys]
    spoken_of += [(f"event {event.name!r}", event.requires) for event in manifest.events]
    for where, group in spoken_of:
        for name in group:
            if name not in names:
                yield f"{where} names the field {name!r}, which is not declared"
    standing_for = [name for event in manifest.events for name in event.names]
    for name in {name for name in standing_for if standing_for.count(name) > 1}:
        yield f"the event name {name!r} stands for several events"


def _problems_of_settings(manifest: Any, settings: Collection[str]) -> Iterator[str]:
    named = [("auth", name) for name in (settings_of(manifest.auth) if manifest.auth else ())]
    if manifest.versions:
        named.append(("versions", manifest.versions.setting))
        for version, end in manifest.versions.ends.items():
            try:
                date.fromisoformat(end)
            except ValueError:
                yield f"the end of version {version!r} must be a day such as 2027-02-23"
    if manifest.list_setting:
        named.append(("list_setting", manifest.list_setting))
    named += [("limits", limit.setting) for limit in manifest.limits if limit.setting]
    for where, name in named:
        if name not in settings:
            yield f"{where} names the setting {name!r}, which the settings do not have"
