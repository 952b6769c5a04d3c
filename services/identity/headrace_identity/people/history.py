"""What a person's events said over time: the state at a past moment, every value of a trait, every consent.

All of it is read from the log, so it is there for everything that ever happened, and nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from pymongo import DESCENDING

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain import consent
from headrace.domain.consent import ConsentValue
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace_identity.people.past import Past
from headrace_identity.resolving.graph import Profile, TraitValue
from headrace_identity.resolving.resolver import traits_of

_MOST_EVENTS = 10_000
"""So many events are read for a page of a history, and those of the same moment; a page may then be short."""

T = TypeVar("T")


class Position(NamedTuple):
    """A place in a history, newest first; within an event by name. Without a message id it is the end of its moment."""

    time_us: int
    message_id: str
    name: str


class Entry(NamedTuple, Generic[T]):
    """A value in a history."""

    position: Position
    value: T


class Page(NamedTuple, Generic[T]):
    """Entries of a history, and where it goes on; None when it is through."""

    entries: list[Entry[T]]
    position: Position | None


class Histories:
    """Reads what people's events said over time."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db

    async def state_at(self, workspace_id: str, person: Profile, at_us: int) -> Past:
        """What the events of a person's parts up to and at a moment say."""
        past = Past()
        query = {"p": {"$in": person.parts}, "w": workspace_id, "t": {"$lte": at_us}}
        async for document in self._db[log.EVENTS].find(query):
            past.take(log.resolved_event(document))
        return past

    async def trait(
        self, workspace_id: str, person: Profile, name: str, after: Position | None, limit: int
    ) -> Page[TraitValue]:
        """The values that a trait of a person had, or all traits, newest first; deleted is null.

        Args:
            workspace_id: The workspace.
            person: The person.
            name: Name of the trait; "" means all.
            after: Where the page before ended.
            limit: At most so many values.
        """

        def values_of(event: Event) -> Iterable[tuple[str, TraitValue]]:
            for trait, value in (traits_of(event) if event.traits or event.context else {}).items():
                if name in ("", trait):
                    yield trait, TraitValue(value, event.timestamp_us, event.message_id, event.source_id)

        return await self._page(workspace_id, person, values_of, after, limit)

    async def consent(
        self, workspace_id: str, person: Profile, purpose: str, after: Position | None, limit: int
    ) -> Page[ConsentValue]:
        """What a person said about purposes, newest first.

        Args:
            workspace_id: The workspace.
            person: The person.
            purpose: Only this purpose; "" means all.
            after: Where the page before ended.
            limit: At most so many statements.
        """

        def values_of(event: Event) -> Iterable[tuple[str, ConsentValue]]:
            return [(name, value) for name, value in consent.values_of(event).items() if purpose in ("", name)]

        return await self._page(workspace_id, person, values_of, after, limit)

    async def _page(
        self,
        workspace_id: str,
        person: Profile,
        values_of: Callable[[Event], Iterable[tuple[str, T]]],
        after: Position | None,
        limit: int,
    ) -> Page[T]:
        entries: list[Entry[T]] = []
        read = 0
        async for moment_us, events in self._moments(workspace_id, person, after):
            read += len(events)
            found = [
                Entry(Position(moment_us, event.message_id, name), value)
                for event in events
                for name, value in values_of(event)
            ]
            # Newest first means what decides which value holds: (event time, message id).
            found.sort(key=lambda e: e.position.name)
            found.sort(key=lambda e: e.position.message_id, reverse=True)
            entries += [e for e in found if after is None or _comes_after(e.position, after)]
            if len(entries) > limit:
                return Page(entries[:limit], entries[limit - 1].position)
            if read >= _MOST_EVENTS:
                return Page(entries, Position(moment_us, "", ""))
        return Page(entries, None)

    async def _moments(
        self, workspace_id: str, person: Profile, after: Position | None
    ) -> AsyncIterator[tuple[int, list[Event]]]:
        """Events of a person by event time, newest first."""
        query: Document = {"p": {"$in": person.parts}, "w": workspace_id}
        if after is not None:
            query["t"] = {"$lte" if after.message_id else "$lt": after.time_us}
        cursor = self._db[log.EVENTS].find(query, {"t": 1, "e": 1}).sort([("t", DESCENDING), ("s", DESCENDING)])
        moment_us = 0
        events: list[Event] = []
        async for document in cursor:
            if events and document["t"] != moment_us:
                yield moment_us, events
                events = []
            moment_us = document["t"]
            events.append(Event.FromString(document["e"]))
        if events:
            yield moment_us, events


def _comes_after(position: Position, after: Position) -> bool:
    """Whether a place comes after another one in the order of a history."""
    if position.time_us != after.time_us:
        return position.time_us < after.time_us
    if position.message_id != after.message_id:
        return position.message_id < after.message_id
    return position.name > after.name
