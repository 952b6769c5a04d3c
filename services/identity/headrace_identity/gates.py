"""Gates: nobody commits a micro-batch that was resolved by rules, links or tombstones that have changed meanwhile.

Resolving depends on inputs that hold for a whole workspace. A micro-batch that read them writes one gate of the
workspace as the last write of its transaction; whoever changes such an input writes all of them before he reads
anything. Of a micro-batch and a change that overlap MongoDB refuses one, which is then tried again on what the other
left. Workers keep to different gates, so that they never wait for each other.

Where many workers commit all the time, some gate is always being passed. Who is refused a few times asks for room: for
a moment no worker begins a micro-batch, those under way end, and the gates can be closed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from headrace.domain.times import now_us
from headrace.rpc.errors import concurrent_change
from headrace.storage.mongo.client import Database, Session, transaction
from headrace_identity.documents import SEPARATOR
from headrace_identity.failures import is_conflict
from headrace_identity.store import IDENTITY_GATES, IDENTITY_WORKSPACES

GATES = 64
"""Gates of a workspace. Two workers that share one conflict at each micro-batch, until one of them chooses anew."""

PATIENCE = 3
"""How often whoever wants to close the gates is refused before he asks for room."""

_ROOM_US = 1_000_000
_TRIES = 30
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1

T = TypeVar("T")


class GateClosed(Exception):
    """A micro-batch cannot commit at this moment: none of its events is the reason, and fewer would not help."""


_next_gate = itertools.count(random.randrange(GATES))  # noqa: S311 - not for secrets


def choose() -> int:
    """A gate for a worker: none that another of this process has, unless there are very many of them."""
    return next(_next_gate) % GATES


async def pass_gate(db: Database, session: Session, workspace_id: str, gate: int) -> None:
    """Pass through a gate, as the last write of a micro-batch.

    Raises:
        GateClosed: An input was changed since the transaction began, or is being changed; or another worker has the
            same gate. Resolve again, after a while.
        pymongo.errors.PyMongoError: A store failed.
    """
    try:
        await _write(db, session, workspace_id, (gate,))
    except PyMongoError as error:
        if is_conflict(error):
            raise GateClosed from error
        raise


async def close_gates(db: Database, session: Session, workspace_id: str) -> None:
    """Let no micro-batch of the workspace commit that began before the end of this transaction; its first statement.

    Raises:
        pymongo.errors.PyMongoError: A micro-batch is just committing: try again.
    """
    await _write(db, session, workspace_id, range(GATES))
    query = {"_id": workspace_id, "cl": {"$exists": True}}
    await db[IDENTITY_WORKSPACES].update_one(query, {"$unset": {"cl": ""}}, session=session)


async def ask_for_room(db: Database, workspace_id: str) -> None:
    """Ask workers not to begin a micro-batch of the workspace for a moment, or until the gates have been closed."""
    await db[IDENTITY_WORKSPACES].update_one({"_id": workspace_id}, {"$max": {"cl": now_us() + _ROOM_US}}, upsert=True)


async def change(db: Database, workspace_id: str, act: Callable[[Session], Awaitable[T]]) -> T:
    """Change what resolving depends on, in a transaction that has closed the gates.

    Args:
        db: Database.
        workspace_id: The workspace.
        act: Makes the change; called again, in another transaction, when somebody else was quicker.

    Raises:
        ApiError: CONCURRENT_CHANGE, others were quicker again and again; nothing was done.
        pymongo.errors.PyMongoError: A store failed; nothing was done, or all of it when the answer was lost.
    """
    pause_s = _FIRST_PAUSE_S
    for tries in range(_TRIES):
        try:
            if tries >= PATIENCE:
                await ask_for_room(db, workspace_id)
            async with transaction(db.client) as session:
                await close_gates(db, session, workspace_id)
                return await act(session)
        except Exception as error:
            if not is_conflict(error):
                raise
        await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise concurrent_change()


async def _write(db: Database, session: Session, workspace_id: str, gates: Iterable[int]) -> None:
    writes = [UpdateOne({"_id": f"{workspace_id}{SEPARATOR}{gate}"}, {"$inc": {"g": 1}}, upsert=True) for gate in gates]
    await db[IDENTITY_GATES].bulk_write(writes, ordered=False, session=session)
