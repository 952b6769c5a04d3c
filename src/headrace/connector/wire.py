"""What a plugin's process answers, as data that the host and the services work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_sdk import Manifest, Note, Outcomes, Rejected, Request, Row, Skip
from headrace_sdk.auth import as_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a call failed.

    Attributes:
        kind: "config" (settings), "load" (the plugin cannot be loaded) or "defect" (the plugin broke its contract).
        reason: One sentence without values.
        field: The setting at fault, for "config".
    """

    kind: str
    reason: str
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """What one answer means, or why the plugin could not say."""

    outcomes: Outcomes | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRows:
    """What should be on the list for one member.

    Attributes:
        rows: The entries; empty when the member is left out.
        rejected: Why the member is left out, when it is.
    """

    rows: tuple[Row, ...] = ()
    rejected: Rejected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltBatch:
    """What became of a batch: every item is in exactly one request, or skipped.

    Attributes:
        requests: To be sent; their `items` are places in the batch.
        skipped: Items left out, with the reason.
        notes: Remarks on items that are sent.
    """

    requests: tuple[Request, ...] = ()
    skipped: tuple[Skip, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedValue:
    """A value on its way to the vendor: in the vendor's form and as sent, or why it cannot be used."""

    normalised: str | None = None
    sent: str | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorField:
    """A field of a connector, see headrace_sdk.Field."""

    name: str
    title: str
    description: str = ""
    required: bool = False
    hashed: bool = False
    many: bool = False
    default: str = ""
    type: str = "text"
    normalised: str = ""
    example: str = ""
    anonymous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorEvent:
    """An event name that the vendor knows, see headrace_sdk.StandardEvent."""

    name: str
    names: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How items are put together, see headrace_sdk.BatchPolicy."""

    max_items: int
    max_bytes: int
    max_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rate limit, see headrace_sdk.RateLimit. `scope` is "destination" or "connector"."""

    count: int
    per_s: float
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """How refused items are tried again, see headrace_sdk.RetryPolicy."""

    max_age_s: float
    base_s: float
    cap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorInfo:
    """A manifest as data: what the host knows of a connector without importing any of its code.

    Attributes:
        name, title, description, kind, api, capabilities, fields, batch, limits, concurrency, retry, timeout_s,
        idempotency, rows_match_people, any_of, events, sources, removes, removal_keys, minimum_list_size,
        not_deleted: As in headrace_sdk.Manifest.
        auth: The scheme of authentication as headrace_sdk.auth.as_data gives it; None for none.
        version_setting: Setting with the version of the vendor's API; empty when there is none.
        version_ends: Version to the day (ISO 8601) from which it does not work any more.
        settings_schema: JSON Schema of the settings; secrets are `"format": "password", "writeOnly": true`.
        plugin: Distribution that brings it; filled by the host.
        version: Version of that distribution; filled by the host.
    """

    name: str
    title: str
    description: str
    kind: str
    api: str
    capabilities: frozenset[str]
    settings_schema: dict[str, Any]
    fields: tuple[ConnectorField, ...]
    batch: Batching
    limits: tuple[Limit, ...]
    concurrency: int
    retry: Retrying
    timeout_s: float
    idempotency: str
    rows_match_people: bool = False
    auth: dict[str, Any] | None = None
    version_setting: str = ""
    version_ends: dict[str, str] = field(default_factory=dict)
    any_of: tuple[tuple[str, ...], ...] = ()
    events: tuple[ConnectorEvent, ...] = ()
    sources: str = "any"
    removes: bool = True
    removal_keys: tuple[tuple[str, ...], ...] = ()
    minimum_list_size: int = 0
    not_deleted: str = ""
    plugin: str = ""
    version: str = ""

    def missing(self, fields: Mapping[str, Any]) -> str:
        """What a mapped item lacks: a required field, or all fields of a group; empty when nothing is missing."""
        for item in self.fields:
            if item.required and fields.get(item.name) in _NOTHING:
                return item.name
        for group in self.any_of:
            if all(fields.get(name) in _NOTHING for name in group):
                return f"one of {', '.join(group)}"
        return ""


_NOTHING: tuple[Any, ...] = (None, "", [])


def describe(manifest: Manifest) -> ConnectorInfo:
    """A manifest as data."""
    return ConnectorInfo(
        name=manifest.name,
        title=manifest.title,
        description=manifest.description,
        kind=manifest.kind,
        api=manifest.api,
        capabilities=frozenset(str(item) for item in manifest.capabilities),
        settings_schema=manifest.settings.model_json_schema(),
        fields=tuple(
            ConnectorField(
                name=field.name,
                title=field.title,
                description=field.description,
                required=field.required,
                hashed=field.hashed,
                many=field.many,
                default=field.default,
                type=str(field.type),
                normalised=field.normalised,
                example=field.example,
                anonymous=field.anonymous,
            )
            for field in manifest.fields
        ),
        batch=Batching(
            max_items=manifest.batch.max_items,
            max_bytes=manifest.batch.max_bytes,
            max_wait_s=manifest.batch.max_wait_s,
        ),
        limits=tuple(Limit(count=limit.count, per_s=limit.per_s, scope=str(limit.scope)) for limit in manifest.limits),
        concurrency=manifest.concurrency,
        retry=Retrying(max_age_s=manifest.retry.max_age_s, base_s=manifest.retry.base_s, cap_s=manifest.retry.cap_s),
        timeout_s=manifest.timeout_s,
        idempotency=str(manifest.idempotency),
        rows_match_people=manifest.rows_match_people,
        auth=as_data(manifest.auth) if manifest.auth else None,
        version_setting=manifest.versions.setting if manifest.versions else "",
        version_ends=dict(manifest.versions.ends) if manifest.versions else {},
        any_of=manifest.any_of,
        events=tuple(
            ConnectorEvent(name=event.name, names=event.names, requires=event.requires) for event in manifest.events
        ),
        sources=str(manifest.sources),
        removes=manifest.removes,
        removal_keys=manifest.removal_keys,
        minimum_list_size=manifest.minimum_list_size,
        not_deleted=manifest.not_deleted,
    )
