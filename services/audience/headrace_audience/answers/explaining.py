"""Why somebody is in an audience, or not: every condition, the events that count, and when it changes.

It is answered from the person's events in the log, by the naive evaluator that the others are held to: what it says is
how the definition is meant, whatever the engine keeps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.domain.times import now_us
from headrace.rpc.errors import limit_exceeded, not_found
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.handlers import Audiences
from headrace_audience.language.parser import parse_definition
from headrace_audience.language.text.printing import condition_text
from headrace_audience.offline.explain import explain
from headrace_audience.offline.facts import Fact, facts_of_resolved
from headrace_audience.offline.reference import Reference
from headrace_audience.references import referenced
from headrace_audience.store import MEMBERSHIPS, membership_key

MOST_EVENTS = 20_000
"""People of more events are not explained: asking at all moments would hold up everybody else."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why somebody is in or out.

    Attributes:
        profile_id: The profile; of a merged one the survivor.
        at_us: The moment, in microseconds.
        member: Whether the definition holds then.
        stored: Whether the profile is a member as stored now.
        since_us: Since when that has been so; 0 when always.
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
            ApiError: NOT_FOUND, there is no such audience, or no event of such a profile; LIMIT_EXCEEDED, the person
                has too many events.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = parse_definition(document["def"])
        survivors = await self._reader.survivors(workspace_id)
        profile_id = survivors.of(profile_id)
        facts = await self._facts(workspace_id, profile_id, list(survivors.parts_of([profile_id])))
        known = await referenced(self._db, workspace_id, definition, only=profile_id)
        at_us = at_us or now_us()

        def find() -> Explanation:
            reference = Reference(facts, known)
            found = explain(reference, definition, profile_id, at_us)
            since = reference.since(definition, profile_id, at_us)
            condition = _with_texts(found["condition"], json.loads(document["def"])["where"])
            return Explanation(profile_id, at_us, found["member"], stored, since or 0, condition)

        key = membership_key(workspace_id, audience_id, profile_id)
        stored = bool(await self._db[MEMBERSHIPS].count_documents({"_id": key, "in": True}, limit=1))
        return await asyncio.to_thread(find)

    async def _facts(self, workspace_id: str, profile_id: str, parts: Sequence[str]) -> list[Fact]:
        events = []
        async for event in event_log.events_of_profiles(self._db, workspace_id, parts):
            event.profile_id = profile_id
            events.append(event)
            if len(events) > MOST_EVENTS:
                message = f"The person has more than {MOST_EVENTS:,} events: that is too many to explain."
                raise limit_exceeded("explained_events", message)
        if not events:
            raise not_found(f"workspaces/{workspace_id}/profiles/{profile_id}")
        return list(facts_of_resolved(events))


def _with_texts(found: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation with the text of each condition."""
    inner = [raw["not"]] if "not" in raw else raw.get("all", raw.get("any", []))
    parts = [_with_texts(part, of) for part, of in zip(found.get("parts", ()), inner, strict=True)]
    return {**found, "text": condition_text(raw), **({"parts": parts} if parts else {})}
