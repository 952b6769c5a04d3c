"""Reading people: by identifier, by the id of any part, page by page, and their events over all parts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pymongo import ASCENDING, DESCENDING

from headrace.api.identity.v1.profile_pb2 import ComputedTraitValue, ResolvedEvent
from headrace.domain.consent import ConsentValue, newest
from headrace.domain.ids import event_key
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace_identity.computed.reading import ComputedValues
from headrace_identity.computed.traits import ComputedTraits
from headrace_identity.documents import SEPARATOR, identifier_key, profile_from, profile_key
from headrace_identity.groups.statements import Membership, memberships_of_person
from headrace_identity.groups.store import GroupReader
from headrace_identity.resolving.graph import Profile, TraitValue, union_of_traits
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import IDENTIFIERS, PROFILES, MissingProfile, survivors

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)

_Memberships = Sequence[tuple[str, Membership]]
"""Groups that a part belongs to, by id."""


@dataclass(frozen=True, slots=True)
class Person:
    """A profile that was not merged into another.

    Attributes:
        profile: The profile.
        parts: The profile and those that were merged into it, each with its own traits.
        traits: Traits of all parts, by name.
        groups: Groups that it belongs to by any part, by id.
        computed: Computed traits that have a value now.
    """

    profile: Profile
    parts: tuple[Profile, ...]
    traits: dict[str, TraitValue]
    groups: dict[str, Membership]
    computed: list[ComputedTraitValue]

    @property
    def consents(self) -> dict[str, ConsentValue]:
        """What the person said last about each purpose, over all parts."""
        return newest(part.consents for part in self.parts)


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
        self._groups = GroupReader(db)
        self._computed = ComputedValues(db)

    async def of_part(self, workspace_id: str, part: str) -> Person | None:
        """The person to whom a part belongs; None when there is none, or the part is ""."""
        return (await self.get(workspace_id, [part])).get(part) if part else None

    async def holder(self, workspace_id: str, identifier: Identifier) -> str:
        """The part that holds an identifier, as normalised by the rules; "" when nobody does."""
        document = await self._db[IDENTIFIERS].find_one({"_id": identifier_key(workspace_id, identifier)}, {"p": 1})
        return document["p"] if document else ""

    async def get(self, workspace_id: str, profile_ids: Collection[str]) -> dict[str, Person]:
        """The people behind profile ids, those of merged parts included; unknown ids are left out."""
        # Most ids are those of people themselves, of one part: all about them is asked for at once, and what is missing
        # then after it.
        loaded, groups, traits = await asyncio.gather(
            self._load(workspace_id, profile_ids),
            self._memberships(workspace_id, profile_ids),
            self._computed.ready(workspace_id),
        )
        merged = [p.id for p in loaded.values() if p.merged_into is not None]
        moved = await survivors(self._db, workspace_id, merged) if merged else {}
        loaded |= await self._load(workspace_id, set(moved.values()) - loaded.keys())
        wanted = {p: moved.get(p, p) for p in profile_ids}
        roots = [loaded[root] for root in {*wanted.values()} if root in loaded]
        people = await self._people(workspace_id, roots, loaded, groups, traits)
        return {p: people[root] for p, root in wanted.items() if root in people}

    async def page(self, workspace_id: str, after: str, limit: int) -> list[Person]:
        """People by id, those after an id."""
        bounds = {"$gt": profile_key(workspace_id, after), "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}
        query = {"_id": bounds, "into": {"$exists": False}}
        cursor = self._db[PROFILES].find(query).sort("_id", ASCENDING).limit(limit)
        roots = [profile_from(d) async for d in cursor]
        traits = await self._computed.ready(workspace_id)
        people = await self._people(workspace_id, roots, {root.id: root for root in roots}, {}, traits)
        return [people[root.id] for root in roots]

    async def events(
        self,
        workspace_id: str,
        person: Person,
        *,
        before: EventPosition | None = None,
        names: Collection[str] = (),
        source_ids: Collection[str] = (),
        from_us: int = 0,
        to_us: int = 0,
        limit: int,
    ) -> list[ResolvedEvent]:
        """Events of a person over all parts, newest event time first.

        Args:
            workspace_id: The workspace.
            person: The person.
            before: Only those after this one in the order; None from the newest on.
            names: Only events of these names; empty means all.
            source_ids: Only events of these sources; empty means all.
            from_us: Only events at or after this moment, in microseconds.
            to_us: Only events before this moment, in microseconds; 0 means no end.
            limit: At most this many.
        """
        query: Document = {"p": {"$in": person.profile.parts}, "w": workspace_id}
        if names:
            query["n"] = {"$in": list(names)}
        if source_ids:
            query["o"] = {"$in": list(source_ids)}
        times: Document = {}
        if from_us:
            times["$gte"] = from_us
        if to_us:
            times["$lt"] = to_us
        found = await self._events(query, times, before, limit)
        for event in found:
            event.profile_id = person.profile.id
        return found

    async def events_of_group(
        self, workspace_id: str, group_id: str, *, before: EventPosition | None, limit: int
    ) -> list[ResolvedEvent]:
        """Events that name a group, newest event time first, with the ids of the profiles that they belong to now.

        Args:
            workspace_id: The workspace.
            group_id: The group.
            before: Only those after this one in the order; None from the newest on.
            limit: At most this many.
        """
        found = await self._events({"w": workspace_id, "gr": group_id}, {}, before, limit)
        moved = await survivors(self._db, workspace_id, {e.profile_id for e in found if e.profile_id})
        for event in found:
            event.profile_id = moved.get(event.profile_id, event.profile_id)
        return found

    async def _events(
        self, query: Document, times: Document, before: EventPosition | None, limit: int
    ) -> list[ResolvedEvent]:
        if before is not None:
            # The range bounds the scan of the index; the rest only tells events of exactly that time apart.
            times["$lte"] = before.timestamp_us
            query["$or"] = [
                {"t": {"$lt": before.timestamp_us}},
                {"t": before.timestamp_us, "s": {"$lt": before.sequence}},
            ]
        if times:
            query["t"] = times
        cursor = self._db[log.EVENTS].find(query).sort([("t", DESCENDING), ("s", DESCENDING)]).limit(limit)
        return [log.resolved_event(d) async for d in cursor]

    async def survivors_of(self, workspace_id: str, profile_ids: Collection[str]) -> set[str]:
        """Ids of the people that some parts belong to now."""
        moved = await survivors(self._db, workspace_id, profile_ids)
        return {moved.get(p, p) for p in profile_ids}

    async def event(self, workspace_id: str, message_id: str) -> ResolvedEvent | None:
        """One resolved event, with the id of the profile that it belongs to now; None when it is not stored."""
        document = await self._db[log.EVENTS].find_one({"_id": event_key(workspace_id, message_id), "w": workspace_id})
        if document is None:
            return None
        event = log.resolved_event(document)
        moved = await survivors(self._db, workspace_id, [event.profile_id] if event.profile_id else [])
        event.profile_id = moved.get(event.profile_id, event.profile_id)
        return event

    async def _load(self, workspace_id: str, profile_ids: Collection[str]) -> dict[str, Profile]:
        if not profile_ids:
            return {}
        keys = [profile_key(workspace_id, p) for p in profile_ids]
        query = {"_id": {"$in": keys}, "w": workspace_id}
        profiles = [profile_from(d) async for d in self._db[PROFILES].find(query)]
        return {p.id: p for p in profiles}

    async def _memberships(self, workspace_id: str, parts: Collection[str]) -> dict[str, _Memberships]:
        """The groups of each of these parts."""
        found = await self._groups.of_parts(workspace_id, parts) if parts else {}
        return {part: found.get(part, ()) for part in parts}

    async def _people(
        self,
        workspace_id: str,
        roots: Iterable[Profile],
        loaded: Mapping[str, Profile],
        groups: Mapping[str, _Memberships],
        traits: ComputedTraits,
    ) -> dict[str, Person]:
        """People by id, of what is known of some parts already, and of what has to be read of the others."""
        found = {root.id: root for root in roots}
        of_them = {part for root in found.values() for part in root.parts}
        more, more_groups, computed = await asyncio.gather(
            self._load(workspace_id, of_them - loaded.keys()),
            self._memberships(workspace_id, of_them - groups.keys()),
            self._computed.values(workspace_id, {r.id: r.parts for r in found.values()}, now_us(), traits=traits),
        )
        parts, groups = {**loaded, **more}, {**groups, **more_groups}
        if not of_them <= parts.keys():
            raise MissingProfile
        people: dict[str, Person] = {}
        for root in found.values():
            own = tuple(parts[part] for part in root.parts)
            memberships = memberships_of_person(one for part in root.parts for one in groups[part])
            people[root.id] = Person(root, own, union_of_traits(own), memberships, computed[root.id])
        return people
