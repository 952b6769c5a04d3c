"""Whom a reassignment concerns: everybody who is tied to the seeds by events, and all their events.

What an event comes to depends on who holds its identifiers, also those that were demoted; so everybody is concerned
whose events carry an identifier of an event that is concerned. The closure is the fixed point of that: parts have
events, events carry identifiers, identifiers lead to what holds them and to parts that carried them without holding
them, and these lead to people with all their parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from typing import NamedTuple, TypeVar

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import event_key
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Session
from headrace_identity import demotions
from headrace_identity.documents import identifier_key, profile_key
from headrace_identity.reassign.rulebook import Rulebook
from headrace_identity.resolving.links import Links
from headrace_identity.resolving.resolver import Prepared, prepare
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.store import IDENTIFIERS, PROFILES, survivors

_CHUNK = 2_000

T = TypeVar("T")


class TooManyEvents(Exception):
    """A closure holds more events than it may.

    Attributes:
        most: How many it may hold.
        namespace: Namespace of the identifier that ties most people together, "" when none does.
        people: How many that one ties together, as far as was looked.
    """

    def __init__(self, most: int, namespace: str, people: int) -> None:
        super().__init__(f"more than {most} events are concerned")
        self.most = most
        self.namespace = namespace
        self.people = people


class Recorded(NamedTuple):
    """An event of a closure.

    Attributes:
        resolved: As it is stored.
        decision: The stored decision, serialised.
        prepared: The event as `resolve` needs it, under the rules by which it is resolved anew.
        rules_version: Version of these rules.
        rules: These rules.
    """

    resolved: ResolvedEvent
    decision: bytes
    prepared: Prepared
    rules_version: int
    rules: Rules

    @property
    def sequence(self) -> int:
        """Its place in the recorded order."""
        return self.resolved.decision.sequence


class Closure:
    """The people and events concerned, as far as they have been found."""

    def __init__(self, db: Database, workspace_id: str, links: Iterable[Links], rulebook: Rulebook, most: int) -> None:
        """An empty one.

        Args:
            db: Database.
            workspace_id: The workspace.
            links: The manual links before and after a change: what either forces together is tied together.
            rulebook: The rules by which events are resolved anew.
            most: Budget of events.
        """
        self._db = db
        self._workspace_id = workspace_id
        self._links = tuple(links)
        self._rulebook = rulebook
        self._most = most
        self.parts: set[str] = set()
        self.identifiers: set[Identifier] = set()
        self.events: dict[int, Recorded] = {}
        """By sequence."""
        self._messages: set[str] = set()

    async def seed(
        self,
        session: Session | None,
        *,
        identifiers: Iterable[Identifier] = (),
        profiles: Iterable[str] = (),
        messages: Collection[str] = (),
    ) -> None:
        """Add what everybody concerned is tied to, and everybody.

        Raises:
            TooManyEvents: The budget is spent.
        """
        self._messages.update(messages)
        sequences = await self._sequences_of(session, self._messages)
        await self._grow(session, set(identifiers), set(profiles), sequences)

    async def refresh(self, session: Session | None) -> list[Recorded]:
        """Look again: add what has come since.

        Returns:
            The events that are new, in recorded order.

        Raises:
            TooManyEvents: The budget is spent.
        """
        known = set(self.events)
        identifiers, parts = self.identifiers, self.parts
        self.identifiers, self.parts = set(), set()
        await self._grow(session, identifiers, parts, await self._sequences_of(session, self._messages))
        return [self.events[s] for s in sorted(self.events.keys() - known)]

    def recorded_identifiers(self) -> set[Identifier]:
        """Identifiers that the events carried as it is stored, under whatever rules that was."""
        found: set[Identifier] = set()
        for event in self.events.values():
            decision = event.resolved.decision
            found.update((i.namespace, i.value) for i in decision.identifiers)
            found.update(
                (a.identifier.namespace, a.identifier.value) for a in decision.set_aside if a.action == "demoted"
            )
            found.update((h.identifier.namespace, h.identifier.value) for h in decision.handovers)
        return found

    def in_order(self) -> list[Recorded]:
        """All events, in the recorded order."""
        return [self.events[s] for s in sorted(self.events)]

    async def _grow(
        self, session: Session | None, identifiers: set[Identifier], parts: set[str], sequences: set[int]
    ) -> None:
        """Follow identifiers and parts until they lead to nothing new."""
        parts = await self._whole(session, parts)
        while parts or identifiers or sequences:
            self.parts |= parts
            sequences |= await self._sequences(session, parts)
            events = await self._read(session, sequences - self.events.keys())
            for event in events:
                self.events[event.sequence] = event
                identifiers.update(event.prepared.identifiers, event.prepared.previous)
            identifiers |= {p for links in self._links for i in identifiers for p in links.partners(i)}
            identifiers -= self.identifiers
            self.identifiers |= identifiers
            leading_to = await self._carriers(session, identifiers) - self.parts
            parts = await self._whole(session, leading_to)
            identifiers, sequences = set(), set()

    async def _sequences_of(self, session: Session | None, messages: Collection[str]) -> set[int]:
        found: set[int] = set()
        for chunk in _chunks(sorted(messages)):
            query = {"_id": {"$in": [event_key(self._workspace_id, m) for m in chunk]}, "w": self._workspace_id}
            found.update([d["s"] async for d in self._db[log.EVENTS].find(query, {"s": 1}, session=session)])
        return found

    async def _whole(self, session: Session | None, parts: Collection[str]) -> set[str]:
        """All parts of the people that these parts belong to, those that are known already left out."""
        if not parts:
            return set()
        moved = await survivors(self._db, self._workspace_id, parts, session)
        whole = {moved.get(part, part) for part in parts} | set(parts)
        for chunk in _chunks(sorted(whole)):
            query = {"_id": {"$in": [profile_key(self._workspace_id, p) for p in chunk]}, "parts": {"$exists": True}}
            async for document in self._db[PROFILES].find(query, {"parts": 1}, session=session):
                whole.update(document["parts"])
        return whole - self.parts

    async def _sequences(self, session: Session | None, parts: Collection[str]) -> set[int]:
        """Sequences of the events of some parts; answered by the index alone.

        Ids of profiles are derived from their workspace, so that they find no events of another.
        """
        found: set[int] = set()
        for chunk in _chunks(sorted(parts)):
            cursor = self._db[log.EVENTS].find({"p": {"$in": chunk}}, {"_id": 0, "s": 1, "p": 1}, session=session)
            found.update([d["s"] async for d in cursor.limit(self._most + 1)])
            if len(self.events.keys() | found) > self._most:
                raise await self._too_many(session, found)
        return found

    async def _read(self, session: Session | None, sequences: Set[int]) -> list[Recorded]:
        if len(self.events) + len(sequences) > self._most:
            raise await self._too_many(session, sequences)
        recorded: list[Recorded] = []
        for chunk in _chunks(sorted(sequences)):
            query = {"s": {"$in": chunk}, "w": self._workspace_id}
            documents = await self._db[log.EVENTS].find(query, session=session).to_list(None)
            found = [(log.resolved_event(d), bytes(d["d"])) for d in documents]
            await self._rulebook.learn({resolved.decision.rules_version for resolved, _ in found})
            for resolved, decision in found:
                version, rules = self._rulebook.of(resolved)
                recorded.append(Recorded(resolved, decision, prepare(resolved.event, rules), version, rules))
        return recorded

    async def _carriers(self, session: Session | None, identifiers: Collection[Identifier]) -> set[str]:
        """Parts that hold any of these identifiers, or carried it without holding it."""
        carriers: set[str] = set()
        for chunk in _chunks(sorted(identifiers)):
            keys = [identifier_key(self._workspace_id, i) for i in chunk]
            cursor = self._db[IDENTIFIERS].find({"_id": {"$in": keys}}, {"p": 1}, session=session)
            carriers.update([d["p"] async for d in cursor if d["p"]])
            carriers.update(part for _, part in await demotions.find(self._db, session, self._workspace_id, chunk))
        return carriers

    async def _too_many(self, session: Session | None, unread: Set[int]) -> TooManyEvents:
        """The error, with what ties most people together as far as was looked; some of the unread events are."""
        query = {"s": {"$in": sorted(unread - self.events.keys())[:_CHUNK]}, "w": self._workspace_id}
        sample = [log.resolved_event(d) async for d in self._db[log.EVENTS].find(query, session=session)]
        sample += [e.resolved for e in self.events.values()]
        carried = {((i.namespace, i.value), e.profile_id) for e in sample for i in e.decision.identifiers}
        for chunk in _chunks(sorted(self.identifiers | {identifier for identifier, _ in carried})):
            carried |= await demotions.find(self._db, session, self._workspace_id, chunk)
        people = Counter(identifier for identifier, _ in carried)
        if not people:
            return TooManyEvents(self._most, "", 0)
        (namespace, _), count = max(people.items(), key=lambda item: (item[1], item[0]))
        return TooManyEvents(self._most, namespace, count)


def _chunks(items: Sequence[T]) -> Iterable[list[T]]:
    for start in range(0, len(items), _CHUNK):
        yield list(items[start : start + _CHUNK])
