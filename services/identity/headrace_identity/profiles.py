"""Reading people: by identifier, by the id of any part, page by page, and their events over all parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pymongo import ASCENDING, DESCENDING

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import event_key
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace_identity.documents import SEPARATOR, identifier_key, profile_from, profile_key
from headrace_identity.graph import Profile, TraitValue, union_of_traits
from headrace_identity.rules import Identifier
from headrace_identity.store import IDENTIFIERS, PROFILES, MissingProfile, survivors

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)


@dataclass(frozen=True, slots=True)
class Person:
    """A profile that was not merged into another, with the traits of all its parts."""

    profile: Profile
    traits: dict[str, TraitValue]


@dataclass(frozen=True, slots=True)
class EventPosition:
    """A place among the events of a person, newest first; the sequence decides between events of the same time."""

    timestamp_us: int
    sequence: int


class Profiles:
    """Reads profiles and their events."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db

    async def find(self, workspace_id: str, identifier: Identifier) -> Person | None:
        """Who holds an identifier, as normalised by the rules; None when nobody does."""
        document = await self._db[IDENTIFIERS].find_one({"_id": identifier_key(workspace_id, identifier)}, {"p": 1})
        if document is None or not document["p"]:
            return None
        people = await self.get(workspace_id, [document["p"]])
        return people[document["p"]]

    async def get(self, workspace_id: str, profile_ids: Collection[str]) -> dict[str, Person]:
        """The people behind profile ids, those of merged parts included; unknown ids are left out."""
        moved = await survivors(self._db, workspace_id, profile_ids)
        wanted = {p: moved.get(p, p) for p in profile_ids}
        roots = await self._load(workspace_id, set(wanted.values()))
        people = await self._people(workspace_id, roots.values())
        return {p: people[root] for p, root in wanted.items() if root in people}

    async def page(self, workspace_id: str, after: str, limit: int) -> list[Person]:
        """People by id, those after an id."""
        bounds = {"$gt": profile_key(workspace_id, after), "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}
        query = {"_id": bounds, "into": {"$exists": False}}
        cursor = self._db[PROFILES].find(query).sort("_id", ASCENDING).limit(limit)
        roots = [profile_from(d) async for d in cursor]
        people = await self._people(workspace_id, roots)
        return [people[root.id] for root in roots]

    async def events(
        self, workspace_id: str, person: Person, *, before: EventPosition | None, names: Sequence[str], limit: int
    ) -> list[ResolvedEvent]:
        """Events of a person over all parts, newest event time first.

        Args:
            workspace_id: The workspace.
            person: The person.
            before: Only those after this one in the order; None from the newest on.
            names: Only events of these names; empty means all.
            limit: At most this many.
        """
        query: Document = {"p": {"$in": person.profile.parts}, "w": workspace_id}
        if names:
            query["n"] = {"$in": list(names)}
        if before is not None:
            # The range bounds the scan of the index; the rest only tells events of exactly that time apart.
            query["t"] = {"$lte": before.timestamp_us}
            query["$or"] = [
                {"t": {"$lt": before.timestamp_us}},
                {"t": before.timestamp_us, "s": {"$lt": before.sequence}},
            ]
        cursor = self._db[log.EVENTS].find(query).sort([("t", DESCENDING), ("s", DESCENDING)]).limit(limit)
        found = [log.resolved_event(d) async for d in cursor]
        for event in found:
            event.profile_id = person.profile.id
        return found

    async def event(self, workspace_id: str, message_id: str) -> ResolvedEvent | None:
        """One resolved event, with the id of the profile that it belongs to now; None when it is not stored."""
        document = await self._db[log.EVENTS].find_one({"_id": event_key(workspace_id, message_id), "w": workspace_id})
        if document is None:
            return None
        event = log.resolved_event(document)
        moved = await survivors(self._db, workspace_id, [event.profile_id] if event.profile_id else [])
        event.profile_id = moved.get(event.profile_id, event.profile_id)
        return event

    async def _load(self, workspace_id: str, profile_ids: Iterable[str]) -> dict[str, Profile]:
        keys = [profile_key(workspace_id, p) for p in profile_ids]
        query = {"_id": {"$in": keys}, "w": workspace_id}
        profiles = [profile_from(d) async for d in self._db[PROFILES].find(query)]
        return {p.id: p for p in profiles}

    async def _people(self, workspace_id: str, roots: Iterable[Profile]) -> dict[str, Person]:
        found = {root.id: root for root in roots}
        others = {part for root in found.values() for part in root.parts} - found.keys()
        parts = found | (await self._load(workspace_id, others) if others else {})
        if not others <= parts.keys():
            raise MissingProfile
        return {r.id: Person(r, union_of_traits(parts[part] for part in r.parts)) for r in found.values()}
