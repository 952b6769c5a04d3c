"""The audiences that a profile is in, and when time alone ends each membership.

A membership is a row; its end is computed. The replica that keeps the profile's partition reads it off its live state.
Any other one computes it from the profile's events, by the same engine.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pymongo import ASCENDING

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.times import now_us
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.definitions.stored import MEANING_FIELDS, keeps_members
from headrace_audience.definitions.unreadable import readable
from headrace_audience.engine.engine import Engine
from headrace_audience.language.definition import All, Definition
from headrace_audience.store import ACTIVE, AUDIENCES, COMPUTED, MEMBERSHIPS, VISIBLE, membership_key
from headrace_audience.worker import Worker

MOST_AUDIENCES = 1_000
_MOST_EVENTS = 20_000
"""Ends are not computed for people of more events: that would hold up everybody else."""
_LIVE_WAIT_S = 1.0

_STATIC = Definition("static", All(()))


@dataclass(frozen=True, slots=True)
class ProfileAudience:
    """An audience that a profile is in.

    Attributes:
        audience_id: The audience.
        display_name: Its name.
        since_us: Since when, in microseconds.
        leaves_at_us: When time alone ends that; 0 when it does not, or nobody can say.
    """

    audience_id: str
    display_name: str
    since_us: int
    leaves_at_us: int


class Outlooks:
    """Says which audiences profiles are in."""

    def __init__(self, db: Database, worker: Worker, reader: ArchiveReader) -> None:
        """Ask the worker of this replica first, then the log."""
        self._db = db
        self._worker = worker
        self._reader = reader

    async def of(self, workspace_id: str, profile_id: str, parts: Sequence[str]) -> list[ProfileAudience]:
        """The audiences that a profile is in, by id; at most a thousand.

        Args:
            workspace_id: The workspace.
            profile_id: The profile, none that was merged into another.
            parts: Ids of all its parts, itself included; empty when they are not known.
        """
        query: Document = {"w": workspace_id, "a": {"$exists": True}, "state": {"$in": list(VISIBLE)}}
        fields = {"a": 1, "name": 1, **MEANING_FIELDS}
        audiences = {d["a"]: d async for d in self._db[AUDIENCES].find(query, fields)}
        query = {"_id": {"$in": [membership_key(workspace_id, a, profile_id) for a in sorted(audiences)]}, "in": True}
        rows = self._db[MEMBERSHIPS].find(query, {"a": 1, "since": 1}).sort("_id", ASCENDING).limit(MOST_AUDIENCES)
        since = {d["a"]: d["since"] async for d in rows}
        if not since:
            return []
        ending = {a for a in since if a in audiences and audiences[a]["state"] == ACTIVE}
        ends = await self._live_ends(workspace_id, profile_id, ending)
        if ends is None:
            known = {a: _known(d) for a, d in audiences.items()}
            ends = await self._computed_ends(workspace_id, profile_id, parts, ending, known, since)
        return [
            ProfileAudience(a, audiences[a]["name"], since_us, ends.get(a, 0))
            for a, since_us in since.items()
            if a in audiences
        ]

    async def _live_ends(
        self, workspace_id: str, profile_id: str, audience_ids: Collection[str]
    ) -> dict[str, int] | None:
        """Ends by the live state; None when this replica does not keep it, or is busy with it."""
        found = self._worker.live(workspace_id, profile_id)
        if found is None:
            return None
        lock, evaluation = found
        try:
            async with asyncio.timeout(_LIVE_WAIT_S):
                await lock.acquire()
        except TimeoutError:
            return None
        try:
            return _ends(evaluation.engine, profile_id, audience_ids & evaluation.audiences.keys())
        finally:
            lock.release()

    async def _computed_ends(
        self,
        workspace_id: str,
        profile_id: str,
        parts: Sequence[str],
        audience_ids: Collection[str],
        known: Mapping[str, Definition],
        member_of: Collection[str],
    ) -> dict[str, int]:
        if not parts:
            survivors = await self._reader.survivors(workspace_id)
            parts = list(survivors.parts_of([profile_id]))
        events: list[ResolvedEvent] = []
        async for event in event_log.events_of_profiles(self._db, workspace_id, parts):
            event.profile_id = profile_id
            events.append(event)
            if len(events) > _MOST_EVENTS:
                return {}
        return await asyncio.to_thread(
            ends_by_events, workspace_id, profile_id, events, audience_ids, known, member_of, now_us()
        )


def ends_by_events(
    workspace_id: str,
    profile_id: str,
    events: Iterable[ResolvedEvent],
    audience_ids: Collection[str],
    known: Mapping[str, Definition],
    member_of: Collection[str],
    at_us: int,
) -> dict[str, int]:
    """When time alone ends a profile's memberships, by its events.

    Args:
        workspace_id: The workspace.
        profile_id: The profile.
        events: All its events, with its id.
        audience_ids: The audiences asked for.
        known: Definitions of all audiences; of those that are not computed any static one.
        member_of: Audiences that the profile is in by the stored rows.
        at_us: The present, in microseconds.

    Returns:
        The moment of those memberships that end, by audience; none of those that events and rows say differently.
    """
    engine = Engine(workspace_id, 1, at_us, capacity=1)
    needed = _with_references(audience_ids, known)
    for audience_id in sorted(needed):
        engine.set_audience(audience_id, known[audience_id])
    engine.fold(events, now_us=at_us)
    for audience_id in sorted(needed):
        if known[audience_id].kind == "static" and audience_id in member_of:
            engine.set_membership(audience_id, [profile_id])
        engine.start_audience(audience_id)
    engine.advance(at_us)
    return _ends(engine, profile_id, needed.intersection(audience_ids))


def _ends(engine: Engine, profile_id: str, audience_ids: Iterable[str]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for audience_id in audience_ids:
        if engine.is_member(audience_id, profile_id):
            moment_us = engine.next_flip_us(audience_id, profile_id)
            if moment_us is not None:
                ends[audience_id] = moment_us
    return ends


def _with_references(audience_ids: Iterable[str], known: Mapping[str, Definition]) -> set[str]:
    """Audiences with those that they name, directly or through others, as far as they are known."""
    found: set[str] = set()
    waiting = {a for a in audience_ids if a in known}
    while waiting:
        found |= waiting
        named = itertools.chain.from_iterable(known[a].references for a in waiting)
        waiting = {a for a in named if a in known} - found
    return found


def _known(document: Document) -> Definition:
    """What an audience means to others: its definition when it is computed, else what its rows say."""
    definition = readable(document)
    is_live = document["state"] in COMPUTED and not keeps_members(document)
    return definition if definition is not None and is_live and not definition.is_batch else _STATIC
