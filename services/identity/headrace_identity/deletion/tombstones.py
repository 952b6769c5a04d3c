"""Tombstones in the store, and which events they refuse. Whoever resolves events asks here.

A workspace that has none costs nothing: its `tombstones_version` is 0. The others' digests are held in memory, as of
the version that a transaction reads; who writes tombstones closes the gates, so no micro-batch commits on older ones.

- An event that *comes* (from the streams, a replay, an import) goes through `Marks.admit`.
- An event that is *stored* and is resolved anew (a reassignment, a rebuild) goes through `Marks.keep`: it belongs to
  somebody who is not deleted, but must not give them what was a deleted person's. Suppression says nothing about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from pymongo import ASCENDING, UpdateOne

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.profile_pb2 import Decision, SetAside
from headrace.domain.times import now_us
from headrace.domain.tombstones import DIGEST_BYTES, digest_of
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.deletion.keys import KeyRing, Keys
from headrace_identity.documents import SEPARATOR
from headrace_identity.resolving.resolver import Prepared
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import TOMBSTONES
from headrace_identity.workspaces import Workspace, count

DELETED = "deleted"
SUPPRESSED = "suppressed"
RULE = "blocked:erased"
"""Rule by which an identifier of a deleted person is set aside where its event is taken."""

_CACHED_WORKSPACES = 1_000


@dataclass(slots=True)
class Marks:
    """The tombstones of one workspace.

    Attributes:
        key: Key of their digests.
        version: `tombstones_version` of the workspace.
        sequence: Sequence of the newest change among them.
        own: Digests of what belonged to one person.
        shared: Digests of ids of devices that others use too.
        deleted: Those of both that belonged to a person who is deleted, not only suppressed.
    """

    key: bytes
    version: int = 0
    sequence: int = 0
    own: set[bytes] = field(default_factory=set)
    shared: set[bytes] = field(default_factory=set)
    deleted: set[bytes] = field(default_factory=set)

    def admit(self, prepared: Prepared) -> Prepared | None:
        """What may be resolved of an event that comes; None when it is refused.

        It is refused when an identifier of it was a deleted or suppressed person's own, in its normal form or as it
        came, or when it names nobody but such people. The id of a device that others use too is set aside.
        """
        own, key = self.own, self.key
        for raw in prepared.event.identifiers:
            # As it came, whatever the rules of today make of it.
            if digest_of(key, raw.namespace, raw.value.strip()) in own:
                return None
        digests = [digest_of(key, *identifier) for identifier in prepared.identifiers]
        previous = [digest_of(key, *identifier) for identifier in prepared.previous]
        if not own.isdisjoint(digests) or not own.isdisjoint(previous):
            return None
        return _without(prepared, digests, previous, self.shared)

    def keep(self, prepared: Prepared, decision: Decision) -> Prepared | None:
        """What may be resolved anew of a stored event; None when it is a person's whose deletion is under way."""
        if not self.deleted:
            return prepared
        if self.is_deleted(decision):
            return None
        digests = [digest_of(self.key, *identifier) for identifier in prepared.identifiers]
        previous = [digest_of(self.key, *identifier) for identifier in prepared.previous]
        # It names somebody else: by an identifier of its decision, or by none that may identify.
        return _without(prepared, digests, previous, self.deleted) or prepared._replace(identifiers=(), previous=())

    def is_own(self, identifier: Identifier) -> bool:
        """Whether an identifier, normalised, was a deleted or suppressed person's own."""
        return digest_of(self.key, *identifier) in self.own

    def is_deleted(self, decision: Decision) -> bool:
        """Whether a stored event is one of a deleted person: the decision names the identifiers of its own person."""
        return any(digest_of(self.key, i.namespace, i.value) in self.deleted for i in decision.identifiers)

    def reason(self, prepared: Prepared) -> str:
        """Why an event is refused: DELETED or SUPPRESSED."""
        raw = ((i.namespace, i.value.strip()) for i in prepared.event.identifiers)
        every = (*raw, *prepared.identifiers, *prepared.previous)
        return DELETED if any(digest_of(self.key, *i) in self.deleted for i in every) else SUPPRESSED

    def refused(self, identifiers: Iterable[Iterable[Identifier]]) -> list[bool]:
        """For each identifier, in all its forms: whether its person was deleted or suppressed."""
        known = self.own | self.shared if self.shared else self.own
        return [any(digest_of(self.key, *form) in known for form in forms) for forms in identifiers]

    def apply(self, document: Document) -> None:
        """Take over a tombstone's state."""
        digest = bytes.fromhex(document["_id"].rpartition(SEPARATOR)[2])
        for digests in (self.own, self.shared, self.deleted):
            digests.discard(digest)
        if not document["x"]:
            (self.shared if document["h"] else self.own).add(digest)
            if document["k"] == DELETED:
                self.deleted.add(digest)
        self.sequence = max(self.sequence, document["s"])


def _without(
    prepared: Prepared, digests: Sequence[bytes], previous: Sequence[bytes], marked: Collection[bytes]
) -> Prepared | None:
    """An event without the identifiers that are marked; None when it names nobody then."""
    if not marked or not any(d in marked for d in (*digests, *previous)):
        return prepared
    kept = tuple(i for i, d in zip(prepared.identifiers, digests, strict=True) if d not in marked)
    if not kept:
        return None
    aside = [i for i, d in zip(prepared.identifiers, digests, strict=True) if d in marked]
    return prepared._replace(
        identifiers=kept,
        previous=tuple(i for i, d in zip(prepared.previous, previous, strict=True) if d not in marked),
        set_aside=(
            *prepared.set_aside,
            *(
                SetAside(identifier=IdentifierMessage(namespace=n, value=v), action="blocked", rule=RULE)
                for n, v in aside
            ),
        ),
    )


class Tombstones:
    """Reads and writes tombstones."""

    def __init__(self, db: Database, keys: KeyRing) -> None:
        """Work on a database."""
        self._db = db
        self._keys = keys
        self._cache: dict[str, Marks] = {}

    async def marks(self, workspace: Workspace, session: Session | None = None) -> Marks | None:
        """The tombstones of a workspace, at least as of the version that was read; None when it never had any."""
        if not workspace.tombstones_version:
            return None
        marks = self._cache.get(workspace.id)
        if marks is not None and marks.version >= workspace.tombstones_version:
            return marks
        if marks is None:
            keys = await self._keys.of(workspace.id)
            if len(self._cache) >= _CACHED_WORKSPACES:
                self._cache.clear()
            marks = self._cache.setdefault(workspace.id, Marks(keys.tombstone_key))
        changed = (
            await self._db[TOMBSTONES]
            .find({"w": workspace.id, "s": {"$gt": marks.sequence}}, session=session)
            .sort("s", ASCENDING)
            .to_list(None)
        )
        for document in changed:
            marks.apply(document)
        marks.version = max(marks.version, workspace.tombstones_version)
        return marks

    async def add(
        self,
        session: Session,
        workspace_id: str,
        keys: Keys,
        identifiers: Iterable[Identifier],
        *,
        kind: str,
        deletion_id: str = "",
        forms: Iterable[tuple[Identifier, Identifier]] = (),
        shared: Collection[Identifier] = (),
    ) -> int:
        """Write tombstones, in a transaction that has closed the gates.

        Args:
            session: The transaction; it has read before.
            workspace_id: The workspace.
            keys: The workspace's keys.
            identifiers: Normalised identifiers.
            kind: DELETED or SUPPRESSED; what is deleted stays so.
            deletion_id: The deletion; "" for none.
            forms: Other forms of normalised identifiers, each with the identifier that it is a form of.
            shared: Those among all of them that others use too.

        Returns:
            Number of normalised identifiers that are refused from now on and were not before.
        """
        wanted: dict[bytes, tuple[bytes, bool]] = {}
        for form, identifier in forms:
            wanted[keys.digest(form)] = (keys.digest(identifier), identifier in shared)
        normal = {keys.digest(i): i in shared for i in identifiers}
        wanted |= {digest: (digest, is_shared) for digest, is_shared in normal.items()}
        known = await self._known(session, workspace_id, wanted)
        changed = {
            d
            for d in wanted
            if d not in known or known[d]["x"] or (kind == DELETED and known[d]["k"] != DELETED) or known[d]["h"]
        }
        if not changed:
            return 0
        sequence = await self._changed(session, workspace_id)
        writes = [
            UpdateOne(
                {"_id": _key(workspace_id, digest)},
                {
                    "$set": {
                        "w": workspace_id,
                        "k": kind,
                        "h": wanted[digest][1],
                        "of": wanted[digest][0].hex(),
                        "d": deletion_id,
                        "t": now_us(),
                        "s": sequence,
                        "x": False,
                    }
                },
                upsert=True,
            )
            for digest in changed
        ]
        await self._db[TOMBSTONES].bulk_write(writes, ordered=False, session=session)
        return sum(d in normal and (d not in known or known[d]["x"]) for d in changed)

    async def lift(self, session: Session, workspace_id: str, keys: Keys, identifiers: Iterable[Identifier]) -> int:
        """Take tombstones back, with those of other forms of the same identifiers, in a transaction with closed gates.

        Returns:
            Number of identifiers that are taken again.
        """
        named = [keys.digest(i).hex() for i in identifiers]
        found = self._db[TOMBSTONES].find(
            {"w": workspace_id, "x": False, "_id": {"$in": [f"{workspace_id}{SEPARATOR}{d}" for d in named]}},
            {"of": 1},
            session=session,
        )
        of = {d["of"] async for d in found}
        if not of:
            return 0
        sequence = await self._changed(session, workspace_id)
        await self._db[TOMBSTONES].update_many(
            {"w": workspace_id, "of": {"$in": list(of)}}, {"$set": {"x": True, "s": sequence}}, session=session
        )
        return len(of)

    async def _known(self, session: Session, workspace_id: str, digests: Iterable[bytes]) -> dict[bytes, Document]:
        query = {"_id": {"$in": [_key(workspace_id, d) for d in digests]}}
        cursor = self._db[TOMBSTONES].find(query, session=session)
        return {bytes.fromhex(d["_id"].rpartition(SEPARATOR)[2]): d async for d in cursor}

    async def _changed(self, session: Session, workspace_id: str) -> int:
        """Count a change; returns its sequence: in one workspace they grow, because the gates are closed."""
        await count(self._db, session, workspace_id, "t")
        return await log.next_sequence(self._db, 1, now_us())

    async def changed_since(self, sequence: int, after: str, limit: int) -> tuple[list[Document], str]:
        """Tombstones of all workspaces by their last change, from a sequence on; and where the next page begins."""
        query: Document = {"s": {"$gte": sequence}}
        if after:
            number, _, key = after.partition(SEPARATOR)
            query = {"$or": [{"s": {"$gt": int(number)}}, {"s": int(number), "_id": {"$gt": key}}]}
        cursor = self._db[TOMBSTONES].find(query).sort([("s", ASCENDING), ("_id", ASCENDING)]).limit(limit)
        found = await cursor.to_list(None)
        last = f"{found[-1]['s']}{SEPARATOR}{found[-1]['_id']}" if len(found) == limit else ""
        return found, last


def _key(workspace_id: str, digest: bytes) -> str:
    assert len(digest) == DIGEST_BYTES
    return f"{workspace_id}{SEPARATOR}{digest.hex()}"
