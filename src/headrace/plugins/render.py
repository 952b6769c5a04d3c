"""Dry runs: the exact requests that a destination would send, secrets masked, and values as they would be sent.

`headrace destination render` and `headrace destination normalise` are these functions with files around them.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from headrace.connector import wire
from headrace.domain.times import HOUR_US
from headrace.plugins.authentication import authorised
from headrace.plugins.errors import PluginError, PluginErrorKind
from headrace.plugins.functions import as_text
from headrace.plugins.host import ConnectorInstance, PluginHost
from headrace.plugins.mapping import CompiledMapping, MappingError, compile_mapping
from headrace.plugins.masking import MASK, Masker
from headrace.plugins.offline import MemberLine, read_events, read_lines, read_members
from headrace.plugins.versions import version_remark
from headrace_sdk import BatchPolicy, EventBatch, EventItem, Member, MemberBatch, Request, Row

_VALUES_AT_A_TIME = 5_000
ItemT = TypeVar("ItemT")
Show = Callable[[Request], dict[str, Any]]


@dataclass(slots=True)
class Rendering:
    """What a dry run found.

    Attributes:
        requests: In the order in which they would be sent.
        skipped: Items that would not be sent, with the reason.
        warnings: Remarks on items that would be sent, and on the destination as a whole (with an empty message_id).
        built: The requests as the connector made them, with secrets, each with the names of its items in their order.
        failures: Message ids of those skipped that should have been sent and cannot be.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    built: list[tuple[Request, list[str]]] = field(default_factory=list, repr=False)
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON: {"requests": [...], "skipped": [...], "warnings": [...]}."""
        return {"requests": self.requests, "skipped": self.skipped, "warnings": self.warnings}


async def render(
    host: PluginHost,
    *,
    connector: str,
    settings: Mapping[str, Any],
    now_us: int,
    mapping: str | Mapping[str, Any] | None = None,
    events: Iterable[str] | None = None,
    members: Iterable[str] | None = None,
    as_they_came: bool = False,
) -> Rendering:
    """The requests for the events or the members of an NDJSON file.

    Args:
        host: A started host.
        connector: Name of the connector, or of the distribution or entry point that offers it alone.
        settings: Settings of the destination, secrets in the clear.
        now_us: The clock, in microseconds since 1970.
        mapping: Field -> expression; None for the connector's defaults.
        events: Lines with events, or
        members: lines with members of an audience: exactly one of both.
        as_they_came: True looks at events as of the moments at which they came, as delivery does, whatever the clock:
            vendors refuse old events.

    Raises:
        PluginError: There is no such connector, its settings cannot work, or its plugin failed.
        MappingError: The mapping cannot be used.
        InputError: A line of the input cannot be used.
        ValueError: The connector does not take what is given.
    """
    if (events is None) == (members is None):
        raise ValueError("give either events or members")
    name = resolve(host, connector)
    info = host.connectors()[name]
    compiled = compile_mapping(mapping, info)

    def show(request: Request) -> dict[str, Any]:
        signed = authorised(request, info.auth, settings, now_us=now_us, token=MASK)
        return masked_request(signed, instance.secrets)

    instance = await host.open(name, settings)
    try:
        if events is not None:
            if not info.capabilities & {"event_sync", "forwarding"}:
                raise ValueError(f"connector {name!r} takes members, no events")
            items = read_events(events, now_us=now_us)
            rendering = await _render_events(instance, show, compiled, items, None if as_they_came else now_us)
        elif "list_sync" in info.capabilities:
            lines = read_members(members or (), field_names=(item.name for item in info.fields))
            rendering = await _render_members(instance, show, compiled, lines, now_us)
        else:
            raise ValueError(f"connector {name!r} takes events, no members")
    finally:
        await instance.close()
    remark = version_remark(info, settings, now_us)
    if remark.warns:
        rendering.warnings.append({"message_id": "", "reason": remark.text})
    return rendering


async def normalise(host: PluginHost, connector: str, field: str, value: str) -> dict[str, str | None]:
    """A value of a field as the vendor compares it and as it would be sent.

    Returns:
        {"normalised", "sent", "rejected"}: the first two null and the last a reason when it cannot be used.

    Raises:
        PluginError: There is no such connector, or its plugin failed.
    """
    (found,) = await host.normalise(resolve(host, connector), [(field, value)])
    return _normalised(found)


async def normalise_lines(host: PluginHost, lines: Iterable[str]) -> list[dict[str, str | None]]:
    """The same for many values: lines {"plugin", "field", "value"}.

    Returns:
        One answer per line, in their order; a line with an unknown plugin is rejected with that reason.

    Raises:
        InputError: A line is no JSON object.
        PluginError: A plugin failed.
    """
    answers: dict[int, dict[str, str | None]] = {}
    asked: dict[str, list[tuple[int, tuple[str, str]]]] = {}
    count = 0
    for place, (_, line) in enumerate(read_lines(lines)):
        count = place + 1
        plugin, name, value = line.get("plugin"), line.get("field"), as_text(line.get("value"))
        if not isinstance(plugin, str) or not isinstance(name, str) or not isinstance(value, str):
            answers[place] = _rejection("plugin, field and value must be texts")
            continue
        try:
            asked.setdefault(resolve(host, plugin), []).append((place, (name, value)))
        except PluginError as error:
            answers[place] = _rejection(error.reason)
    for connector, questions in asked.items():
        for start in range(0, len(questions), _VALUES_AT_A_TIME):
            part = questions[start : start + _VALUES_AT_A_TIME]
            found = await host.normalise(connector, [pair for _, pair in part])
            answers |= {place: _normalised(value) for (place, _), value in zip(part, found, strict=True)}
    return [answers[place] for place in range(count)]


def resolve(host: PluginHost, name: str) -> str:
    """The connector that is meant: by its name, or by the distribution or entry point that offers it alone.

    Raises:
        PluginError: There is none (kind "load").
    """
    connectors = host.connectors()
    if name in connectors:
        return name
    offered = [info.name for info in connectors.values() if info.plugin == name]
    if len(offered) == 1:
        return offered[0]
    for failure in host.failures():
        if failure.plugin in (name, f"headrace-destination-{name}"):
            raise PluginError(PluginErrorKind.LOAD, failure.plugin, failure.reason)
    there = ", ".join(sorted(connectors)) or "none"
    raise PluginError(PluginErrorKind.LOAD, "", f"no plugin offers the connector {name!r}; there are: {there}")


async def _render_events(
    instance: ConnectorInstance, show: Show, mapping: CompiledMapping, events: Sequence[EventItem], now_us: int | None
) -> Rendering:
    rendering = Rendering()
    ready: list[EventItem] = []
    for event in events:
        try:
            fields = mapping.event_fields(event)
        except MappingError as error:
            rendering.skipped.append({"message_id": event.message_id, "reason": str(error)})
            continue
        missing = instance.info.missing(fields)
        if missing:
            rendering.skipped.append({"message_id": event.message_id, "reason": f"{missing} is missing"})
            continue
        ready.append(replace(event, fields=fields))

    async def build(part: Sequence[EventItem]) -> wire.BuiltBatch:
        clock_us = max(map(_came_us, part)) if now_us is None else now_us
        return await instance.send_events(EventBatch(events=tuple(part), now_us=clock_us))

    for part in [ready] if now_us is not None else _about_the_same_time(ready):
        await build_all(rendering, instance.info.batch, show, build, part, lambda event: event.message_id)
    return rendering


def _came_us(event: EventItem) -> int:
    return max(event.timestamp_us, event.received_at_us)


def _about_the_same_time(events: Sequence[EventItem]) -> Iterator[list[EventItem]]:
    """The events in their order, divided where they came at moments that lie far apart."""
    part: list[EventItem] = []
    earliest = latest = 0
    for event in events:
        came = _came_us(event)
        if part and max(latest, came) - min(earliest, came) > HOUR_US:
            yield part
            part = []
        earliest, latest = (min(earliest, came), max(latest, came)) if part else (came, came)
        part.append(event)
    yield part


async def _render_members(
    instance: ConnectorInstance, show: Show, mapping: CompiledMapping, lines: Sequence[MemberLine], now_us: int
) -> Rendering:
    rendering = Rendering()
    members: list[tuple[MemberLine, Member]] = []
    for line in lines:
        try:
            fields = {**mapping.member_fields(line.profile), **line.fields}
        except MappingError as error:
            rendering.skipped.append({"message_id": line.id, "reason": str(error)})
            continue
        missing = instance.info.missing(fields)
        if missing:
            rendering.skipped.append({"message_id": line.id, "reason": f"{missing} is missing"})
            continue
        members.append((line, Member(profile_id=line.id, fields=fields)))
    found = await instance.rows([member for _, member in members])
    rows: dict[bool, list[tuple[str, Row]]] = {True: [], False: []}
    for (line, _), member in zip(members, found, strict=True):
        if member.rejected is not None:
            rendering.skipped.append({"message_id": line.id, "reason": member.rejected.reason})
        rows[line.remove] += [(line.id, row) for row in member.rows]

    async def remove(part: Sequence[tuple[str, Row]]) -> wire.BuiltBatch:
        return await instance.remove_members(MemberBatch(rows=tuple(row for _, row in part), now_us=now_us))

    async def add(part: Sequence[tuple[str, Row]]) -> wire.BuiltBatch:
        return await instance.add_members(MemberBatch(rows=tuple(row for _, row in part), now_us=now_us))

    # Removals first: where the vendor keeps people, not rows, the additions put back who is still to be there.
    await build_all(rendering, instance.info.batch, show, remove, rows[True], lambda item: item[0])
    await build_all(rendering, instance.info.batch, show, add, rows[False], lambda item: item[0])
    return rendering


async def build_all(
    rendering: Rendering,
    policy: BatchPolicy,
    show: Show,
    build: Callable[[Sequence[ItemT]], Awaitable[wire.BuiltBatch]],
    items: Sequence[ItemT],
    name_of: Callable[[ItemT], str],
) -> None:
    """Build batches of the connector's size; one whose request is too large is halved, as in delivery.

    Args:
        rendering: Takes what is found.
        policy: The connector's batches.
        show: A request as it is shown.
        build: Lets the connector make requests of a batch.
        items: What is to be sent.
        name_of: What an item is called.
    """
    waiting = [list(items[start : start + policy.max_items]) for start in range(0, len(items), policy.max_items)]
    waiting.reverse()
    while waiting:
        part = waiting.pop()
        built = await build(part)
        if len(part) > 1 and any(len(request.body) > policy.max_bytes for request in built.requests):
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        for request in built.requests:
            names = [name_of(part[place]) for place in request.items]
            rendering.built.append((request, names))
            rendering.requests.append({**show(request), "message_ids": list(dict.fromkeys(names))})
        for skip in built.skipped:
            rendering.skipped.append({"message_id": name_of(part[skip.item]), "reason": skip.reason})
            if skip.is_failure:
                rendering.failures.append(name_of(part[skip.item]))
        for note in built.notes:
            rendering.warnings.append({"message_id": name_of(part[note.item]), "reason": note.reason})


def masked_request(request: Request, secrets: Iterable[str]) -> dict[str, Any]:
    """A request for display: {"method", "url", "headers", "body"}, secrets masked.

    The body is the text that goes over the wire, or {"base64": ...} when it is no UTF-8.

    Args:
        request: As the connector made it.
        secrets: The secrets of the settings (`ConnectorInstance.secrets`).
    """
    masker = Masker([*secrets, *request.secrets])
    body = masker.mask(request.body)
    shown: Any
    try:
        shown = body.decode()
    except UnicodeDecodeError:
        shown = {"base64": base64.b64encode(body).decode()}
    return {
        "method": request.method,
        "url": masker.mask(request.url),
        "headers": {name: masker.mask(value) for name, value in request.headers.items()},
        "body": shown,
    }


def _normalised(value: wire.NormalisedValue) -> dict[str, str | None]:
    return {"normalised": value.normalised, "sent": value.sent, "rejected": value.rejected}


def _rejection(reason: str) -> dict[str, str | None]:
    return {"normalised": None, "sent": None, "rejected": reason}
