"""Manual links of workspaces: stored, and compiled once per version.

identity_links  _id workspace + link, w workspace, k kind, a and b [namespace, value], r reason,
                u profile whose merge was undone by it, t created, in microseconds
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pymongo import ASCENDING

from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.documents import SEPARATOR
from headrace_identity.resolving.links import NO_LINKS, Links, ManualLink
from headrace_identity.store import IDENTITY_LINKS
from headrace_identity.workspaces import Workspace

_CACHED_WORKSPACES = 1_000


class LinksStore:
    """Reads manual links; compiled ones are kept for as long as their version is the stored one."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db
        self._cache: dict[str, tuple[int, Links]] = {}

    async def read(self, workspace: Workspace, session: Session | None = None) -> Links:
        """Links of a workspace.

        Args:
            workspace: The workspace as the same transaction read it.
            session: The transaction. Without one the links may be newer than the workspace.
        """
        version = workspace.links_version
        if version == 0:
            return NO_LINKS
        cached = self._cache.get(workspace.id)
        if cached is not None and cached[0] == version:
            return cached[1]
        cursor = self._db[IDENTITY_LINKS].find({"w": workspace.id}, session=session)
        links = Links([_link(d) async for d in cursor])
        if session is not None:  # outside of a snapshot they may be those of a later version
            if len(self._cache) >= _CACHED_WORKSPACES:
                self._cache.clear()
            self._cache[workspace.id] = (version, links)
        return links

    async def get(self, workspace_id: str, link_id: str) -> ManualLink | None:
        """One link, or None."""
        document = await self._db[IDENTITY_LINKS].find_one({"_id": _key(workspace_id, link_id), "w": workspace_id})
        return _link(document) if document is not None else None

    async def page(self, workspace_id: str, after: str, limit: int) -> list[ManualLink]:
        """Links in the order in which they were made, those after an id."""
        query = {"_id": {"$gt": _key(workspace_id, after)}, "w": workspace_id}
        cursor = self._db[IDENTITY_LINKS].find(query).sort("_id", ASCENDING).limit(limit)
        return [_link(d) async for d in cursor]

    async def undoing(self, workspace_id: str, merge: str) -> list[ManualLink]:
        """The links that undid the merge of a profile."""
        cursor = self._db[IDENTITY_LINKS].find({"w": workspace_id, "u": merge}).sort("_id", ASCENDING)
        return [_link(d) async for d in cursor]


async def add(db: Database, session: Session, workspace_id: str, links: Iterable[ManualLink]) -> None:
    """Store new links; their ids are ordered by time."""
    documents: list[Document] = [
        {
            "_id": _key(workspace_id, link.id),
            "w": workspace_id,
            "k": link.kind,
            "a": list(link.first),
            "b": list(link.second),
            "r": link.reason,
            "u": link.undone_merge,
            "t": link.created_us,
        }
        for link in links
    ]
    if documents:
        await db[IDENTITY_LINKS].insert_many(documents, session=session)


async def remove(db: Database, session: Session, workspace_id: str, link_ids: Collection[str]) -> None:
    """Remove links; unknown ones are passed over."""
    if link_ids:
        keys = [_key(workspace_id, link_id) for link_id in link_ids]
        await db[IDENTITY_LINKS].delete_many({"_id": {"$in": keys}, "w": workspace_id}, session=session)


def _key(workspace_id: str, link_id: str) -> str:
    return f"{workspace_id}{SEPARATOR}{link_id}"


def _link(document: Document) -> ManualLink:
    _, _, link_id = document["_id"].partition(SEPARATOR)
    (first_namespace, first), (second_namespace, second) = document["a"], document["b"]
    return ManualLink(
        link_id,
        document["k"],
        (first_namespace, first),
        (second_namespace, second),
        document["r"],
        document["u"],
        document["t"],
    )
