"""Reading what made people who they are: the links of a profile page by page, merges, and what kept two people apart.

A person of a hundred thousand events has few that did anything. Those stand in an index of their own
(`headrace.storage.mongo.log.Linked`), which is asked for places in the recorded order, and only the events of the page
are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from pymongo import ASCENDING, DESCENDING

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.identity_service_pb2 import IdentityLink, RecordedMerge
from headrace.api.identity.v1.profile_pb2 import Decision
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace.storage.mongo.log import Linked
from headrace_identity import demotions
from headrace_identity.demotions import Demotion
from headrace_identity.documents import identifier_key, profile_from, profile_key, profile_of_key
from headrace_identity.explaining.explain import identifiers_of, keeps_apart, recorded_merges
from headrace_identity.resolving.graph import Profile
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import IDENTIFIERS, PROFILES, survivors

_WITHOUT_SOURCE = {"_id": 1, "p": 1, "t": 1, "d": 1}
_MOST_JOINING = 20_000
"""Events that joined something, read of one person: ten times more than one has within the largest caps."""
_MOST_LOOKED_AT = 10_000
"""Events in which something was demoted, looked at for those that carried an identifier of one other person."""


class MergePosition(NamedTuple):
    """A place among merges, newest first; the id decides between losers of one event."""

    sequence: int
    loser: str


class GraphView:
    """Reads the graph of identifiers."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db

    async def person(self, workspace_id: str, profile_id: str) -> Profile | None:
        """The profile that an id leads to, that of a merged part included; None when it is unknown."""
        moved = await survivors(self._db, workspace_id, [profile_id])
        key = profile_key(workspace_id, moved.get(profile_id, profile_id))
        document = await self._db[PROFILES].find_one({"_id": key, "w": workspace_id})
        return None if document is None else profile_from(document)

    async def holder(self, workspace_id: str, identifier: Identifier) -> Profile | None:
        """The profile that holds an identifier, as normalised by the rules; None when nobody does."""
        document = await self._db[IDENTIFIERS].find_one({"_id": identifier_key(workspace_id, identifier)}, {"p": 1})
        if document is None or not document["p"]:
            return None
        return await self.person(workspace_id, document["p"])

    async def links(self, workspace_id: str, person: Profile, *, after: int, limit: int) -> list[IdentityLink]:
        """Links of a person in recorded order.

        Args:
            workspace_id: The workspace.
            person: The person.
            after: Only those after this sequence; 0 from the first on.
            limit: At most this many.
        """
        sequences = await self._linked(person.parts, Linked.BLOCKED, after, limit)
        created = [s for s in await self._created(workspace_id, person) if s > after]
        return await self._read(workspace_id, sorted({*sequences, *created})[:limit])

    async def joining(self, workspace_id: str, person: Profile) -> list[IdentityLink]:
        """The links that created or joined something, in recorded order, without the sources of their events."""
        query: Document = {"p": {"$in": person.parts}, "l": {"$gte": Linked.JOINED}, "w": workspace_id}
        cursor = self._db[log.EVENTS].find(query, _WITHOUT_SOURCE, hint=log.PROFILE_LINKS).limit(_MOST_JOINING)
        found = [_link(d) async for d in cursor]
        created = await self._created(workspace_id, person)
        query = {"s": {"$in": created}, "w": workspace_id}
        found += [_link(d) async for d in self._db[log.EVENTS].find(query, _WITHOUT_SOURCE)]
        by_sequence = {link.decision.sequence: link for link in found}
        return [by_sequence[s] for s in sorted(by_sequence)]

    async def with_sources(self, workspace_id: str, links: Iterable[IdentityLink]) -> dict[int, IdentityLink]:
        """The same links with the sources of their events, by sequence."""
        read = await self._read(workspace_id, {link.decision.sequence for link in links})
        return {link.decision.sequence: link for link in read}

    async def merges(
        self, workspace_id: str, person: Profile | None, *, before: MergePosition | None, limit: int
    ) -> list[RecordedMerge]:
        """Recorded merges, newest first.

        Args:
            workspace_id: The workspace.
            person: Only those in this person's history; None for all of the workspace.
            before: Only those after this one in the order; None from the newest on.
            limit: At most this many.
        """
        query: Document = {"w": workspace_id, "into": {"$exists": True}}
        if person is not None:
            query["_id"] = {"$in": [profile_key(workspace_id, part) for part in person.parts]}
        if before is not None:
            key = profile_key(workspace_id, before.loser)
            # The range bounds the scan of the index; the rest only tells losers of one event apart.
            query["ms"] = {"$lte": before.sequence}
            query["$or"] = [{"ms": {"$lt": before.sequence}}, {"ms": before.sequence, "_id": {"$lt": key}}]
        cursor = self._db[PROFILES].find(query, {"ms": 1}).sort([("ms", DESCENDING), ("_id", DESCENDING)]).limit(limit)
        losers = [(d["ms"], profile_of_key(d["_id"])) async for d in cursor]
        links = await self._read(workspace_id, {sequence for sequence, _ in losers})
        recorded = {m.merge.loser: m for link in links for m in recorded_merges(workspace_id, link)}
        return [recorded[loser] for _, loser in losers if loser in recorded]

    async def between(
        self, workspace_id: str, one: Profile, other: Profile, limit: int
    ) -> tuple[list[IdentityLink], bool]:
        """What kept two people apart: events of each that carried identifiers of the other, in recorded order.

        Returns:
            At most `limit` links, and whether there are or may be more.
        """
        found: set[int] = set()
        more = False
        for person, stranger in ((one, other), (other, one)):
            foreign = set(stranger.identifiers)
            for link in await self.joining(workspace_id, stranger):
                foreign.update(identifiers_of(link))  # it may have had a device that it gave away since
            demoted = await demotions.find(self._db, None, workspace_id, foreign, parts=person.parts)
            if demoted:
                sequences = await self._demoting(workspace_id, demoted, limit + 1)
                more |= len(sequences) > limit
                found.update(sequences[:limit])
        sequences = sorted(found)
        return await self._read(workspace_id, sequences[:limit]), more or len(sequences) > limit

    async def _demoting(self, workspace_id: str, demoted: Collection[Demotion], limit: int) -> list[int]:
        """Sequences of the first events of some parts that demoted some identifiers."""
        identifiers, parts = {i for i, _ in demoted}, sorted({part for _, part in demoted})
        query: Document = {"p": {"$in": parts}, "l": {"$gte": Linked.DEMOTED}, "w": workspace_id}
        cursor = self._db[log.EVENTS].find(query, _WITHOUT_SOURCE, hint=log.PROFILE_LINKS)
        found: list[int] = []
        async for document in cursor.sort("s", ASCENDING).limit(_MOST_LOOKED_AT):
            link = _link(document)
            if keeps_apart(link, identifiers):
                found.append(link.decision.sequence)
                if len(found) >= limit:
                    break
        return found

    async def _created(self, workspace_id: str, person: Profile) -> list[int]:
        """Sequences of the events that created the parts of a person."""
        others = [profile_key(workspace_id, part) for part in person.parts if part != person.id]
        cursor = self._db[PROFILES].find({"_id": {"$in": others}}, {"c": 1})
        return [person.created, *[d["c"] async for d in cursor]]

    async def _linked(self, parts: Sequence[str], least: Linked, after: int, limit: int) -> list[int]:
        """Sequences of the links of some parts, answered by the index alone."""
        query = {"p": {"$in": list(parts)}, "s": {"$gt": after}, "l": {"$gte": least}}
        cursor = self._db[log.EVENTS].find(query, {"_id": 0, "s": 1}, hint=log.PROFILE_LINKS)
        return [d["s"] async for d in cursor.sort("s", ASCENDING).limit(limit)]

    async def _read(self, workspace_id: str, sequences: Collection[int]) -> list[IdentityLink]:
        """Links with the sources of their events, in recorded order."""
        query = {"s": {"$in": list(sequences)}, "w": workspace_id}
        cursor = self._db[log.EVENTS].find(query, {**_WITHOUT_SOURCE, "e": 1}).sort("s", ASCENDING)
        return [_link(d) async for d in cursor]


def _link(document: Document) -> IdentityLink:
    event = Event.FromString(document["e"]) if "e" in document else None
    _, _, message_id = document["_id"].partition("\x1f")
    return IdentityLink(
        message_id=message_id,
        source_id=event.source_id if event is not None else "",
        timestamp_us=document["t"],
        part=document["p"],
        decision=Decision.FromString(document["d"]),
    )
