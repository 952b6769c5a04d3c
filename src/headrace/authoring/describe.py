"""The page of a connector, from its manifest: settings, fields, events and limits as they are declared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headrace.connector import wire
from headrace_sdk import LimitScope, RateLimit, Sources

_CAPABILITIES = {
    "list_sync": "keeps a list equal to an audience",
    "event_sync": "takes events of people who join and leave audiences",
    "forwarding": "takes events as they happen",
    "deletion": "forgets people on demand",
    "lists": "shows the vendor's lists and makes new ones",
    "check": "finds out whether its settings work",
    "jobs": "follows jobs at the vendor to their end",
}
_REPEATED = {
    "key": "the vendor drops the second one by its key",
    "natural": "the second one changes nothing",
    "none": "the second one counts again, so a lost answer is not followed by another try unasked",
}


def document(info: wire.ConnectorInfo) -> dict[str, Any]:
    """The manifest as JSON, with the schema of the settings."""
    values = {field.name: _plain(getattr(info, field.name)) for field in dataclasses.fields(info)}
    return {**values, "auth": type(info.auth).__name__ if info.auth is not None else None}


def page(info: wire.ConnectorInfo) -> str:
    """The manifest as Markdown."""
    lines = [f"# {info.title}", ""]
    if info.description:
        lines += [info.description, ""]
    lines += [f"Connector `{info.name}` of {info.plugin} {info.version}, plugin API {info.api}. It", ""]
    lines += [f"- {_CAPABILITIES.get(name, name)};" for name in sorted(info.capabilities)]
    lines[-1] = lines[-1].removesuffix(";") + "."
    lines += ["", "## Settings", "", *_table(("setting", "default", "what it is"), _settings(info.settings_schema))]
    if info.fields:
        lines += ["", "## Fields", "", *_table(("field", "what goes into it", "sent as", "default"), _fields(info))]
    lines += [f"\nAn item needs one of {', '.join(f'`{name}`' for name in group)}." for group in info.any_of]
    if info.events:
        rows = (
            (f"`{event.name}`", ", ".join(event.names), ", ".join(f"`{name}`" for name in event.requires))
            for event in info.events
        )
        lines += ["", "## Events", "", *_table(("at the vendor", "stands for", "needs"), rows)]
    return "\n".join([*lines, "", "## Limits", "", *(f"- {text}." for text in _limits(info)), ""])


def _settings(schema: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each setting, in their order; secrets say so."""
    required = schema.get("required", ())
    for name, node in schema.get("properties", {}).items():
        kinds = [node, *node.get("anyOf", ())]
        secret = any(kind.get("format") == "password" or kind.get("writeOnly") for kind in kinds)
        default = node.get("default")
        shown = "" if default in (None, "") or secret else f"`{json.dumps(default, ensure_ascii=False)}`"
        said = [node.get("title", ""), node.get("description", "")]
        text = ". ".join(part.rstrip(".") for part in said if part)
        yield f"`{name}`", "required" if name in required else shown, f"{text}, a secret" if secret else text


def _fields(info: wire.ConnectorInfo) -> Iterator[tuple[str, ...]]:
    for field in info.fields:
        said = [field.title, field.description, "Required" if field.required else "", "Several" if field.many else ""]
        sent = ", ".join(part for part in (field.normalised, "SHA-256" if field.hashed else "") if part)
        default = f"`{field.default}`" if field.default else ""
        yield f"`{field.name}`", ". ".join(part.rstrip(".") for part in said if part), sent, default


def _limits(info: wire.ConnectorInfo) -> Iterator[str]:
    """What is declared of limits, a clause each."""
    yield f"At most {info.batch.max_items:,} items and {info.batch.max_bytes:,} bytes a request"
    for limit in info.limits:
        yield f"{limit.count:,} requests in {limit.per_s:g} s{_whose(limit)}"
    yield f"{info.concurrency} requests under way at a time, {info.timeout_s:g} s for an answer"
    yield f"What is refused for now is tried again for {info.retry.max_age_s / 3600:g} h"
    yield f"Of an item that is sent twice, {_REPEATED.get(info.idempotency, info.idempotency)}"
    if info.list_setting:
        yield f"Syncs may name a list of their own in place of `{info.list_setting}`"
    if info.minimum_list_size:
        yield f"The vendor uses lists from {info.minimum_list_size:,} members on"
    if not info.removes:
        yield "Members who leave stay at the vendor"
    if info.removal_keys:
        keys = "; or ".join(" and ".join(f"`{name}`" for name in group) for group in info.removal_keys)
        yield f"Members are taken off by {keys}"
    if info.sources is Sources.OFFLINE:
        yield "Events of websites and apps are refused"
    if info.not_deleted:
        yield f"Of a person who is to be forgotten the vendor keeps: {info.not_deleted.rstrip('.')}"


def _whose(limit: RateLimit) -> str:
    if limit.scope is LimitScope.SETTING:
        return f", of the destinations with the same `{limit.setting}` together"
    return ", of all destinations together" if limit.scope is LimitScope.CONNECTOR else ""


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    shown = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return shown + [
        f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in row)} |" for row in rows
    ]


def _plain(value: Any) -> Any:
    """A value of a manifest as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
