"""Compares the stored members of a batch audience with the batch evaluator, as of when they were computed.

What came later with an earlier time, and people who were merged, separated or forgotten since, make the two differ
though nothing is wrong: so of the differences only those count of which nothing was heard since the audience was
computed.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from headrace.domain.times import now_us
from headrace.rpc.errors import wrong_state
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database, Document
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.survivors import Survivors
from headrace_audience.batch import queries
from headrace_audience.batching import batched
from headrace_audience.definitions.references import referenced, stored_members
from headrace_audience.language.definition import Definition
from headrace_audience.store import ACTIVE, AUDIENCES

LOOK_S = 0.1
WAIT_S = 30.0
_AT_A_TIME = 1_000

_Parts = dict[str, set[str]]
"""Members to the profiles, as they stand in the log, whose events make them members or not."""


@dataclass(frozen=True)
class BatchDifference:
    """Who is stored and not computed, and the other way round."""

    at_us: int
    """As of when."""
    batch_size: int
    only_stored: frozenset[str]
    only_batch: frozenset[str]

    @property
    def members(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self.only_stored | self.only_batch)


class BatchVerifier:
    """Checks audiences whose members are computed for a moment."""

    def __init__(self, db: Database, reader: ArchiveReader, late_us: int, *, wait_s: float = WAIT_S) -> None:
        """Check against a reader's events, which may be committed so late; wait for repairs so many seconds."""
        self._db = db
        self._reader = reader
        self._late_us = late_us
        self._wait_s = wait_s

    async def compare(self, document: Document, definition: Definition) -> BatchDifference:
        """Compare an active audience as of when it was computed.

        Raises:
            ApiError: WRONG_STATE, it is being computed, or goes by stored members of other audiences.
        """
        workspace_id = document["w"]
        if document["open"]:
            raise wrong_state(document["state"], "The audience is being computed: verify it again in a moment.")
        known = await referenced(self._db, workspace_id, definition)
        if any(not isinstance(meaning, Definition) for meaning in known.values()):
            message = "It names an audience that goes by its stored members: who they were then is gone."
            raise wrong_state(document["state"], message)
        at_us = document["refreshed"]
        async with self._reader.open(workspace_id) as view:
            evaluate = functools.partial(queries.evaluate, definition=definition, now_us=at_us, audiences=known)
            batch = frozenset(await view.run(evaluate))
            stored = frozenset(await stored_members(self._db, workspace_id, document["a"]))
            differing = batch ^ stored
            if definition.of == "groups":
                parts = await view.run(functools.partial(_people_of, groups=sorted(differing)))
            else:
                parts = {profile_id: {profile_id} for profile_id in differing}
            explained = await self._heard_of(workspace_id, parts, view.survivors, at_us, definition.of)
        return BatchDifference(at_us, len(batch), stored - batch - explained, batch - stored - explained)

    async def _heard_of(self, workspace_id: str, parts: _Parts, survivors: Survivors, at_us: int, of: str) -> set[str]:
        """Members of whom anything was accepted, or assigned anew, since about a moment."""
        since = at_us - self._late_us
        moved = [r async for r in event_log.reassignments_since(self._db, since, workspace_id)]
        if moved and of == "groups":  # who belonged to a group and is forgotten is not known any more
            return set(parts)
        heard = {reassigned.profile_id for told in moved for reassigned in told.items}
        profiles = {profile for some in parts.values() for profile in some}
        all_parts = survivors.parts_of(profiles)
        for some in batched(sorted(all_parts), _AT_A_TIME):
            query: Document = {"p": {"$in": list(some)}, "s": {"$gte": since}, "w": workspace_id}
            heard.update(await self._db[event_log.EVENTS].distinct("p", query))
        heard |= {survivor for part, survivor in all_parts.items() if part in heard}
        return {member for member, some in parts.items() if not some.isdisjoint(heard)}

    async def repair(self, document: Document) -> int | None:
        """Compute an audience anew for the moment for which it was; what is stored is read again first.

        Returns:
            The number of memberships that were corrected; None when that takes longer, or somebody changed the audience
            meanwhile.
        """
        key: Document = {"_id": document["_id"], "w": document["w"]}
        generation = document["gen"] + 1
        before = frozenset(await stored_members(self._db, document["w"], document["a"]))
        begun = await self._db[AUDIENCES].update_one(
            {**key, "gen": document["gen"], "state": ACTIVE, "open": False},
            {
                "$set": {
                    "gen": generation,
                    "reread": generation,
                    "cause": "repair",
                    "at": document["refreshed"],
                    "done": [],
                    "open": True,
                    "updated": now_us(),
                }
            },
        )
        until = time.monotonic() + self._wait_s
        is_begun = bool(begun.modified_count)
        while is_begun and time.monotonic() < until:
            await asyncio.sleep(LOOK_S)
            present = await self._db[AUDIENCES].find_one({**key, "gen": generation}, {"open": 1})
            if present is None:
                return None
            if not present["open"]:
                after = frozenset(await stored_members(self._db, document["w"], document["a"]))
                return len(before ^ after)
        return None


def _people_of(connection: duckdb.DuckDBPyConnection, groups: Collection[str]) -> _Parts:
    """Whose events name some groups; "" for those of nobody."""
    connection.register("asked_groups", pa.table({"group_id": pa.array(list(groups), pa.string())}))
    rows = connection.execute("SELECT DISTINCT group_id, profile FROM mentions JOIN asked_groups USING (group_id)")
    found: _Parts = defaultdict(set, {group_id: set() for group_id in groups})
    for group_id, profile in rows.fetchall():
        found[group_id].add(profile)
    return dict(found)
