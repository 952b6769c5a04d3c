"""Why somebody is in an audience, or not: every condition, the events that count, and when it changes.

It is answered from the person's events in the log, by the naive evaluator that the others are held to: what it says is
how the definition is meant, whatever the engine keeps. When conditions change next is asked of an engine of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.rpc.errors import invalid_argument, limit_exceeded, not_found
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.handlers import Audiences
from headrace_audience.language.text.printing import condition_text
from headrace_audience.offline.changes import next_changes
from headrace_audience.offline.explain import explain
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.references import referenced
from headrace_audience.store import MEMBERSHIPS, membership_key
from headrace_audience.stored import definition_of

MOST_EVENTS = 20_000
"""People of more events are not explained: it would hold up everybody else."""
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
        summary: Why, in sentences.
        missing: Sentences of the fewest conditions that would have to change for the membership to.
        condition: What `offline.explain` says, with "text" for each condition.
    """

    profile_id: str
    at_us: int
    member: bool
    stored: bool
    since_us: int
    summary: str
    missing: Sequence[str]
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
        definition = definition_of(document)
        if definition.of == "groups":
            raise invalid_argument("name", "is an audience of groups; explain one with the condition of their members")
        survivors = await self._reader.survivors(workspace_id)
        profile_id = survivors.of(profile_id)
        events = await self._events(workspace_id, profile_id, list(survivors.parts_of([profile_id])))
        known = await referenced(self._db, workspace_id, definition, only=profile_id)
        at_us = at_us or now_us()

        def find() -> Explanation:
            reference = Reference(facts_of_resolved(events), known)
            changes = next_changes(profile_id, events, definition, known, at_us)
            found = explain(reference, definition, profile_id, at_us, changes)
            is_told = len(events) <= _MOST_LOOKED_BACK
            since = reference.since(definition, profile_id, at_us) if is_told else None
            condition = _with_texts(found["condition"], json.loads(document["def"])["where"])
            member, said, missing = found["member"], found["summary"], found["missing"]
            return Explanation(profile_id, at_us, member, stored, since or 0, said, missing, condition)

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


def _with_texts(found: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation with the text of each condition."""
    inner = [raw["not"]] if "not" in raw else raw.get("all", raw.get("any", []))
    parts = [_with_texts(part, of) for part, of in zip(found.get("parts", ()), inner, strict=True)]
    return {**found, "text": condition_text(raw), **({"parts": parts} if parts else {})}
