"""Why somebody is in an audience, or not: every condition, the events that count, and when it changes.

It is answered from the person's events in the log, by the naive evaluator that the others are held to: what it says is
how the definition is meant, whatever the engine keeps. When conditions change next is asked of an engine of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.rpc.errors import invalid_argument, limit_exceeded, not_found
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.engine.engine import Engine
from headrace_audience.handlers import Audiences
from headrace_audience.language.definition import All, Any_, Condition, Definition, Not
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.printing import condition_text
from headrace_audience.offline.explain import Changes, explain
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.references import Known, referenced
from headrace_audience.store import MEMBERSHIPS, membership_key

MOST_EVENTS = 20_000
"""People of more events are not explained: it would hold up everybody else."""
_MEMBERS = Definition("static", All(()))
_MOST_LOOKED_BACK = 1_000
"""Since when a membership has been so is told of people of so many events: that takes the square of them."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why somebody is in or out.

    Attributes:
        profile_id: The profile; of a merged one the survivor.
        at_us: The moment, in microseconds.
        member: Whether the definition holds then.
        stored: Whether the profile is a member as stored now.
        since_us: Since when that has been so; 0 when always, or when there are too many events to say.
        condition: What `offline.explain` says, with "text" for each condition.
    """

    profile_id: str
    at_us: int
    member: bool
    stored: bool
    since_us: int
    condition: Mapping[str, Any] = field(default_factory=dict)


class Explaining:
    """Explains memberships."""

    def __init__(self, db: Database, audiences: Audiences, reader: ArchiveReader) -> None:
        """Read audiences, merges and the log."""
        self._db = db
        self._audiences = audiences
        self._reader = reader

    async def explain(self, workspace_id: str, audience_id: str, profile_id: str, at_us: int) -> Explanation:
        """Why a profile is in an audience at a moment, or not.

        Args:
            workspace_id: The workspace.
            audience_id: The audience, in whatever state.
            profile_id: The profile; a merged one stands for its survivor.
            at_us: The moment, in microseconds; 0 is now.

        Raises:
            ApiError: INVALID_ARGUMENT, its members are groups; NOT_FOUND, there is no such audience, or no event of
                such a profile; LIMIT_EXCEEDED, the person has too many events.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = parse_definition(document["def"])
        if definition.of == "groups":
            raise invalid_argument("name", "is an audience of groups; explain one with the condition of their members")
        survivors = await self._reader.survivors(workspace_id)
        profile_id = survivors.of(profile_id)
        events = await self._events(workspace_id, profile_id, list(survivors.parts_of([profile_id])))
        known = await referenced(self._db, workspace_id, definition, only=profile_id)
        at_us = at_us or now_us()

        def find() -> Explanation:
            reference = Reference(facts_of_resolved(events), known)
            changes = _changes(profile_id, events, definition, known, at_us)
            found = explain(reference, definition, profile_id, at_us, changes)
            is_told = len(events) <= _MOST_LOOKED_BACK
            since = reference.since(definition, profile_id, at_us) if is_told else None
            condition = _with_texts(found["condition"], json.loads(document["def"])["where"])
            return Explanation(profile_id, at_us, found["member"], stored, since or 0, condition)

        key = membership_key(workspace_id, audience_id, profile_id)
        stored = bool(await self._db[MEMBERSHIPS].count_documents({"_id": key, "in": True}, limit=1))
        return await asyncio.to_thread(find)

    async def _events(self, workspace_id: str, profile_id: str, parts: Sequence[str]) -> list[ResolvedEvent]:
        events: list[ResolvedEvent] = []
        async for event in event_log.events_of_profiles(self._db, workspace_id, parts):
            event.profile_id = profile_id
            events.append(event)
            if len(events) > MOST_EVENTS:
                message = f"The person has more than {MOST_EVENTS:,} events: that is too many to explain."
                raise limit_exceeded("explained_events", message)
        if not events:
            raise not_found(f"workspaces/{workspace_id}/profiles/{profile_id}")
        return events


def _changes(
    profile_id: str,
    events: Sequence[ResolvedEvent],
    definition: Definition,
    known: Mapping[str, Known],
    at_us: int,
) -> Changes:
    """When each condition of a definition changes next: every one is an audience of an engine that knows one person."""
    engine = Engine("", 1, at_us, capacity=1)
    for audience_id, meaning in known.items():
        engine.set_audience(audience_id, meaning if isinstance(meaning, Definition) else _MEMBERS)
    ids: dict[Condition, str] = {}
    for number, condition in enumerate(_every(definition.where)):
        ids.setdefault(condition, f"condition {number}")
    for condition, audience_id in ids.items():
        engine.set_audience(audience_id, Definition("dynamic", condition))
    engine.fold(events, now_us=at_us)
    for audience_id, meaning in known.items():
        if not isinstance(meaning, Definition) and profile_id in meaning:
            engine.set_membership(audience_id, [profile_id])
    for audience_id in (*known, *ids.values()):
        engine.start_audience(audience_id)
    engine.advance(at_us)
    return lambda condition: engine.next_flip_us(ids[condition], profile_id)


def _every(condition: Condition) -> Iterator[Condition]:
    """A condition and all that it combines."""
    yield condition
    if isinstance(condition, All | Any_):
        for part in condition.parts:
            yield from _every(part)
    elif isinstance(condition, Not):
        yield from _every(condition.part)


def _with_texts(found: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation with the text of each condition."""
    inner = [raw["not"]] if "not" in raw else raw.get("all", raw.get("any", []))
    parts = [_with_texts(part, of) for part, of in zip(found.get("parts", ()), inner, strict=True)]
    return {**found, "text": condition_text(raw), **({"parts": parts} if parts else {})}
