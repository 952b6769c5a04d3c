"""Previews and rebuilds as MongoDB documents: what is asked for, how far it is, what came of it, and who works on it.

identity_rebuilds  _id workspace + rebuild, w workspace, pv preview, q request id, r rules as JSON, v their version
(-1: not in force), s sequence up to which a rebuild resolves, st state, er error,
ev [events done, in all], sw [groups switched, in all], c what changes, x examples,
t created, in microseconds, te ended, expires;
only while it runs: a 1, rw workspace (rebuilds), o owner, l until when it is his, n tries
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bson.binary import Binary
from pymongo import ASCENDING, DESCENDING

from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import SECOND_US, now_us
from headrace.rpc.errors import not_found, wrong_state
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity import gates
from headrace_identity.documents import SEPARATOR
from headrace_identity.resolving.rules import Rules
from headrace_identity.rules_store import RebuildRunning, RulesStore
from headrace_identity.store import IDENTITY_REBUILDS

RUNNING = pb.RebuildState.REBUILD_STATE_RUNNING
SWITCHING = pb.RebuildState.REBUILD_STATE_SWITCHING
DONE = pb.RebuildState.REBUILD_STATE_DONE
FAILED = pb.RebuildState.REBUILD_STATE_FAILED
CANCELLED = pb.RebuildState.REBUILD_STATE_CANCELLED

LEASE_US = 15 * SECOND_US
"""For how long a replica has a preview or rebuild to itself without saying that it is still there."""

NOT_IN_FORCE = -1
"""Version of rules that are only tried."""

_WORKING = ("a", "rw", "o", "l", "n")


@dataclass(slots=True)
class Job:
    """A preview or rebuild that this replica works on.

    Attributes:
        key: Its key.
        workspace_id: The workspace.
        preview: Whether nothing is changed.
        rules: The rules, as JSON text.
        version: Their version, NOT_IN_FORCE for a preview.
        sequence: Up to where in the recorded order a rebuild resolves; 0 for a preview.
        tries: How often it was begun before.
        compared: Whether it was written already what changes, perhaps by an earlier try.
    """

    key: str
    workspace_id: str
    preview: bool
    rules: bytes
    version: int
    sequence: int
    tries: int
    compared: bool


class Stopped(Exception):
    """The job was cancelled, or another replica has it."""


class RebuildStore:
    """Keeps previews and rebuilds."""

    def __init__(self, db: Database, rules: RulesStore) -> None:
        """Keep them in a database, and put rules in force in a store."""
        self._db = db
        self._rebuilds = db[IDENTITY_REBUILDS]
        self._rules = rules

    async def start_preview(self, workspace_id: str, rules: Rules, request_id: str) -> Document:
        """Ask for a preview of rules."""
        known = await self._rebuilds.find_one({"a": 1, "w": workspace_id, "pv": True, "q": request_id or None})
        if known is not None:
            return known
        document = _document(workspace_id, rules, NOT_IN_FORCE, 0, request_id)
        await self._rebuilds.insert_one(document)
        return document

    async def start_rebuild(
        self, workspace_id: str, rules: Rules | None, expected_version: int | None, request_id: str
    ) -> Document:
        """Put rules in force and ask for a rebuild.

        Args:
            workspace_id: The workspace.
            rules: New rules; None for those in force.
            expected_version: Version of the rules that the caller read; None for any.
            request_id: From the caller, or "".

        Raises:
            RulesChanged: The rules in force are others than the caller read; nothing was done.
            ApiError: WRONG_STATE, a rebuild is under way; CONCURRENT_CHANGE. Nothing was done.
        """

        async def start(session: Session) -> Document:
            # The gates are closed: all events up to this sequence are stored, all later ones follow the new rules.
            current = await self._rules.in_force(workspace_id, session)
            try:
                version = await self._rules.put_in_force(
                    session, workspace_id, rules if rules is not None else current.rules, expected_version
                )
            except RebuildRunning as running:
                known = await self._rebuilds.find_one({"rw": workspace_id}, session=session)
                if known is not None and request_id and known["q"] == request_id:
                    return known
                raise already_running(running) from None
            sequence = await log.next_sequence(self._db, 1, now_us())
            document = _document(workspace_id, rules or current.rules, version, sequence, request_id)
            document["rw"] = workspace_id
            await self._rebuilds.insert_one(document, session=session)
            return document

        return await gates.change(self._db, workspace_id, start)

    async def get(self, workspace_id: str, rebuild_id: str) -> Document:
        """A preview or rebuild.

        Raises:
            ApiError: NOT_FOUND.
        """
        document = await self._rebuilds.find_one({"_id": _key(workspace_id, rebuild_id), "w": workspace_id})
        if document is None:
            raise not_found(f"workspaces/{workspace_id}/rebuilds/{rebuild_id}")
        return document

    async def page(self, workspace_id: str, before: str, limit: int) -> list[Document]:
        """Previews and rebuilds, newest first, those before an id; without examples."""
        upper = _key(workspace_id, before) if before else workspace_id + chr(ord(SEPARATOR) + 1)
        query = {"_id": {"$gt": _key(workspace_id, ""), "$lt": upper}}
        cursor = self._rebuilds.find(query, {"x": 0, "r": 0}).sort("_id", DESCENDING).limit(limit)
        return await cursor.to_list(None)

    async def cancel(self, workspace_id: str, rebuild_id: str) -> Document:
        """Stop a preview or rebuild; one that has ended stays as it is.

        Raises:
            ApiError: NOT_FOUND.
        """
        key = _key(workspace_id, rebuild_id)
        await self._end({"_id": key, "w": workspace_id, "a": 1}, CANCELLED)
        return await self.get(workspace_id, rebuild_id)

    async def take(self, owner: str) -> Job | None:
        """Take the oldest preview or rebuild that nobody works on; None when there is none."""
        now = now_us()
        document = await self._rebuilds.find_one_and_update(
            {"a": 1, "l": {"$lt": now}},
            {"$set": {"o": owner, "l": now + LEASE_US, "ev": [0, 0], "sw": [0, 0]}, "$inc": {"n": 1}},
            sort=[("_id", ASCENDING)],
            return_document=True,
        )
        if document is None:
            return None
        return Job(
            document["_id"],
            document["w"],
            document["pv"],
            bytes(document["r"]),
            document["v"],
            document["s"],
            document["n"] - 1,
            document["c"] is not None,
        )

    async def put_down(self, job: Job, owner: str) -> None:
        """Leave a job to whoever comes next; at once, not when the lease ends."""
        await self._rebuilds.update_one(_mine(job, owner), {"$set": {"l": 0}, "$inc": {"n": -1}})

    async def write(self, job: Job, owner: str, fields: Mapping[str, object], session: Session | None = None) -> None:
        """Say how far a job is, and keep it for a while longer.

        Raises:
            Stopped: It is not this replica's any more.
        """
        update = {"$set": {**fields, "l": now_us() + LEASE_US}}
        result = await self._rebuilds.update_one(_mine(job, owner), update, session=session)
        if result.matched_count == 0:
            raise Stopped

    async def finish(self, job: Job, owner: str, session: Session | None = None) -> None:
        """Say that a job is done.

        Raises:
            Stopped: It is not this replica's any more.
        """
        if not await self._end(_mine(job, owner), DONE, session=session):
            raise Stopped

    async def fail(self, job: Job, owner: str, reason: str) -> None:
        """Say that a job cannot be done."""
        await self._end(_mine(job, owner), FAILED, reason)

    async def _end(
        self, query: Document, state: pb.RebuildState.ValueType, error: str = "", session: Session | None = None
    ) -> bool:
        update = {
            "$set": {"st": state, "er": error, "te": datetime.now(UTC)},
            "$unset": dict.fromkeys(_WORKING, ""),
        }
        result = await self._rebuilds.update_one(query, update, session=session)
        return result.matched_count > 0


async def forget_examples(db: Database, session: Session | None, workspace_id: str) -> int:
    """Remove all examples of a workspace, because a person of it is deleted: they name identifiers of people.

    Returns:
        How many previews and rebuilds had some.
    """
    query = {"w": workspace_id, "x": {"$ne": None}}
    result = await db[IDENTITY_REBUILDS].update_many(query, {"$set": {"x": None}}, session=session)
    return result.modified_count


def id_of(document: Document) -> str:
    """Id of a preview or rebuild."""
    rebuild_id: str = document["_id"].partition(SEPARATOR)[2]
    return rebuild_id


def already_running(running: RebuildRunning) -> Exception:
    """What a caller is told whose rules would change during a rebuild."""
    message = f"Rebuild {running.rebuild_id} is under way, and needs the rules as they are: wait for it, or cancel it."
    return wrong_state("rebuilding", message)


def _document(workspace_id: str, rules: Rules, version: int, sequence: int, request_id: str) -> Document:
    return {
        "_id": _key(workspace_id, new_time_ordered_id()),
        "w": workspace_id,
        "pv": version == NOT_IN_FORCE,
        "q": request_id,
        "r": Binary(json.dumps(rules.as_json()).encode()),
        "v": version,
        "s": sequence,
        "st": RUNNING,
        "er": "",
        "ev": [0, 0],
        "sw": [0, 0],
        "c": None,
        "x": None,
        "t": now_us(),
        "a": 1,
        "o": "",
        "l": 0,
        "n": 0,
    }


def _mine(job: Job, owner: str) -> Document:
    return {"_id": job.key, "w": job.workspace_id, "a": 1, "o": owner}


def _key(workspace_id: str, rebuild_id: str) -> str:
    return f"{workspace_id}{SEPARATOR}{rebuild_id}"
