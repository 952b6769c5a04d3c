"""Definitions of computed traits in MongoDB: made, changed and removed one after the other per workspace.

    computed_traits          _id workspace + id, w workspace, i id, n display name, d definition, g generation,
                             st state, rev etag, ct and ut times, rid request id; for filling: h the place in the
                             recorded order at which it was defined, at the last part that was filled, done events read,
                             lo and lu who fills it and until when
    computed_trait_removals  _id workspace + generation, w workspace, g generation whose values are to be removed;
                             at, lo and lu as above

Whatever changes what micro-batches have to fold closes the gates first, so that no micro-batch commits that folded by
another definition than the stored one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from bson.binary import Binary
from pymongo import ASCENDING

from headrace.domain.computed_traits.definition import Definition, parse_definition
from headrace.domain.definitions import DefinitionError
from headrace.domain.times import now_us
from headrace.rpc import names
from headrace.rpc.errors import already_exists, etag_mismatch, invalid_argument, limit_exceeded, not_found
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity import gates, workspaces
from headrace_identity.computed.traits import ComputedTrait, ComputedTraits
from headrace_identity.documents import SEPARATOR
from headrace_identity.store import COMPUTED_TRAIT_REMOVALS, COMPUTED_TRAITS, IDENTITY_WORKSPACES

MOST_TRAITS = 100
"""Computed traits of a workspace."""

FILLING = "filling"
READY = "ready"

_CACHED_WORKSPACES = 10_000
_FIELD = "computed_trait"
_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)

T = TypeVar("T")


def of_workspace(workspace_id: str, after: str = "") -> Document:
    """Selects the documents of a workspace whose keys come after another, by their ids."""
    return {"_id": {"$gt": trait_key(workspace_id, after), "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}}


def trait_key(workspace_id: str, trait_id: str) -> str:
    """Database id of a computed trait, or of the removal of a generation."""
    return f"{workspace_id}{SEPARATOR}{trait_id}"


class Compiled:
    """Reads the computed traits of workspaces; compiled ones are kept while their version is the stored one."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db
        self._cache: dict[str, tuple[int, ComputedTraits]] = {}

    async def read(self, workspace_id: str, version: int, session: Session | None = None) -> ComputedTraits:
        """All computed traits of a workspace, in order of their ids.

        Args:
            workspace_id: The workspace.
            version: Its `computed_version`, in the snapshot of the session.
            session: The transaction.
        """
        if version == 0:
            return NO_TRAITS
        cached = self._cache.get(workspace_id)
        if cached is not None and cached[0] == version:
            return cached[1]
        found = self._db[COMPUTED_TRAITS].find(of_workspace(workspace_id), session=session).sort("_id", ASCENDING)
        traits = ComputedTraits([compiled(d) async for d in found])
        # Without a snapshot they may be newer than the version: then they are not kept.
        if session is not None or version == await self._version(workspace_id):
            if len(self._cache) >= _CACHED_WORKSPACES:
                self._cache.clear()
            self._cache[workspace_id] = (version, traits)
        return traits

    async def current(self, workspace_id: str, session: Session | None = None) -> ComputedTraits:
        """The same, for who does not know the version."""
        return await self.read(workspace_id, await self._version(workspace_id, session), session)

    async def _version(self, workspace_id: str, session: Session | None = None) -> int:
        query = {"_id": workspace_id}
        document = await self._db[IDENTITY_WORKSPACES].find_one(query, {"c": 1}, session=session) or {}
        return int(document.get("c", 0))


NO_TRAITS = ComputedTraits()
"""What a workspace has that has none."""


def compiled(document: Document) -> ComputedTrait:
    """A computed trait from its stored form."""
    return ComputedTrait(document["i"], document["g"], parse_definition(document["d"]), document["st"] == READY)


class ComputedTraitStore:
    """Makes, changes and removes computed traits. Documents in, documents out; no gRPC."""

    def __init__(self, db: Database, on_change: Callable[[], None] = lambda: None) -> None:
        """Keep them in a database; `on_change` tells the filler of this process to look at once."""
        self._db = db
        self._traits = db[COMPUTED_TRAITS]
        self._on_change = on_change

    async def create(
        self, workspace_id: str, trait_id: str, display_name: str, definition: bytes, request_id: str = ""
    ) -> Document:
        """Define a computed trait; it is filled from all stored events, and kept from now on.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault, ALREADY_EXISTS, or LIMIT_EXCEEDED.
        """
        display_name = names.display_name(f"{_FIELD}.display_name", display_name or trait_id)
        check(definition)

        async def act(session: Session) -> Document:
            key = trait_key(workspace_id, trait_id)
            old = await self._traits.find_one({"_id": key}, session=session)
            if old is not None:
                if request_id and old.get("rid") == request_id:
                    return old
                raise already_exists(names.format(names.COMPUTED_TRAIT, workspace_id, trait_id))
            if await self._traits.count_documents(of_workspace(workspace_id), session=session) >= MOST_TRAITS:
                raise limit_exceeded("computed_traits", f"A workspace has at most {MOST_TRAITS} computed traits.")
            now = now_us()
            document: Document = {
                "_id": key,
                "w": workspace_id,
                "i": trait_id,
                "n": display_name,
                "rev": 1,
                "ct": now,
                "ut": now,
                "rid": request_id,
                **await self._filling(session, workspace_id, definition),
            }
            await self._traits.insert_one(document, session=session)
            return document

        return await self._change(workspace_id, act)

    async def get(self, workspace_id: str, trait_id: str, session: Session | None = None) -> Document:
        """A computed trait. Raises ApiError NOT_FOUND."""
        query = {"_id": trait_key(workspace_id, trait_id), "w": workspace_id}
        document = await self._traits.find_one(query, session=session)
        if document is None:
            raise not_found(names.format(names.COMPUTED_TRAIT, workspace_id, trait_id))
        return document

    async def page(self, workspace_id: str, after: str, limit: int) -> list[Document]:
        """Computed traits in order of their ids, those after one of them."""
        cursor = self._traits.find(of_workspace(workspace_id, after)).sort("_id", ASCENDING).limit(limit)
        return await cursor.to_list(None)

    async def update(
        self, workspace_id: str, trait_id: str, *, display_name: str | None, definition: bytes | None, etag: str
    ) -> Document:
        """Change what is not None; another definition is filled anew.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND, or ABORTED when the etag is not the stored one.
        """
        if display_name is not None:
            display_name = names.display_name(f"{_FIELD}.display_name", display_name or trait_id)
        parsed = check(definition) if definition is not None else None

        async def act(session: Session) -> Document:
            old = await self.get(workspace_id, trait_id, session)
            if etag and etag != etag_of(old):
                raise etag_mismatch()
            new = {**old, "rev": old["rev"] + 1, "ut": now_us()}
            if display_name is not None:
                new["n"] = display_name
            if definition is not None and definition != bytes(old["d"]):
                new["d"] = Binary(definition)
                if parsed != parse_definition(old["d"]):
                    await self._remove_values(session, workspace_id, old["g"])
                    new |= await self._filling(session, workspace_id, definition)
            await self._traits.replace_one({"_id": old["_id"]}, new, session=session)
            return new

        return await self._change(workspace_id, act)

    async def delete(self, workspace_id: str, trait_id: str) -> None:
        """Remove a computed trait; what is kept of it is removed in the background. Raises ApiError NOT_FOUND."""

        async def act(session: Session) -> None:
            old = await self.get(workspace_id, trait_id, session)
            await self._traits.delete_one({"_id": old["_id"]}, session=session)
            await self._remove_values(session, workspace_id, old["g"])
            await workspaces.count(self._db, session, workspace_id, "c")

        await self._change(workspace_id, act)

    async def _filling(self, session: Session, workspace_id: str, definition: bytes) -> Document:
        """What a document gets when filling begins."""
        version = await workspaces.count(self._db, session, workspace_id, "c")
        # The gates are closed. So micro-batches that reserved an earlier place in the recorded order have committed, or
        # never will; and those that commit from now on have a later place.
        horizon = await log.next_sequence(self._db, 1, now_us())
        fields = {"d": Binary(definition), "g": str(version), "st": FILLING, "h": horizon, "at": "", "done": 0}
        return {**fields, "lo": None, "lu": 0}

    async def _remove_values(self, session: Session, workspace_id: str, generation: str) -> None:
        removal = {"_id": trait_key(workspace_id, generation), "w": workspace_id, "g": generation, "at": ""}
        await self._db[COMPUTED_TRAIT_REMOVALS].insert_one({**removal, "lo": None, "lu": 0}, session=session)

    async def _change(self, workspace_id: str, act: Callable[[Session], Awaitable[T]]) -> T:
        result = await gates.change(self._db, workspace_id, act)
        self._on_change()
        return result


def check(definition: bytes) -> Definition:
    """A definition from JSON. Raises ApiError INVALID_ARGUMENT that names the place."""
    field = f"{_FIELD}.definition"
    if not definition:
        raise invalid_argument(field, "is required: a definition as JSON")
    try:
        return parse_definition(definition)
    except DefinitionError as error:
        raise invalid_argument(f"{field}.{error.path}" if error.path else field, error.reason) from None


def etag_of(document: Document) -> str:
    """The etag of a stored computed trait."""
    return f"{document['rev']:x}"
