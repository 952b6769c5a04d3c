"""Why somebody, or a group, is in an audience or not: every condition, what counts for it, and when it changes.

It is answered from the person's events in the log, by the naive evaluator that the others are held to: what it says is
how the definition is meant, whatever the engine keeps. When conditions change next is asked of an engine of its own.
Of an audience that does not follow events the moment is explained as of which its members are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import format_time_us, now_us, parse_time_us
from headrace.rpc.errors import limit_exceeded, not_found
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.answers.standing import Standing, standing
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batch import queries
from headrace_audience.batch.group_changes import GroupChanges, group_changes, group_holds
from headrace_audience.batch.groups import GroupFacts
from headrace_audience.calls.handlers import Audiences
from headrace_audience.definitions.references import Known, referenced
from headrace_audience.definitions.unreadable import understood
from headrace_audience.language.definition import Condition, Definition
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
        at_us: The moment that is explained, in microseconds.
        state: The audience's state.
        stored: Whether the profile is a member as stored now.
        now: Whether the definition holds now.
        since_us: Since when that has been so; 0 when always, or when there are too many events to say.
        changes_us: When it changes if no event comes; 0 when it does not.
        summary: Why, in sentences; of an audience that does not follow events first what is stored.
        found: What `offline.explain` or `offline.group_explain` says.
        as_of_us: The moment as of which the stored members are, of an audience that does not follow events; 0.
        next_us: When one that is refreshed at intervals is refreshed next; 0.
    """

    profile_id: str
    at_us: int
    state: str
    stored: bool
    now: bool
    since_us: int
    changes_us: int
    summary: str
    found: Mapping[str, Any]
    as_of_us: int = 0
    next_us: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked about an audience, and what is stored of it."""

    document: Document
    definition: Definition
    standing: Standing
    member_id: str
    at_us: int
    """The moment that was asked for; 0: none."""
    now_us: int
    is_in: bool
    since_us: int
    """Since when the membership has been what is stored; 0: unknown."""

    @property
    def explained_us(self) -> int:
        """The moment to explain: without one that was asked for that of the stored members."""
        kept_us = 0 if self.standing.is_live else self.standing.as_of_us
        return self.at_us or kept_us or self.now_us

    @property
    def goes_by_time(self) -> bool:
        """Whether time alone changes what is explained."""
        return self.standing.is_live or self.standing.are_none

    def turn_us(self, now: bool, changes_us: int | None) -> int:
        """The refresh at which what is stored may change if no event comes; 0: none.

        Args:
            now: Whether the definition holds now.
            changes_us: When that changes if no event comes; None: never.
        """
        next_us, every = self.standing.next_us, self.definition.refresh_us
        if not next_us or self.at_us:
            return 0
        if now is not self.is_in:
            return next_us
        if changes_us is None:
            return 0
        return next_us + max(0, -((next_us - changes_us) // every)) * every

    def answer(self, found: Mapping[str, Any], now: bool, since_us: int, turn_us: int) -> Explanation:
        """The answer.

        Args:
            found: What was found at the moment to explain.
            now: Whether the definition holds now.
            since_us: Since when it has held, or not, at that moment; 0.
            turn_us: The refresh at which what is stored changes if no event comes; 0: none.
        """
        changes_us = parse_time_us(found["changes_at"]) if found["changes_at"] else 0
        said = found["summary"]
        if not self.standing.is_live:
            said = f"{self.standing.told(self.is_in, now)} {self._lead()} {said}"
        if not self.goes_by_time and not self.at_us:
            since_us = self.since_us if self.is_in is found["member"] else 0
        if turn_us:
            changes_us = turn_us
            verb = "leaves" if self.is_in else "enters"
            said += f" By time alone it {verb} at the refresh of {format_time_us(turn_us)}."
        return Explanation(
            self.member_id,
            self.explained_us,
            self.document["state"],
            self.is_in,
            now,
            since_us,
            changes_us,
            said,
            found,
            self.standing.as_of_us,
            self.standing.next_us,
        )

    def _lead(self) -> str:
        if self.at_us:
            return f"At {format_time_us(self.at_us)} by the definition:"
        return "As of then:" if self.standing.as_of_us else "By the definition:"


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
            at_us: The moment, in microseconds; 0 is now, or of an audience that does not follow events the moment as
                of which its members are.

        Raises:
            ApiError: NOT_FOUND, there is no such audience, or no event of such a profile or group; LIMIT_EXCEEDED, the
                person has too many events.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = understood(document)
        if definition.of == "groups":
            return await self._group(await self._asked(document, definition, profile_id, at_us))
        survivors = await self._reader.survivors(workspace_id)
        profile_id = survivors.of(profile_id)
        events = await self._events(workspace_id, profile_id, list(survivors.parts_of([profile_id])))
        known = await referenced(self._db, workspace_id, definition, only=profile_id)
        asked = await self._asked(document, definition, profile_id, at_us)
        return await asyncio.to_thread(_of_person, asked, events, known)

    async def _asked(self, document: Document, definition: Definition, member_id: str, at_us: int) -> _Asked:
        key = membership_key(document["w"], document["a"], member_id)
        row = await self._db[MEMBERSHIPS].find_one({"_id": key}, {"in": 1, "since": 1}) or {"in": False, "since": 0}
        stands = standing(document, definition)
        return _Asked(document, definition, stands, member_id, at_us, now_us(), row["in"], row["since"])

    async def _group(self, asked: _Asked) -> Explanation:
        """Of a group: its members may be many, so the batch evaluator is asked how many hold what.

        Since when it is so is told of now, as it is stored: since which refresh.
        """
        workspace_id, definition = asked.document["w"], asked.definition
        group_id, at_us = asked.member_id, asked.explained_us
        known = await referenced(self._db, workspace_id, definition)
        ask = partial(queries.group_facts, definition=definition, group_id=group_id, audiences=known)
        async with self._reader.open(workspace_id) as view:
            facts = await view.run(partial(ask, now_us=at_us))
            if facts is None:
                raise not_found(f"workspaces/{workspace_id}/groups/{group_id}")
            changes = GroupChanges({}, complete=False)
            if asked.goes_by_time:
                when = partial(group_changes, definition=definition, group_id=group_id, now_us=at_us)
                changes = await view.run(partial(when, audiences=known, facts=facts))

            async def facts_at(moment_us: int) -> GroupFacts:
                later = await view.run(partial(ask, now_us=moment_us))
                assert later is not None  # the same events name the group at every moment
                return later

            facts_now = await facts_at(asked.now_us)
            now = group_holds(definition.where, facts_now)
            turn_us = 0
            if asked.standing.next_us:
                when = partial(group_changes, definition=definition, group_id=group_id, now_us=asked.now_us)
                later = await view.run(partial(when, audiences=known, facts=facts_now))
                turn_us = asked.turn_us(now, later.moments.get(definition.where))
                if turn_us and group_holds(definition.where, await facts_at(turn_us)) is asked.is_in:
                    turn_us = 0
        raw = json.loads(asked.document["def"])["where"]
        found = await asyncio.to_thread(explain_group, definition, facts, raw, changes)
        is_told = not asked.at_us and asked.is_in is found["member"]
        return asked.answer(found, now, asked.since_us if is_told else 0, turn_us)

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


def _of_person(asked: _Asked, events: Sequence[ResolvedEvent], known: Mapping[str, Known]) -> Explanation:
    """Of a person, from all their events; `known` is what the audiences mean that the definition names."""
    definition, profile_id, at_us = asked.definition, asked.member_id, asked.explained_us
    reference = Reference(facts_of_resolved(events), known)
    changes = next_changes(profile_id, events, definition, known, at_us) if asked.goes_by_time else _never
    raw = json.loads(asked.document["def"])["where"]
    found = explain(reference, definition, profile_id, at_us, changes, raw=raw, tells_time=asked.goes_by_time)
    is_told = len(events) <= _MOST_LOOKED_BACK
    since = reference.since(definition, profile_id, at_us) if is_told else None
    now = reference.holds(definition.where, profile_id, asked.now_us)
    turn_us = 0
    if asked.standing.next_us:
        later = next_changes(profile_id, events, definition, known, asked.now_us)
        turn_us = asked.turn_us(now, later(definition.where))
        if turn_us and reference.holds(definition.where, profile_id, turn_us) is asked.is_in:
            turn_us = 0
    return asked.answer(found, now, since or 0, turn_us)


def _never(_: Condition) -> None:
    """When a condition changes of which time changes nothing: the members stay as they are."""
