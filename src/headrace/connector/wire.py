"""What a plugin says, as data that the host and the services work with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_sdk import (
    ApiVersions,
    Auth,
    BatchPolicy,
    Field,
    Idempotency,
    Manifest,
    Note,
    Outcomes,
    RateLimit,
    Rejected,
    Request,
    Response,
    RetryPolicy,
    Row,
    Skip,
    Sources,
    StandardEvent,
    VendorList,
)

_NOTHING: tuple[Any, ...] = (None, "", [])
_NO_DATA = frozenset({"factory", "settings"})
"""Fields of a manifest that only the plugin's own process can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsProblem:
    """Why settings cannot work.

    Attributes:
        reason: A sentence for the customer.
        field: The setting at fault as a dotted path, empty when it is no single one.
        others: What is wrong besides, without others of their own.
    """

    reason: str
    field: str = ""
    others: tuple[SettingsProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """What one answer means, or why the plugin could not say.

    Attributes:
        outcomes: Outcomes of the request's items; None when the plugin could not say.
        failure: Why it could not, in a sentence.
    """

    outcomes: Outcomes | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDeliver:
    """A request that a connector has to send by itself.

    Attributes:
        request: As the connector made it.
        timeout_s: Seconds that it may take.
        allow_private: True when private, loopback and link-local addresses may be connected to.
    """

    request: Request
    timeout_s: float
    allow_private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came of a request that a connector sent by itself: an answer, or one of the reasons why there is none.

    Attributes:
        response: The answer.
        unsent: Why nothing was sent.
        lost: Why no answer came though the request may have arrived.
        refused: Why the address may not be connected to.
    """

    response: Response | None = None
    unsent: str = ""
    lost: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLists:
    """Lists at the vendor, or why there are none.

    Attributes:
        lists: The lists of a page, or the one that was made.
        next_page: What names the next page; empty at the end.
        problem: Why the vendor refused, in a sentence; empty when it did not.
    """

    lists: tuple[VendorList, ...] = ()
    next_page: str = ""
    problem: str = ""


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
    """What became of a batch: every item is in one request, in several that carry nothing but it, or skipped.

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
class ConnectorInfo:
    """A manifest as data: what the host knows of a connector without importing any of its code.

    Attributes:
        settings_schema: JSON Schema of the settings; secrets are `"format": "password", "writeOnly": true`.
        plugin: Distribution that brings it; filled by the host.
        version: Version of that distribution; filled by the host.
        name, title, api, capabilities, description, kind, fields, batch, limits, concurrency, retry, timeout_s,
        idempotency, rows_match_people, auth, versions, any_of, events, sources, removes, removal_keys,
        minimum_list_size, not_deleted, schemes, list_setting: As in headrace_sdk.Manifest; capabilities may be of a
        later minor version.
    """

    name: str
    title: str
    api: str
    capabilities: frozenset[str]
    settings_schema: Mapping[str, Any]
    description: str = ""
    kind: str = "destination"
    fields: tuple[Field, ...] = ()
    batch: BatchPolicy = dataclasses.field(default_factory=BatchPolicy)
    limits: tuple[RateLimit, ...] = ()
    concurrency: int = 4
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
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
    plugin: str = ""
    version: str = ""

    def default_of(self, setting: str) -> Any:
        """What a setting is when a destination does not give it; None when it has no default."""
        return self.settings_schema.get("properties", {}).get(setting, {}).get("default")

    def missing(self, fields: Mapping[str, Any]) -> str:
        """What a mapped item lacks: a required field, or all fields of a group; empty when nothing is missing."""
        for field in self.fields:
            if field.required and fields.get(field.name) in _NOTHING:
                return field.name
        for group in self.any_of:
            if all(fields.get(name) in _NOTHING for name in group):
                return f"one of {', '.join(group)}"
        return ""


def describe(manifest: Manifest) -> ConnectorInfo:
    """A manifest as data."""
    shared = {
        field.name: getattr(manifest, field.name)
        for field in dataclasses.fields(manifest)
        if field.name not in _NO_DATA
    }
    return ConnectorInfo(**shared, settings_schema=manifest.settings.model_json_schema())
