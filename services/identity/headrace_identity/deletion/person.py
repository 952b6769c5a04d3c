"""Whom a deletion or suppression is about: found by an identifier or a profile, with all that identifies them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from headrace.domain.tombstones import DEVICE_NAMESPACES
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Session
from headrace_identity import demotions
from headrace_identity.documents import SEPARATOR, identifier_key, profile_from, profile_key
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.store import IDENTIFIERS, PROFILES, survivors

_MASK = "…"
_SHOWN_FROM = 6
_EVENTS_AT_ONCE = 500


@dataclass(slots=True)
class Person:
    """A person who is to be deleted or suppressed.

    Attributes:
        parts: Ids of all parts of the profile; none when nobody holds the identifier.
        identifiers: All identifiers, normalised.
        forms: Other forms in which their events brought these, each with the identifier that it is a form of.
        shared: Ids of devices among them that other people's events carried too.
        told: Services that have been told of everything, in the current round.
    """

    parts: list[str] = field(default_factory=list)
    identifiers: list[Identifier] = field(default_factory=list)
    forms: list[tuple[Identifier, Identifier]] = field(default_factory=list)
    shared: list[Identifier] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """For storing, sealed."""
        return json.dumps([self.parts, self.identifiers, self.forms, self.shared, self.told])

    @classmethod
    def of_text(cls, text: str) -> Person:
        """The reverse of `as_text`."""
        parts, identifiers, forms, shared, told = json.loads(text)
        return cls(
            parts,
            [(n, v) for n, v in identifiers],
            [((fn, fv), (n, v)) for (fn, fv), (n, v) in forms],
            [(n, v) for n, v in shared],
            told,
        )


@dataclass(frozen=True, slots=True)
class Named:
    """How a person was named: by an identifier, by a profile's id, or by both."""

    identifier: Identifier | None = None
    profile_id: str = ""

    def as_text(self) -> str:
        """For storing, sealed."""
        return json.dumps([self.identifier, self.profile_id])

    @classmethod
    def of_text(cls, text: str) -> Named:
        """The reverse of `as_text`."""
        identifier, profile_id = json.loads(text)
        return cls((identifier[0], identifier[1]) if identifier else None, profile_id)


async def find(db: Database, session: Session | None, workspace_id: str, named: Named) -> Person:
    """Who is meant now: the holder of the identifier, else the profile, or what it was merged into.

    Args:
        db: Database.
        session: A transaction.
        workspace_id: The workspace.
        named: How the person was named.

    Returns:
        The person; without parts when there is no profile, then with the identifier alone.
    """
    profile_id = named.profile_id
    if named.identifier is not None:
        key = identifier_key(workspace_id, named.identifier)
        holder = await db[IDENTIFIERS].find_one({"_id": key}, {"p": 1}, session=session)
        if holder is not None and holder["p"]:
            profile_id = holder["p"]
    root = None
    if profile_id:
        moved = await survivors(db, workspace_id, [profile_id], session)
        key = profile_key(workspace_id, moved.get(profile_id, profile_id))
        root = await db[PROFILES].find_one({"_id": key, "w": workspace_id}, session=session)
    identifiers = [named.identifier] if named.identifier is not None else []
    if root is None:
        return Person(identifiers=identifiers)
    profile = profile_from(root)
    held = [i for i in profile.identifiers if i not in identifiers]
    return Person(list(profile.parts), identifiers + held)


async def shared_by(db: Database, session: Session | None, workspace_id: str, person: Person) -> list[Identifier]:
    """Ids of devices of a person that events of other people carried too."""
    devices = [i for i in person.identifiers if i[0] in DEVICE_NAMESPACES]
    carried = await demotions.find(db, session, workspace_id, devices)
    own = set(person.parts)
    return sorted({identifier for identifier, part in carried if part not in own})


async def forms_of(
    db: Database, workspace_id: str, person: Person, rules: Rules
) -> list[tuple[Identifier, Identifier]]:
    """The other forms in which events of a person brought their identifiers."""
    held = set(person.identifiers)
    found: dict[Identifier, Identifier] = {}
    async for event in log.events_of_profiles(db, workspace_id, person.parts):
        for raw in event.event.identifiers:
            form = (raw.namespace, raw.value.strip())
            if form in held or form in found:
                continue
            normal = (raw.namespace, rules.check(*form).value)
            if normal in held:
                found[form] = normal
    return sorted(found.items())


async def messages_of(db: Database, workspace_id: str, parts: Sequence[str]) -> AsyncIterator[list[tuple[str, str]]]:
    """(message id, segment id) of all events of a person, page by page; one that came repeatedly several times."""
    cursor = db[log.EVENTS].find({"p": {"$in": list(parts)}, "w": workspace_id}, {"g": 1})
    page: list[tuple[str, str]] = []
    async for document in cursor:
        page.append((document["_id"].partition(SEPARATOR)[2], document["g"]))
        if len(page) >= _EVENTS_AT_ONCE:
            yield page + await _repeats(db, workspace_id, page)
            page = []
    if page:
        yield page + await _repeats(db, workspace_id, page)


async def _repeats(db: Database, workspace_id: str, page: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [found async for found in log.repeats_of(db, workspace_id, [message_id for message_id, _ in page])]


def masked(identifier: Identifier) -> str:
    """An identifier that says which one was meant to whoever knows it, and nothing to others."""
    namespace, value = identifier
    return f"{namespace}:{value[0] if len(value) >= _SHOWN_FROM else ''}{_MASK}"
