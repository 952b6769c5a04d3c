"""Reading computed traits: what is kept of all parts of people, united, for a moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.identity.v1.profile_pb2 import ComputedTraitValue
from headrace.domain.predicates import decode_object
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.computed.buckets import Day, loaded, part_key, part_of_key, reading_of
from headrace_identity.computed.store import Compiled
from headrace_identity.computed.traits import ComputedTrait, ComputedTraits
from headrace_identity.store import COMPUTED_VALUES

_EARLIEST_US = -(2**63)
_TRACK = EventKind.EVENT_KIND_TRACK


class _Needed(NamedTuple):
    """Events that have to be read from the log: those of a part with a time in (after_us, until_us]."""

    trait: ComputedTrait
    day: Day
    after_us: int
    until_us: int


class ComputedValues:
    """Reads values of computed traits."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db
        self._compiled = Compiled(db)

    async def values(
        self,
        workspace_id: str,
        people: Mapping[str, Iterable[str]],
        now_us: int,
        session: Session | None = None,
        *,
        traits: ComputedTraits | None = None,
    ) -> dict[str, list[ComputedTraitValue]]:
        """The computed traits of people that have a value now.

        Args:
            workspace_id: The workspace.
            people: The parts of each, by any key; no part belongs to two.
            now_us: The present. For a moment of the past ask `values_at`: buckets that the present needs no more
                are gone.
            session: A transaction, to read in its snapshot.
            traits: Which traits; None means all that are ready.

        Returns:
            Values in the order of the traits' ids, by the keys of `people`.
        """
        traits = await self.ready(workspace_id, session) if traits is None else traits
        if not traits.all or not people:
            return {person: [] for person in people}
        owners = {part: person for person, parts in people.items() for part in parts}
        summaries = _Summaries()
        needed: dict[str, list[_Needed]] = {}
        query: Document = {"p": {"$in": [part_key(workspace_id, part) for part in owners]}}
        async for document in self._db[COMPUTED_VALUES].find(query, session=session):
            part = part_of_key(document["p"])
            day = _day_of(document)
            for generation, form in document["s"].items():
                trait = traits.by_generation.get(generation)
                if trait is None:
                    continue
                kept = loaded(trait.function, form)
                reading = reading_of(kept, trait.definition.within_us, now_us)
                if reading.whole:
                    summaries.add(owners[part], trait, kept.summary)
                elif reading.events is not None:
                    needed.setdefault(part, []).append(_Needed(trait, day, *reading.events))
        if needed:
            await self._add_events(workspace_id, owners, needed, summaries, session)
        return {person: summaries.values(person, traits, now_us) for person in people}

    async def values_at(
        self, workspace_id: str, people: Mapping[str, Iterable[str]], at_us: int, session: Session | None = None
    ) -> dict[str, list[ComputedTraitValue]]:
        """The computed traits of people as `values` would have given them at a moment of the past, from the log."""
        traits = await self.ready(workspace_id, session)
        if not traits.all or not people:
            return {person: [] for person in people}
        owners = {part: person for person, parts in people.items() for part in parts}
        needed = []
        for trait in traits.all:
            within_us = trait.definition.within_us
            after_us = _EARLIEST_US if within_us is None else at_us - within_us
            needed.append(_Needed(trait, None, after_us, at_us))
        summaries = _Summaries()
        await self._add_events(workspace_id, owners, dict.fromkeys(owners, needed), summaries, session)
        return {person: summaries.values(person, traits, at_us) for person in people}

    async def ready(self, workspace_id: str, session: Session | None = None) -> ComputedTraits:
        """The computed traits of a workspace that have been filled."""
        traits = await self._compiled.current(workspace_id, session)
        return traits if all(t.ready for t in traits.all) else ComputedTraits([t for t in traits.all if t.ready])

    async def _add_events(
        self,
        workspace_id: str,
        owners: Mapping[str, str],
        needed: Mapping[str, Sequence[_Needed]],
        summaries: _Summaries,
        session: Session | None,
    ) -> None:
        # One branch of the query for each window and day, whatever the number of people.
        branches: dict[tuple[int | None, Day], list[tuple[str, _Needed]]] = {}
        for part, ranges in needed.items():
            for one in ranges:
                branches.setdefault((one.trait.definition.within_us, one.day), []).append((part, one))
        alternatives: list[Document] = [
            {
                "p": {"$in": list({part for part, _ in branch})},
                "t": {"$gt": min(n.after_us for _, n in branch), "$lte": max(n.until_us for _, n in branch)},
                "n": {"$in": list({name for _, n in branch for name in n.trait.definition.names})},
            }
            for branch in branches.values()
        ]
        query = {"w": workspace_id, "$or": alternatives}
        async for document in self._db[log.EVENTS].find(query, {"p": 1, "e": 1}, session=session):
            event = Event.FromString(document["e"])
            if event.kind != _TRACK:
                continue
            properties: dict[str, Any] = decode_object(event.properties)
            for trait, _, after_us, until_us in needed[document["p"]]:
                if after_us < event.timestamp_us <= until_us and event.name in trait.definition.names:
                    summaries.add(owners[document["p"]], trait, trait.of(properties, event.timestamp_us))


class _Summaries:
    """Summaries of people, by trait."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Any] = {}

    def add(self, person: str, trait: ComputedTrait, summary: Any | None) -> None:
        if summary is None:
            return
        key = (person, trait.generation)
        known = self._of.get(key)
        self._of[key] = summary if known is None else trait.function.unite(known, summary)

    def values(self, person: str, traits: ComputedTraits, at_us: int) -> list[ComputedTraitValue]:
        found: list[ComputedTraitValue] = []
        for trait in traits.all:
            summary = self._of.get((person, trait.generation))
            if summary is not None:
                value, truncated = trait.function.result(summary)
                found.append(
                    ComputedTraitValue(computed_trait_id=trait.id, value=value, at_us=at_us, truncated=truncated)
                )
        return found


def _day_of(document: Document) -> Day:
    day = document["_id"][len(document["p"]) + 1 :]
    return int(day) if day else None
