"""How audiences overlap: how many people are in exactly which of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from headrace.storage.mongo.client import Database
from headrace_audience.store import members_after

MOST_AUDIENCES = 10
PAGE = 20_000
"""So many members of each audience are looked at together."""


class Region(NamedTuple):
    """People who are in all of some audiences, and in none of the others that were asked for."""

    audience_ids: tuple[str, ...]
    size: int


async def overlap(db: Database, workspace_id: str, audience_ids: Sequence[str], partitions: int) -> list[Region]:
    """The regions of audiences that hold anybody, the largest first.

    The ids of the members are read side by side in their order: grouping a million people in the store takes it ten
    times as long, and much memory.

    Args:
        db: Database.
        workspace_id: The workspace.
        audience_ids: Different audiences, at most MOST_AUDIENCES.
        partitions: Number of partitions of profiles.
    """
    sizes: Counter[int] = Counter()
    after = ""
    while True:
        pages = [await _page(db, workspace_id, audience_id, after, partitions) for audience_id in audience_ids]
        # Up to here all audiences are read: beyond it a page that is full may go on.
        bounds = [page[-1] for page in pages if len(page) == PAGE]
        bound = min(bounds, default=None)
        regions: dict[str, int] = {}
        for place, page in enumerate(pages):
            for profile_id in page if bound is None else page[: bisect_right(page, bound)]:
                regions[profile_id] = regions.get(profile_id, 0) | 1 << place
        sizes.update(regions.values())
        if bound is None:
            break
        after = bound
    found = [
        Region(tuple(a for place, a in enumerate(audience_ids) if region & 1 << place), size)
        for region, size in sizes.items()
    ]
    return sorted(found, key=lambda region: (-region.size, region.audience_ids))


async def _page(db: Database, workspace_id: str, audience_id: str, after: str, partitions: int) -> list[str]:
    """Ids of the next members after one, in order."""
    members = await members_after(db, workspace_id, audience_id, after, PAGE, partitions, ["p"])
    return [member["p"] for member in members]
