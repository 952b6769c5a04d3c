"""Why somebody, or a group, is in an audience or not: every condition, what counts for it, and when it changes.

It is answered from the person's events in the log, by the naive evaluator that the others are held to: what it says is
how the definition is meant, whatever the engine keeps. When conditions change next is asked of an engine of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.rpc.errors import limit_exceeded, not_found
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batch import queries
from headrace_audience.batch.group_changes import group_changes
from headrace_audience.calls.handlers import Audiences
from headrace_audience.definitions.references import referenced
from headrace_audience.definitions.unreadable import understood
from headrace_audience.language.definition import Definition
from headrace_audience.offline.changes import next_changes
from headrace_audience.offline.explain import explain
from headrace_audience.offline.facts import facts_of_resolved
from headrace_audience.offline.group_explain import explain_group
from headrace_audience.offline.reference import Reference
from headrace_audience.store import MEMBERSHIPS, membership_key

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
        stored: Whether the profile is a member as stored now.
        since_us: Since when that has been so; 0 when always, or when there are too many events to say.
        found: What `offline.explain` or `offline.group_explain` says.
        refreshed_us: The moment as of which the stored members are, of an audience that is computed for moments; 0.
        next_us: When one that is refreshed at intervals is refreshed next; 0.
    """

    profile_id: str
    at_us: int
    stored: bool
    since_us: int
    found: Mapping[str, Any]
    refreshed_us: int = 0
    next_us: int = 0


class Explaining:
    """Explains memberships."""

    def __init__(self, db: Database, audiences: Audiences, reader: ArchiveReader) -> None:
        """Read audiences, merges and the log."""
        self._db = db
        self._audiences = audiences
        self._reader = reader

    async def explain(self, workspace_id: str, audience_id: str, profile_id: str, at_us: int) -> Explanation:
        """Why a profile, or a group, is in an audience at a moment, or not.

        Args:
            workspace_id: The workspace.
            audience_id: The audience, in whatever state.
            profile_id: The profile; a merged one stands for its survivor. Of an audience of groups the group.
            at_us: The moment, in microseconds; 0 is now.

        Raises:
            ApiError: NOT_FOUND, there is no such audience, or no event of such a profile or group; LIMIT_EXCEEDED, the
                person has too many events.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = understood(document)
        if definition.of == "groups":
            return await self._group(document, definition, profile_id, at_us)
        survivors = await self._reader.survivors(workspace_id)
        profile_id = survivors.of(profile_id)
        events = await self._events(workspace_id, profile_id, list(survivors.parts_of([profile_id])))
        known = await referenced(self._db, workspace_id, definition, only=profile_id)
        at_us = at_us or now_us()

        def find() -> Explanation:
            reference = Reference(facts_of_resolved(events), known)
            changes = next_changes(profile_id, events, definition, known, at_us)
            raw = json.loads(document["def"])["where"]
            found = explain(reference, definition, profile_id, at_us, changes, raw=raw)
            is_told = len(events) <= _MOST_LOOKED_BACK
            since = reference.since(definition, profile_id, at_us) if is_told else None
            return Explanation(profile_id, at_us, stored, since or 0, found)

        stored = await self._is_stored(workspace_id, audience_id, profile_id)
        return await asyncio.to_thread(find)

    async def _is_stored(self, workspace_id: str, audience_id: str, member_id: str) -> bool:
        key = membership_key(workspace_id, audience_id, member_id)
        return bool(await self._db[MEMBERSHIPS].count_documents({"_id": key, "in": True}, limit=1))

    async def _group(self, document: Document, definition: Definition, group_id: str, asked_us: int) -> Explanation:
        """Of a group: its members may be many, so the batch evaluator is asked how many hold what.

        Since when it is so is told of now, as it is stored: since which refresh.
        """
        workspace_id = document["w"]
        at_us = asked_us or now_us()
        key = membership_key(workspace_id, document["a"], group_id)
        row = await self._db[MEMBERSHIPS].find_one({"_id": key}, {"in": 1, "since": 1}) or {"in": False, "since": 0}
        known = await referenced(self._db, workspace_id, definition)
        ask = partial(queries.group_facts, definition=definition, group_id=group_id, now_us=at_us, audiences=known)
        async with self._reader.open(workspace_id) as view:
            facts = await view.run(ask)
            if facts is None:
                raise not_found(f"workspaces/{workspace_id}/groups/{group_id}")
            when = partial(group_changes, definition=definition, group_id=group_id, now_us=at_us)
            changes = await view.run(partial(when, audiences=known, facts=facts))
        raw = json.loads(document["def"])["where"]
        found = await asyncio.to_thread(explain_group, definition, facts, raw, changes)
        is_told = not asked_us and row["in"] is found["member"]
        return Explanation(
            group_id,
            at_us,
            row["in"],
            row["since"] if is_told else 0,
            found,
            document.get("refreshed", 0),
            document.get("next", 0) if definition.refresh_us else 0,
        )

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
