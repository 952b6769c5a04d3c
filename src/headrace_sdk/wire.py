"""What host and plugin process say to each other: length-prefixed msgpack frames, one call at a time.

A frame is four bytes of length (big-endian) and that many bytes of msgpack. The host sends a Call, the plugin's process
answers with one Reply. Connector authors need none of this.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_sdk.items import DeleteBatch, EventBatch, Member, MemberBatch, Row
from headrace_sdk.manifest import Manifest
from headrace_sdk.requests import Note, Outcomes, Rejected, Request, Response, Skip

MAX_FRAME_BYTES = 128 * 1024 * 1024
"""Largest frame. Neither side sends a longer one, and both end the line before reading one."""


class Call(msgspec.Struct, frozen=True):
    """A call of the host: a method name and its argument, encoded."""

    method: str
    argument: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call failed.

    Attributes:
        kind: "config" (settings), "load" (the plugin cannot be loaded) or "defect" (the plugin broke its contract).
        reason: One sentence without values.
        field: The setting at fault, for "config".
    """

    kind: str
    reason: str
    field: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The answer: a result, or why there is none."""

    result: msgspec.Raw
    failure: Failure | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "load": the entry point, and the limit of the address space in bytes (0: none)."""

    entry_point: str
    value: str
    memory_bytes: int = 0


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "open": makes an instance of a connector with these settings."""

    instance: str
    connector: str
    settings: dict[str, Any]


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "close": forgets an instance."""

    instance: str


class RowsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "rows"."""

    instance: str
    members: list[Member]


class MembersCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "add_members" and "remove_members"."""

    instance: str
    batch: MemberBatch


class EventsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "send_events"."""

    instance: str
    batch: EventBatch


class DeleteCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "delete"."""

    instance: str
    batch: DeleteBatch


class ReadCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "read": requests of one instance with the vendor's answers to them."""

    instance: str
    reads: list[tuple[Request, Response]]


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer means, or why the plugin could not say."""

    outcomes: Outcomes | None = None
    failure: Failure | None = None


class NormaliseCall(msgspec.Struct, frozen=True, kw_only=True):
    """Argument of "normalise": by an instance, or, when that is empty, by a connector without settings."""

    values: list[tuple[str, str]]
    instance: str = ""
    connector: str = ""


class MemberRows(msgspec.Struct, frozen=True, kw_only=True):
    """What should be on the list for one member.

    Attributes:
        rows: The entries; empty when the member is left out.
        rejected: Why the member is left out, when it is.
    """

    rows: tuple[Row, ...] = ()
    rejected: Rejected | None = None


class BuiltBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch: every item is in exactly one request, or skipped.

    Attributes:
        requests: To be sent; their `items` are places in the batch.
        skipped: Items left out, with the reason.
        notes: Remarks on items that are sent.
    """

    requests: tuple[Request, ...] = ()
    skipped: tuple[Skip, ...] = ()
    notes: tuple[Note, ...] = ()


class NormalisedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value on its way to the vendor: in the vendor's form and as sent, or why it cannot be used."""

    normalised: str | None = None
    sent: str | None = None
    rejected: str | None = None


class ConnectorField(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a connector, see headrace_sdk.Field."""

    name: str
    title: str
    description: str = ""
    required: bool = False
    hashed: bool = False
    many: bool = False
    default: str = ""


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """How items are put together, see headrace_sdk.BatchPolicy."""

    max_items: int
    max_bytes: int
    max_wait_s: float


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A rate limit, see headrace_sdk.RateLimit. `scope` is "destination" or "connector"."""

    count: int
    per_s: float
    scope: str


class Retrying(msgspec.Struct, frozen=True, kw_only=True):
    """How refused items are tried again, see headrace_sdk.RetryPolicy."""

    max_age_s: float
    base_s: float
    cap_s: float


class ConnectorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as data: what the host knows of a connector without importing any of its code.

    Attributes:
        name, title, description, kind, api, capabilities, fields, batch, limits, concurrency, retry, timeout_s,
        idempotency, rows_match_people: As in headrace_sdk.Manifest.
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
    plugin: str = ""
    version: str = ""

    def missing(self, fields: dict[str, Any]) -> str:
        """Name of the first required field without a value in a mapped item, or empty when none is missing."""
        for field in self.fields:
            if field.required and fields.get(field.name) in (None, "", []):
                return field.name
        return ""


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
    )
