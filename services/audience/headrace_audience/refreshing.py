"""Starts the refreshes that are due, of audiences that are refreshed at intervals.

The moments at which an audience is due lie on a grid that begins with its activation. A refresh is computed for the
moment at which it was due, by every partition, whenever that happens; of several that were missed only the newest is
made up for. Starting one is a change of the audience's document that only one replica can make, whichever looks first.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.domain.times import SECOND_US
from headrace.storage.mongo.client import Database
from headrace_audience.catalog import Audience
from headrace_audience.store import ACTIVE, AUDIENCES, audience_key

SETTLE_US = 2 * SECOND_US
"""A refresh starts so long after it was due, so that what was accepted before has come to the log."""


async def start_due(db: Database, audiences: Iterable[Audience], now_us: int) -> bool:
    """Start the refreshes that are due.

    Args:
        db: Database.
        audiences: The audiences, as they were last read; one that was changed since is left alone.
        now_us: The time, in microseconds.

    Returns:
        Whether any was started.
    """
    started = False
    for audience in audiences:
        if audience.state != ACTIVE or audience.open or not audience.next_us:
            continue
        if audience.next_us + SETTLE_US > now_us:
            continue
        every = audience.definition.refresh_us
        missed = (now_us - SETTLE_US - audience.next_us) // every
        due = audience.next_us + missed * every
        answer = await db[AUDIENCES].update_one(
            {
                "_id": audience_key(audience.workspace_id, audience.audience_id),
                "w": audience.workspace_id,
                "gen": audience.generation,
                "state": ACTIVE,
                "open": False,
                "next": audience.next_us,
            },
            {
                "$inc": {"gen": 1},
                "$set": {
                    "at": due,
                    "next": due + every,
                    "cause": "refresh",
                    "done": [],
                    "open": True,
                    "updated": now_us,
                },
            },
        )
        started = started or bool(answer.modified_count)
    return started
