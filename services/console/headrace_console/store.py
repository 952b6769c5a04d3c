"""The collections of the console service: workspaces and API tokens.

Secrets of tokens are stored as digests only; the unique index on them is what a call's token is looked up by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from headrace.domain import ids, times
from headrace.storage.mongo.client import Database, Document

WORKSPACES = "workspaces"
API_TOKENS = "api_tokens"

INDEXES: dict[str, list[IndexModel]] = {
    API_TOKENS: [IndexModel([("digest", ASCENDING)], name="by_digest", unique=True)],
}
"""Indexes beside those on _id, by collection; workspaces need none."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant."""

    id: str
    display_name: str
    created_us: int
    """When it was made, in microseconds."""
    request_id: str = ""
    """Request id of the call that made it."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A program's credential, without its secret."""

    workspace_id: str
    id: str
    display_name: str
    scopes: tuple[str, ...]
    created_us: int
    """When it was made, in microseconds."""
    revoked_us: int = 0
    """When it was revoked, in microseconds; 0 while it works."""


class ConsoleStore:
    """Reads and writes workspaces and API tokens."""

    def __init__(self, db: Database) -> None:
        """Use a database whose indexes exist."""
        self._workspaces = db[WORKSPACES]
        self._tokens = db[API_TOKENS]

    async def add_workspace(self, workspace: Workspace) -> Workspace | None:
        """Add a workspace; returns the stored one when its id is taken, else None."""
        document = {
            "_id": workspace.id,
            "display_name": workspace.display_name,
            "created_us": workspace.created_us,
            "rid": workspace.request_id,
        }
        try:
            await self._workspaces.insert_one(document)
        except DuplicateKeyError:
            return await self.workspace(workspace.id)
        return None

    async def workspace(self, workspace_id: str) -> Workspace | None:
        """The workspace, or None."""
        document = await self._workspaces.find_one({"_id": workspace_id})
        return None if document is None else _workspace(document)

    async def workspaces(self, after: str, limit: int) -> list[Workspace]:
        """Workspaces whose id comes after a given one, by id."""
        cursor = self._workspaces.find({"_id": {"$gt": after}}).sort("_id", ASCENDING).limit(limit)
        return [_workspace(d) async for d in cursor]

    async def add_token(self, workspace_id: str, display_name: str, scopes: Sequence[str], digest: str) -> ApiToken:
        """Store a new token of a workspace by the digest of its secret."""
        token = ApiToken(workspace_id, ids.new_time_ordered_id(), display_name, tuple(scopes), times.now_us())
        await self._tokens.insert_one(
            {
                "_id": _token_key(workspace_id, token.id),
                "w": workspace_id,
                "i": token.id,
                "display_name": token.display_name,
                "scopes": list(token.scopes),
                "digest": digest,
                "created_us": token.created_us,
                "revoked_us": 0,
            }
        )
        return token

    async def tokens(self, workspace_id: str, after: str, limit: int) -> list[ApiToken]:
        """Tokens of a workspace whose id comes after a given one, in order of making; revoked ones too."""
        # The ids of one workspace are neighbours in _id, so its index serves this query.
        key = {"$gt": _token_key(workspace_id, after), "$lt": _token_key(workspace_id, "\U0010ffff")}
        cursor = self._tokens.find({"_id": key, "w": workspace_id}).sort("_id", ASCENDING).limit(limit)
        return [_token(d) async for d in cursor]

    async def revoke_token(self, workspace_id: str, token_id: str) -> ApiToken | None:
        """Revoke a token, once; returns it as stored, or None when there is none."""
        key = {"_id": _token_key(workspace_id, token_id), "w": workspace_id}
        document = await self._tokens.find_one_and_update(
            {**key, "revoked_us": 0},
            {"$set": {"revoked_us": times.now_us()}},
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            document = await self._tokens.find_one(key)
        return None if document is None else _token(document)

    async def working_token(self, digest: str) -> ApiToken | None:
        """The token whose secret has this digest, unless it is revoked.

        This query names no workspace: which one it is, is what the secret tells.
        """
        document = await self._tokens.find_one({"digest": digest, "revoked_us": 0})
        return None if document is None else _token(document)


def _token_key(workspace_id: str, token_id: str) -> str:
    return f"{workspace_id}\x1f{token_id}"


def _workspace(document: Document) -> Workspace:
    return Workspace(document["_id"], document["display_name"], document["created_us"], document["rid"])


def _token(document: Document) -> ApiToken:
    return ApiToken(
        workspace_id=document["w"],
        id=document["i"],
        display_name=document["display_name"],
        scopes=tuple(document["scopes"]),
        created_us=document["created_us"],
        revoked_us=document["revoked_us"],
    )
