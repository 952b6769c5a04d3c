"""Progress of audiences that are being filled or emptied, partition by partition, in their documents.

Whoever records the last partition makes the audience ACTIVE, or removes what is left of one that is being deleted. A
crash in between is finished by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document, aggregate
from headrace_audience.catalog import Audience
from headrace_audience.store import (
    ACTIVE,
    AUDIENCES,
    DELETED,
    DELETING,
    FILLING,
    MEMBERSHIPS,
    SEPARATOR,
    audience_key,
    membership_key,
)


async def partitions_done(db: Database, audience: Audience, partitions: Collection[int], total: int) -> bool:
    """Record that partitions are done for the audience's generation.

    Returns:
        Whether all of them are, and the audience went into its next state.
    """
    query = _query(audience)
    await db[AUDIENCES].update_one(
        query, {"$addToSet": {"done": {"$each": list(partitions)}}, "$set": {"updated": now_us()}}
    )
    return await finish(db, audience, total)


async def finish(db: Database, audience: Audience, total: int) -> bool:
    """Go into the next state when all partitions are done; returns whether that happened now."""
    query = {**_query(audience), "done": {"$size": total}}
    if audience.state == FILLING:
        answer = await db[AUDIENCES].update_one(query, {"$set": {"state": ACTIVE, "updated": now_us()}})
        return bool(answer.modified_count)
    if audience.state != DELETING or await db[AUDIENCES].find_one(query, {"_id": 1}) is None:
        return False
    # Nobody writes rows of it any more. The highest version is stored before they go, so that an audience of the same
    # id that is made later counts on from it.
    rows: Document = {
        "_id": {
            "$gte": membership_key(audience.workspace_id, audience.audience_id, ""),
            "$lt": audience_key(audience.workspace_id, audience.audience_id) + chr(ord(SEPARATOR) + 1),
        }
    }
    pipeline = [{"$match": rows}, {"$group": {"_id": None, "highest": {"$max": "$version"}}}]
    highest = [d["highest"] async for d in aggregate(db[MEMBERSHIPS], pipeline)]
    await db[AUDIENCES].update_one(query, {"$max": {"base": highest[0] if highest else 0}})
    await db[MEMBERSHIPS].delete_many(rows)
    answer = await db[AUDIENCES].update_one(
        query, {"$set": {"state": DELETED, "updated": now_us(), "done": []}, "$unset": {"def": "", "name": ""}}
    )
    return bool(answer.modified_count)


def _query(audience: Audience) -> Document:
    return {
        "_id": audience_key(audience.workspace_id, audience.audience_id),
        "w": audience.workspace_id,
        "gen": audience.generation,
        "state": audience.state,
    }
