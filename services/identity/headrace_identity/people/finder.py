"""Finding people by the beginning of an identifier, or by a trait, page by page and with bounded work for each.

A search walks an index in order. Somebody whom it comes to several times, by several identifiers or parts, is shown at
the first of them, so nobody is shown twice, on whatever page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from bson.min_key import MinKey
from pymongo import ASCENDING

from headrace.storage.mongo.client import Database
from headrace_identity.documents import SEPARATOR, identifier_key, profile_key, profile_of_key
from headrace_identity.people.profiles import Person, Profiles
from headrace_identity.people.search import TraitQuery, after_beginning, beginnings, first_identifier, first_term
from headrace_identity.store import IDENTIFIERS, PROFILES, TRAIT_TERMS

_MOST_ENTRIES = 2_000
"""So many entries of an index are looked at for a page, at most; a page may then be short."""
_LEAST_COST = 20
"""What a query counts for, in entries."""

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)
_LAST = "\U0010ffff"

Position = tuple[str, str]
"""Where a search has come to: (namespace, value), or (term, part)."""


class Found(NamedTuple):
    """People found, and where the search goes on; None when it is through."""

    people: list[Person]
    position: Position | None


class _Entry(NamedTuple):
    """An entry of an index, and the part that it leads to; "" for a place that only was passed."""

    position: Position
    part: str


class Finder:
    """Finds people."""

    def __init__(self, db: Database, profiles: Profiles) -> None:
        """Search a database, and read whom it finds by `profiles`."""
        self._db = db
        self._profiles = profiles

    async def by_identifier(
        self,
        workspace_id: str,
        namespace: str,
        typed: str,
        default_country: str | None,
        after: Position | None,
        limit: int,
    ) -> Found:
        """People who hold an identifier that begins with something.

        Args:
            workspace_id: The workspace.
            namespace: Namespace of the identifier, "" for any.
            typed: The beginning, as typed.
            default_country: The workspace's country of phone numbers without one.
            after: Where the page before ended.
            limit: At most so many people.
        """

        def is_shown(person: Person, position: Position) -> bool:
            return first_identifier(person.profile.identifiers, namespace, typed, default_country) in (None, position)

        entries = self._identifiers(workspace_id, namespace, typed, default_country, after, limit + 1)
        return await self._collect(workspace_id, entries, is_shown, limit)

    async def by_trait(self, workspace_id: str, query: TraitQuery, after: Position | None, limit: int) -> Found:
        """People who have a trait now.

        Args:
            workspace_id: The workspace.
            query: The trait.
            after: Where the page before ended.
            limit: At most so many people.
        """

        def is_shown(person: Person, position: Position) -> bool:
            return query.finds(person.traits) and first_term(query, person.parts) in (None, position)

        return await self._collect(workspace_id, self._terms(workspace_id, query, after, limit + 1), is_shown, limit)

    async def _collect(
        self,
        workspace_id: str,
        entries: AsyncIterator[Sequence[_Entry]],
        is_shown: Callable[[Person, Position], bool],
        limit: int,
    ) -> Found:
        found: list[Person] = []
        position: Position | None = None
        cost = 0
        async for chunk in entries:
            people = await self._profiles.get(workspace_id, {entry.part for entry in chunk if entry.part})
            for entry in chunk:
                if len(found) == limit:
                    return Found(found, position)
                position = entry.position
                person = people.get(entry.part)
                if person is not None and is_shown(person, position):
                    found.append(person)
            cost += max(len(chunk), _LEAST_COST)
            if cost >= _MOST_ENTRIES:
                return Found(found, position)
        return Found(found, None)

    async def _identifiers(
        self,
        workspace_id: str,
        namespace: str,
        typed: str,
        default_country: str | None,
        after: Position | None,
        chunk: int,
    ) -> AsyncIterator[list[_Entry]]:
        current = after[0] if after else namespace or await self._next_namespace(workspace_id, None)
        while current:
            for beginning in beginnings(current, typed, default_country):
                start, operator = beginning, "$gte"
                if after and after[0] == current and after[1] >= beginning:
                    start, operator = after[1], "$gt"
                end = identifier_key(workspace_id, (current, after_beginning(beginning)))
                while True:
                    bounds = {operator: identifier_key(workspace_id, (current, start)), "$lt": end}
                    query = {"_id": bounds, "p": {"$ne": ""}}
                    cursor = self._db[IDENTIFIERS].find(query, {"p": 1}).sort("_id", ASCENDING).limit(chunk)
                    entries = [_Entry((current, d["_id"].split(SEPARATOR, 2)[2]), d["p"]) async for d in cursor]
                    if entries:
                        yield entries
                    if len(entries) < chunk:
                        break
                    start, operator = entries[-1].position[1], "$gt"
            if namespace:
                return
            yield [_Entry((current, _LAST), "")]
            current = await self._next_namespace(workspace_id, current)

    async def _next_namespace(self, workspace_id: str, before: str | None) -> str:
        """The namespace after one of them that has identifiers, "" when there is none."""
        start = f"{workspace_id}{SEPARATOR}"
        if before is not None:
            start += f"{before}{_AFTER_SEPARATOR}"
        query = {"_id": {"$gte": start, "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}}
        document = await self._db[IDENTIFIERS].find_one(query, {"_id": 1}, sort=[("_id", ASCENDING)])
        return document["_id"].split(SEPARATOR, 2)[1] if document else ""

    async def _terms(
        self, workspace_id: str, query: TraitQuery, after: Position | None, chunk: int
    ) -> AsyncIterator[list[_Entry]]:
        start, end = query.bounds
        # Bounds of the index itself, and not a filter: each entry is a term, whatever other terms its profile has, so
        # the place of an entry can be told and gone on from.
        last: list[Any] = [("w", workspace_id), ("s", end), ("_id", MinKey())]
        while True:
            first: list[Any] = [("w", workspace_id), ("s", start), ("_id", MinKey())]
            if after is not None:
                first = [("w", workspace_id), ("s", after[0]), ("_id", f"{profile_key(workspace_id, after[1])}\0")]
            cursor = self._db[PROFILES].find({}, {"_id": 1, "k": {"$meta": "indexKey"}})
            keys = [d["k"] async for d in cursor.min(first).max(last).hint(TRAIT_TERMS).limit(chunk)]
            entries = [_Entry((key["s"], profile_of_key(key["_id"])), profile_of_key(key["_id"])) for key in keys]
            if entries:
                yield entries
            if len(entries) < chunk:
                return
            after = entries[-1].position
