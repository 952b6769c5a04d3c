"""Compares the live members of an audience with the batch evaluator.

The live state moves while it is compared: an event may be in the log and not yet folded, a window may pass between the
two looks. So profiles that differ are looked at again, some moments later, and only those that differ each time count.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass

from headrace.domain.times import now_us
from headrace.rpc.errors import wrong_state
from headrace.storage.mongo.client import Database
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.batch import queries
from headrace_audience.handlers import Audiences
from headrace_audience.language.parser import parse_definition
from headrace_audience.references import referenced, stored_members
from headrace_audience.store import ACTIVE

ROUNDS = 6
PAUSE_S = 0.5


@dataclass(frozen=True)
class Comparison:
    """The outcome."""

    live_size: int
    batch_size: int
    mismatched: list[str]
    """Profile ids on which the two differ, sorted."""
    at_us: int
    """The clock of the first comparison."""


class Verifier:
    """Checks audiences."""

    def __init__(
        self,
        db: Database,
        audiences: Audiences,
        reader: ArchiveReader,
        *,
        rounds: int = ROUNDS,
        pause_s: float = PAUSE_S,
    ) -> None:
        """Check against a reader's events.

        Args:
            db: Database.
            audiences: The audiences.
            reader: Archive and log.
            rounds: How often a difference must be seen to count.
            pause_s: Time between two looks, in seconds.
        """
        self._db = db
        self._audiences = audiences
        self._reader = reader
        self._rounds = rounds
        self._pause_s = pause_s

    async def verify(self, workspace_id: str, audience_id: str) -> Comparison:
        """Compare at one instant.

        Raises:
            ApiError: NOT_FOUND, or WRONG_STATE for one that is not kept exact: a draft, a static or a paused audience.
        """
        document = await self._audiences.get(workspace_id, audience_id)
        definition = parse_definition(document["def"])
        if document["state"] != ACTIVE:
            raise wrong_state(document["state"], "Only an active audience can be verified.")
        if definition.kind == "static":
            raise wrong_state(document["state"], "A static audience is computed once: there is nothing to compare.")
        first_at = 0
        batch_size = 0
        only_live: set[str] = set()
        only_batch: set[str] = set()
        for turn in range(self._rounds):
            known = await referenced(self._db, workspace_id, definition)
            async with self._reader.open(workspace_id) as view:
                at_us = now_us()
                evaluate = functools.partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
                evaluated = set(await view.run(evaluate))
            live = set(await stored_members(self._db, workspace_id, audience_id))
            if turn == 0:
                first_at, batch_size = at_us, len(evaluated)
                only_live, only_batch = live - evaluated, evaluated - live
            else:
                only_live &= live - evaluated
                only_batch &= evaluated - live
            if not only_live and not only_batch:
                break
            if turn + 1 < self._rounds:
                await asyncio.sleep(self._pause_s)
        return Comparison(
            live_size=batch_size + len(only_live) - len(only_batch),
            batch_size=batch_size,
            mismatched=sorted(only_live | only_batch),
            at_us=first_at,
        )
