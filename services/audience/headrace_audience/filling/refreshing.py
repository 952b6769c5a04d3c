"""Starts the refreshes that are due: of audiences that are refreshed at intervals, and of continuous ones of groups.

The moments at which an audience is due at intervals lie on a grid that begins with its activation. A refresh is
computed for the moment at which it was due, by every partition, whenever that happens; of several that were missed only
the newest is made up for. A continuous audience of groups is due when it may be behind what it reads, and is computed
for the moment at which that is noticed.

Starting a refresh is a change of the audience's document that only one replica can make, whichever looks first.
"""

from __future__ import annotations

from headrace.domain.times import SECOND_US
from headrace.storage.mongo.client import Database, Document
from headrace_audience.definitions.catalog import Audience
from headrace_audience.evaluation import Evaluation
from headrace_audience.store import ACTIVE, AUDIENCES, audience_key

SETTLE_US = 2 * SECOND_US
"""A refresh starts so long after it was due, so that what was accepted before has come to the log."""


async def start_due(db: Database, evaluation: Evaluation, now_us: int, groups_every_s: float) -> bool:
    """Start the refreshes that are due.

    Args:
        db: Database.
        evaluation: The audiences of a workspace, as they were last read; one that was changed since is left alone.
        now_us: The time, in microseconds.
        groups_every_s: Time in seconds from one refresh of a continuous audience of groups to the next, at least.

    Returns:
        Whether any was started.
    """
    started = False
    for audience in evaluation.audiences.values():
        if audience.state != ACTIVE or audience.open:
            continue
        if audience.definition.refresh_us:
            started |= await _start_at_intervals(db, audience, now_us)
            continue
        is_due = evaluation.behind.is_due(audience, now_us, int(groups_every_s * SECOND_US))
        if is_due and await _start(db, audience, {"at": now_us}, now_us):
            evaluation.behind.started(audience.audience_id)
            started = True
    return started


async def _start_at_intervals(db: Database, audience: Audience, now_us: int) -> bool:
    if not audience.next_us or audience.next_us + SETTLE_US > now_us:
        return False
    every = audience.definition.refresh_us
    missed = (now_us - SETTLE_US - audience.next_us) // every
    due = audience.next_us + missed * every
    return await _start(db, audience, {"at": due, "next": due + every}, now_us)


async def _start(db: Database, audience: Audience, change: Document, now_us: int) -> bool:
    """Start a refresh, unless the audience was changed since it was read; returns whether it was started."""
    answer = await db[AUDIENCES].update_one(
        {
            "_id": audience_key(audience.workspace_id, audience.audience_id),
            "w": audience.workspace_id,
            "gen": audience.generation,
            "state": ACTIVE,
            "open": False,
        },
        {
            "$inc": {"gen": 1},
            "$set": {"cause": "refresh", "done": [], "open": True, "updated": now_us, **change},
        },
    )
    return bool(answer.modified_count)
