"""Progress of audiences that are being filled or emptied, partition by partition, in their documents.

Whoever records the last partition makes the audience ACTIVE, says that a refresh is done, or removes what is left of
one that is being deleted. A crash in between is finished by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs
from headrace_audience.definitions.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.filling import versions
from headrace_audience.store import (
    ACTIVE,
    ARCHIVED,
    AUDIENCES,
    DELETED,
    DELETING,
    MEMBERSHIPS,
    SEPARATOR,
    audience_key,
    membership_key,
)

log = logs.get_logger(__name__)

ROWS_AT_A_TIME = 5_000
"""Rows of an audience that is being deleted that are removed in one step of the worker."""


async def record(db: Database, evaluation: Evaluation, limits: versions.Limits, total: int) -> bool:
    """Record which partitions of which audiences are filled or emptied, once it is written.

    Args:
        db: Database.
        evaluation: The audiences of a workspace.
        limits: What a new version may move without being confirmed.
        total: Number of partitions.

    Returns:
        Whether audiences were changed.
    """
    changed = False
    for audience_id, partitions in evaluation.finished().items():
        audience = evaluation.audiences[audience_id]
        if audience.version_of:
            await versions.record_counts(db, audience, evaluation.compared(audience, partitions))
            await versions.finish(db, audience, limits, total)
        elif await partitions_done(db, audience, partitions, total):
            log.info("audience is complete", workspace=audience.workspace_id, audience=audience_id, was=audience.state)
        changed = True
    for audience in evaluation.audiences.values():
        # Somebody may have ended between recording the last partition and what follows.
        if len(audience.done) < total or audience.held:
            continue
        if audience.version_of:
            changed |= await versions.finish(db, audience, limits, total)
        elif audience.is_filling or audience.is_leaving:
            changed |= await finish(db, audience, total)
    return changed


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
    """Go into the next state when all partitions are done; returns whether that happened now.

    What is left of a large audience that is being deleted takes several calls.
    """
    query = {**_query(audience), "done": {"$size": total}}
    closed: Document = {"open": False, "updated": now_us()}
    if audience.is_filling:
        filled: Document = {**closed, "state": ACTIVE, "refreshed": audience.at_us}
        return bool((await db[AUDIENCES].update_one(query, {"$set": filled})).modified_count)
    if audience.state == ARCHIVED:
        return bool((await db[AUDIENCES].update_one(query, {"$set": closed})).modified_count)
    if audience.state != DELETING or await db[AUDIENCES].find_one(query, {"_id": 1}) is None:
        return False
    if not await _remove_some(db, audience):
        return False
    answer = await db[AUDIENCES].update_one(
        query,
        {
            "$set": {**closed, "state": DELETED, "done": []},
            "$unset": {"def": "", "name": "", "traits": "", "computed": ""},
        },
    )
    return bool(answer.modified_count)


async def _remove_some(db: Database, audience: Audience) -> bool:
    """Remove some of the rows of an audience that is being deleted; returns whether none is left.

    The loop that everything else waits for calls this again and again: a million rows at once would hold it up for
    long. Nobody writes rows of the audience any more. The highest version is stored before they go, so that an audience
    of the same id that is made later counts on from it.
    """
    rows: Document = {
        "_id": {
            "$gte": membership_key(audience.workspace_id, audience.audience_id, ""),
            "$lt": audience_key(audience.workspace_id, audience.audience_id) + chr(ord(SEPARATOR) + 1),
        }
    }
    some = [d async for d in db[MEMBERSHIPS].find(rows, {"version": 1}).limit(ROWS_AT_A_TIME)]
    if some:
        highest = max(row["version"] for row in some)
        await db[AUDIENCES].update_one(_query(audience), {"$max": {"base": highest}})
        # Another replica may have come to the end meanwhile: rows of an audience that was made since are later ones.
        gone: Document = {"_id": {"$in": [row["_id"] for row in some]}, "version": {"$lte": highest}}
        await db[MEMBERSHIPS].delete_many(gone)
    return len(some) < ROWS_AT_A_TIME


def _query(audience: Audience) -> Document:
    return {
        "_id": audience_key(audience.workspace_id, audience.audience_id),
        "w": audience.workspace_id,
        "gen": audience.generation,
        "state": audience.state,
    }
