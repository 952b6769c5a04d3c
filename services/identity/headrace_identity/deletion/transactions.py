"""Transactions that change what a whole workspace's events are resolved by: tried again until nobody is quicker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace.rpc.errors import concurrent_change
from headrace.storage.mongo.client import Database, Session, transaction
from headrace_identity import gates
from headrace_identity.failures import is_conflict

T = TypeVar("T")

_MOST_TRIES = 200
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1


async def with_closed_gates(db: Database, workspace_id: str, act: Callable[[Session], Awaitable[T]]) -> T:
    """Act in a transaction in which no micro-batch of a workspace can commit.

    Args:
        db: Database.
        workspace_id: The workspace.
        act: What is done; it may be done several times, of which only the last counts.

    Returns:
        What `act` returned.

    Raises:
        ApiError: CONCURRENT_CHANGE, others were quicker again and again; nothing was done.
        pymongo.errors.PyMongoError: A store failed; nothing was done, or all of it when the answer was lost.
    """
    pause_s = _FIRST_PAUSE_S
    for _ in range(_MOST_TRIES):
        try:
            async with transaction(db.client) as session:
                await gates.close_gates(db, session, workspace_id)
                return await act(session)
        except Exception as error:
            if not is_conflict(error):
                raise
        # Full jitter: whoever was quicker may come again at once.
        await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise concurrent_change()
