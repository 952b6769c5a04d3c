"""The collection `vendor_jobs`: what vendors took into jobs whose end is not known yet.

A job and the mark on each of its items (`jb` of deliveries and list members) are written in one transaction, so that an
item is never sent again while its vendor works on it, and never forgotten. An item loses its mark with the writing down
of what became of it; the job goes when all have. So whatever is repeated after a crash finds nothing left to do.

Fields: d destination key, w workspace, k sync key and rn run ids (list syncs), op operation, p parts [{j job at the
vendor, a asked at, ws seconds between, i items [{id of the document, r row key, g generation of the member}]}], c
begun, l the list and by the sign of its place when it was sent (list syncs, see `Place`), n round, na when it is to be
asked for, lo who asks. All times in microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pymongo import ASCENDING, ReturnDocument, UpdateOne
from pymongo.errors import PyMongoError

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document, transaction
from headrace_sync.config import workspace_of
from headrace_sync.lists.targets import Place
from headrace_sync.store import DELIVERIES, DESTINATIONS, LIST_MEMBERS, VENDOR_JOBS, WAITING

FAR_US = 3650 * DAY_US
_TRIES = 3


@dataclass(frozen=True, slots=True)
class JobItem:
    """What a vendor took into a job.

    Attributes:
        id: Database id of the delivery or of the list member.
        row: Key of the member's row; empty for a delivery.
        generation: The member's `g` when it was sent; 0 for a delivery.
    """

    id: str
    row: str = ""
    generation: int = 0


class JobStore:
    """Jobs in MongoDB."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def keep_deliveries(
        self, destination_key: str, ids: Sequence[str], job: str, *, owner: str, after_s: float
    ) -> None:
        """Write down that the vendor took deliveries of this owner into a job: nobody sends them meanwhile.

        Raises:
            pymongo.errors.PyMongoError: It is not written down.
        """
        document = _document(destination_key, "", job, [JobItem(id) for id in ids], after_s)
        held = {"_id": {"$in": list(ids)}, "st": WAITING, "lo": {"$regex": f"^{owner}:"}}
        mark = {"$set": {"jb": document["_id"], "na": now_us() + FAR_US}, "$unset": {"lo": ""}}
        for attempt in range(_TRIES):
            try:
                async with transaction(self._db.client) as session:
                    await self._db[DELIVERIES].update_many(held, mark, session=session)
                    await self._db[VENDOR_JOBS].insert_one(document, session=session)
            except PyMongoError as error:
                if attempt + 1 == _TRIES or not error.has_error_label("TransientTransactionError"):
                    raise
            else:
                return

    async def keep_rows(
        self,
        destination_key: str,
        sync_key: str,
        operation: str,
        items: Sequence[JobItem],
        job: str,
        *,
        runs: Sequence[str],
        after_s: float,
        place: Place,
    ) -> None:
        """Write down that the vendor took rows of a list sync into a job: no pass looks at their members meanwhile.

        Raises:
            pymongo.errors.PyMongoError: It is not written down.
        """
        document = _document(destination_key, sync_key, job, items, after_s)
        document |= {"op": operation, "rn": list(runs), "l": place.list_id, "by": place.sign}
        marks = [UpdateOne({"_id": id}, {"$addToSet": {"jb": document["_id"]}}) for id in {item.id for item in items}]
        for attempt in range(_TRIES):
            try:
                async with transaction(self._db.client) as session:
                    await self._db[LIST_MEMBERS].bulk_write(marks, ordered=False, session=session)
                    await self._db[VENDOR_JOBS].insert_one(document, session=session)
            except PyMongoError as error:
                if attempt + 1 == _TRIES or not error.has_error_label("TransientTransactionError"):
                    raise
            else:
                return

    async def take(
        self, *, owner: str, now: int, lease_us: int, besides: Sequence[str], not_of: Sequence[str]
    ) -> Document | None:
        """A job that is to be asked for, this process's for a while; None when there is none.

        Args:
            owner: Unique name of this process.
            now: The clock.
            lease_us: For how long nobody else takes it.
            besides: None of these jobs.
            not_of: No job of these destinations.
        """
        found: Document | None = await self._db[VENDOR_JOBS].find_one_and_update(
            {"na": {"$lte": now}, "_id": {"$nin": list(besides)}, "d": {"$nin": list(not_of)}},
            {"$set": {"na": now + lease_us, "lo": owner}},
            sort=[("na", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def free(self, owner: str, *, now: int) -> None:
        """Let others ask at once for what a process was asking for that is gone."""
        await self._db[VENDOR_JOBS].update_many({"lo": owner}, {"$set": {"na": now}, "$unset": {"lo": ""}})

    async def put_off(self, id: str, *, until: int) -> None:
        """Ask for a job later; nothing of it is known that was not."""
        await self._db[VENDOR_JOBS].update_one({"_id": id}, {"$set": {"na": until}, "$unset": {"lo": ""}})

    async def forget_without_destination(self, document: Document) -> bool:
        """Forget a job whose destination was deleted; returns whether it was."""
        if await self._db[DESTINATIONS].find_one({"_id": document["d"]}, {"_id": 1}) is not None:
            return False
        await self._db[VENDOR_JOBS].delete_one({"_id": document["_id"]})
        return True

    async def goes_on(self, document: Document, parts: Sequence[Document]) -> None:
        """Write down what is left of a job after a round; without any of it, forget the job."""
        same = {"_id": document["_id"], "n": document["n"]}
        if not parts:
            await self._db[VENDOR_JOBS].delete_one(same)
            return
        change = {"p": list(parts), "n": document["n"] + 1, "na": min(part["a"] for part in parts)}
        await self._db[VENDOR_JOBS].update_one(same, {"$set": change, "$unset": {"lo": ""}})


def part_of(job: str, items: Sequence[Mapping[str, object]], *, at: int, wait_s: float) -> Document:
    """A part of a stored job: what is asked for by one request."""
    return {"j": job, "a": at, "ws": wait_s, "i": list(items)}


def _document(destination_key: str, sync_key: str, job: str, items: Sequence[JobItem], after_s: float) -> Document:
    now = now_us()
    stored = [{"id": item.id, "r": item.row, "g": item.generation} for item in items]
    at = now + int(after_s * SECOND_US)
    return {
        "_id": new_time_ordered_id(),
        "d": destination_key,
        "w": workspace_of(destination_key),
        "k": sync_key,
        "p": [part_of(job, stored, at=at, wait_s=after_s)],
        "c": now,
        "n": 0,
        "na": at,
    }
