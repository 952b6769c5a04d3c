"""How audiences overlap: how many people are in exactly which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.storage.mongo.client import Database, Document, aggregate
from headrace_audience.store import MEMBERSHIPS

MOST_AUDIENCES = 10


class Region(NamedTuple):
    """People who are in all of some audiences, and in none of the others that were asked for."""

    audience_ids: tuple[str, ...]
    size: int


async def overlap(db: Database, workspace_id: str, audience_ids: Sequence[str]) -> list[Region]:
    """The regions of audiences that hold anybody, the largest first.

    Args:
        db: Database.
        workspace_id: The workspace.
        audience_ids: Different audiences, at most MOST_AUDIENCES.
    """
    bits: list[Document] = [
        {"case": {"$eq": ["$a", audience_id]}, "then": 1 << place} for place, audience_id in enumerate(audience_ids)
    ]
    pipeline: list[Document] = [
        {"$match": {"w": workspace_id, "a": {"$in": list(audience_ids)}, "in": True}},
        {"$group": {"_id": "$p", "in": {"$sum": {"$switch": {"branches": bits, "default": 0}}}}},
        {"$group": {"_id": "$in", "n": {"$sum": 1}}},
    ]
    regions = []
    async for document in aggregate(db[MEMBERSHIPS], pipeline, allowDiskUse=True):
        inside = tuple(a for place, a in enumerate(audience_ids) if document["_id"] & 1 << place)
        regions.append(Region(inside, document["n"]))
    return sorted(regions, key=lambda region: (-region.size, region.audience_ids))
