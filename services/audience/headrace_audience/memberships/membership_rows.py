"""All rows about some profiles, in whichever audience: counted, and removed when people are erased."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from headrace.storage.mongo.client import Database, Document
from headrace_audience.batching import batched
from headrace_audience.store import AUDIENCES, CHANGES, MEMBERSHIPS, membership_key

IDS_AT_A_TIME = 10_000


async def count(db: Database, workspace_id: str, profile_ids: Collection[str]) -> dict[str, int]:
    """Number of memberships, past ones too, and of their changes, by collection."""
    counts = {MEMBERSHIPS: 0, CHANGES: 0}
    async for collection, query in _queries(db, workspace_id, profile_ids):
        counts[collection] += await db[collection].count_documents(query)
    return counts


async def remove(db: Database, workspace_id: str, profile_ids: Collection[str]) -> dict[str, int]:
    """Remove memberships and their history; returns the numbers by collection."""
    removed = {MEMBERSHIPS: 0, CHANGES: 0}
    async for collection, query in _queries(db, workspace_id, profile_ids):
        removed[collection] += (await db[collection].delete_many(query)).deleted_count
    return removed


async def _queries(
    db: Database, workspace_id: str, profile_ids: Collection[str]
) -> AsyncIterator[tuple[str, Document]]:
    """(collection, query) of all rows; those of audiences are found by their keys."""
    if not profile_ids:
        return
    audiences: Document = {"w": workspace_id, "a": {"$exists": True}}
    audience_ids = [d["a"] async for d in db[AUDIENCES].find(audiences, {"_id": 0, "a": 1})]
    for keys in batched((membership_key(workspace_id, a, p) for a in audience_ids for p in profile_ids), IDS_AT_A_TIME):
        yield MEMBERSHIPS, {"_id": {"$in": keys}}
    for some in batched(profile_ids, IDS_AT_A_TIME):
        yield CHANGES, {"w": workspace_id, "p": {"$in": some}}
