"""Deletions in the store: asked for, waiting, running, done or cancelled.

deletions  _id workspace + deletion, w workspace, s state, m masked identifier, r reason, c asked for, due, b begun,
           end, next when somebody looks at it, step, places, wait what holds it up, l lease [replica, until],
           and until its end: who the person, p parts, v what is to be removed, sealed; after it: rc the receipt

Nothing of the person outlives the deletion but its parts' ids on the log's record of the reassignment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.binary import Binary
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.deletion.receipt import Place, Signed, merged
from headrace_identity.documents import SEPARATOR
from headrace_identity.store import DELETIONS

WAITING = "waiting"
RUNNING = "running"
DONE = "done"
CANCELLED = "cancelled"

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)
_OVER = {"who": "", "p": "", "v": "", "next": "", "l": "", "wait": ""}
"""Fields that end with a deletion."""


class LeaseLost(Exception):
    """Another replica carries the deletion on."""


@dataclass(slots=True)
class Deletion:
    """A deletion, as it is stored.

    Attributes:
        workspace_id: The workspace.
        id: The deletion.
        state: WAITING, RUNNING, DONE or CANCELLED.
        masked: The identifier by which it was asked for, masked.
        reason: Why.
        created_us: When it was asked for, in microseconds.
        due_us: When it begins.
        begun_us: When it began; 0 before.
        end_us: When it was done or cancelled; 0 before.
        step: The step that is next, while it runs.
        tries: How often its step failed in a row.
        sealed: What is to be removed, sealed.
        places: What became of each place so far.
        waiting_for: What holds it up.
        receipt: The receipt, once it is done.
    """

    workspace_id: str
    id: str
    state: str
    masked: str
    reason: str
    created_us: int
    due_us: int
    begun_us: int = 0
    end_us: int = 0
    step: str = ""
    tries: int = 0
    sealed: str = ""
    parts: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    waiting_for: str = ""
    receipt: Signed | None = None

    @property
    def key(self) -> str:
        """Database id."""
        return key_of(self.workspace_id, self.id)


def key_of(workspace_id: str, deletion_id: str) -> str:
    """Database id of a deletion."""
    return f"{workspace_id}{SEPARATOR}{deletion_id}"


class Deletions:
    """Reads and writes deletions."""

    def __init__(self, db: Database) -> None:
        """Keep them in a database."""
        self._deletions = db[DELETIONS]

    async def add(self, deletion: Deletion, who: str) -> Deletion:
        """Store a new deletion; returns the one that this person has already, if there is one.

        Args:
            deletion: The deletion, waiting.
            who: Says who the person is, equal for equal people.
        """
        document: Document = {
            "_id": deletion.key,
            "w": deletion.workspace_id,
            "s": deletion.state,
            "m": deletion.masked,
            "r": deletion.reason,
            "c": deletion.created_us,
            "due": deletion.due_us,
            "next": deletion.due_us,
            "who": who,
            "p": deletion.parts,
            "v": deletion.sealed,
        }
        while True:
            known = await self._deletions.find_one({"w": deletion.workspace_id, "who": who})
            if known is not None:
                return _deletion(known)
            try:
                await self._deletions.insert_one(document)
            except DuplicateKeyError:
                continue  # somebody else asked for it at the same time
            return deletion

    async def get(self, workspace_id: str, deletion_id: str) -> Deletion | None:
        """A deletion, or None."""
        document = await self._deletions.find_one({"_id": key_of(workspace_id, deletion_id), "w": workspace_id})
        return None if document is None else _deletion(document)

    async def page(self, workspace_id: str, before: str, state: str, limit: int) -> list[Deletion]:
        """Deletions, newest first.

        Args:
            workspace_id: The workspace.
            before: Only those asked for before this one; "" from the newest on.
            state: Only those in this state; "" for all.
            limit: At most this many.
        """
        end = key_of(workspace_id, before) if before else f"{workspace_id}{_AFTER_SEPARATOR}"
        query: Document = {"w": workspace_id, "_id": {"$lt": end}}
        if state:
            query["s"] = state
        cursor = self._deletions.find(query).sort("_id", DESCENDING).limit(limit)
        return [_deletion(d) async for d in cursor]

    async def of_parts(self, workspace_id: str, parts: Collection[str]) -> Deletion | None:
        """The deletion that waits or runs for a person, by any part."""
        query = {"w": workspace_id, "s": {"$in": [WAITING, RUNNING]}, "p": {"$in": list(parts)}}
        document = await self._deletions.find_one(query, sort=[("_id", ASCENDING)])
        return None if document is None else _deletion(document)

    async def cancel(self, workspace_id: str, deletion_id: str) -> Deletion | None:
        """Cancel a deletion that has not begun; None when it has, or is over, or is unknown."""
        document = await self._deletions.find_one_and_update(
            {"_id": key_of(workspace_id, deletion_id), "w": workspace_id, "s": WAITING},
            {"$set": {"s": CANCELLED, "end": now_us()}, "$unset": _OVER},
            return_document=True,
        )
        return None if document is None else _deletion(document)

    async def take(self, replica: str, lease_us: int) -> Deletion | None:
        """Take a deletion that is due, so that no other replica works on it for a while; None when none is."""
        now = now_us()
        document = await self._deletions.find_one_and_update(
            {
                "s": {"$in": [WAITING, RUNNING]},
                "next": {"$lte": now},
                "$or": [{"l": {"$exists": False}}, {"l.1": {"$lt": now}}],
            },
            {"$set": {"l": [replica, now + lease_us]}},
            sort=[("next", ASCENDING)],
            return_document=True,
        )
        return None if document is None else _deletion(document)

    async def hold(self, deletion: Deletion, replica: str, lease_us: int) -> None:
        """Keep a deletion for longer.

        Raises:
            LeaseLost: Another replica has it.
        """
        result = await self._deletions.update_one(
            {"_id": deletion.key, "l.0": replica}, {"$set": {"l.1": now_us() + lease_us}}
        )
        if not result.matched_count:
            raise LeaseLost

    async def release(self, deletion: Deletion, replica: str, next_us: int) -> None:
        """Give a deletion back; somebody looks at it again at a time."""
        await self._deletions.update_one(
            {"_id": deletion.key, "l.0": replica, "next": {"$exists": True}},
            {"$set": {"next": next_us}, "$unset": {"l": ""}},
        )

    async def begin(self, session: Session, deletion: Deletion) -> bool:
        """Say that a deletion runs, in the transaction that writes its tombstones; False when it was cancelled."""
        result = await self._deletions.update_one(
            {"_id": deletion.key, "s": WAITING}, {"$set": {"s": RUNNING, **_progress(deletion)}}, session=session
        )
        return result.matched_count > 0

    async def save(self, deletion: Deletion, replica: str, session: Session | None = None) -> None:
        """Store the progress of a deletion that runs.

        Raises:
            LeaseLost: Another replica has it.
        """
        result = await self._deletions.update_one(
            {"_id": deletion.key, "s": RUNNING, "l.0": replica}, {"$set": _progress(deletion)}, session=session
        )
        if not result.matched_count:
            raise LeaseLost

    async def finish(self, deletion: Deletion, replica: str) -> None:
        """Store that a deletion is done, with its receipt, and forget whom it was about.

        Raises:
            LeaseLost: Another replica has it.
        """
        assert deletion.receipt is not None
        receipt = deletion.receipt
        result = await self._deletions.update_one(
            {"_id": deletion.key, "s": RUNNING, "l.0": replica},
            {
                "$set": {
                    "s": DONE,
                    "end": deletion.end_us,
                    "places": _places(deletion.places),
                    "rc": [Binary(receipt.statement), Binary(receipt.signature), receipt.key_id],
                },
                "$unset": {**_OVER, "step": "", "n": ""},
            },
        )
        if not result.matched_count:
            raise LeaseLost


class Tally:
    """Counts what a deletion removed, in the transactions that remove it: what is not committed does not count."""

    def __init__(self, deletions: Deletions, deletion: Deletion, replica: str) -> None:
        """Count for a deletion that a replica has."""
        self._deletions = deletions
        self._deletion = deletion
        self._replica = replica
        self._sure = deletion.places

    async def add(self, places: Sequence[Place], session: Session | None = None) -> None:
        """Store what was removed.

        Raises:
            LeaseLost: Another replica has the deletion.
        """
        self._deletion.places = merged(self._sure, places)
        await self._deletions.save(self._deletion, self._replica, session)

    def sure(self) -> None:
        """What was added is committed."""
        self._sure = self._deletion.places

    def back(self) -> None:
        """What was added since and is not sure was not committed."""
        self._deletion.places = self._sure


def _progress(deletion: Deletion) -> Document:
    return {
        "b": deletion.begun_us,
        "step": deletion.step,
        "n": deletion.tries,
        "v": deletion.sealed,
        "p": deletion.parts,
        "places": _places(deletion.places),
        "wait": deletion.waiting_for,
    }


def _places(places: Sequence[Place]) -> list[list[Any]]:
    return [[p.name, p.outcome, p.count, p.detail] for p in places]


def _deletion(document: Document) -> Deletion:
    receipt = document.get("rc")
    return Deletion(
        workspace_id=document["w"],
        id=document["_id"].rpartition(SEPARATOR)[2],
        state=document["s"],
        masked=document["m"],
        reason=document["r"],
        created_us=document["c"],
        due_us=document["due"],
        begun_us=document.get("b", 0),
        end_us=document.get("end", 0),
        step=document.get("step", ""),
        tries=document.get("n", 0),
        sealed=document.get("v", ""),
        parts=list(document.get("p", ())),
        places=[Place(*place) for place in document.get("places", ())],
        waiting_for=document.get("wait", ""),
        receipt=Signed(bytes(receipt[0]), bytes(receipt[1]), receipt[2]) if receipt else None,
    )
