"""The collections `deliveries` and `ledger`: one document per event and sync, and what was filtered.

A waiting delivery has `na`, the moment from which anybody may take it. Taking it moves `na` one lease ahead and writes
the taker into `lo`, so a delivery whose process died comes back by itself.

Fields: k sync key, w workspace, d destination key, m message id, p profile id, op operation, st state, at tries, pf
failures of the plugin, na next attempt, lo lease owner, sg set when it may have been sent to a vendor who counts
repetitions, sc status code, r reason, b begin of its time (its first try; 0 before), c planned, u changed, tp trace
context, e the event itself (event syncs; forwarded events are in the log), co the consents that allowed the last try,
where the destination requires any, jb the job that the vendor took it into (`vendor_jobs`), ex the last request that is
kept of it (`exchanges`), g the id of the event's segment, or the smallest id of the moment of a change of a
membership: how old it is. All times in microseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import BulkWriteError

from headrace.domain.ids import new_time_ordered_id
from headrace.storage.mongo.client import Database, Document, aggregate
from headrace.storage.mongo.log import DUPLICATE_KEY
from headrace_sync.config import SEPARATOR
from headrace_sync.deliveries.replays import ReplayFilter
from headrace_sync.people.consents import Consents, stored
from headrace_sync.store import DELIVERED, DELIVERIES, FAILED, FILTERED, LEDGER, STATES, WAITING, WARNING

_FOLLOWED_AT_ONCE = 1_000
_HELD = ("lo", "sg", "jb")
"""What is known of a delivery only while somebody has it."""


class Ending(NamedTuple):
    """How deliveries ended: state, status code of the answer, reason, what is kept of the request."""

    state: int
    code: int
    reason: str
    exchange: str = ""


class Postponed(NamedTuple):
    """A delivery that is tried again.

    Attributes:
        id: Its database id.
        due: From when.
        begun: Begin of its time.
        code: Status code of the answer.
        reason: Why.
        plugin_failures: Failures of the plugin to be added.
        exchange: What is kept of the request.
    """

    id: str
    due: int
    begun: int
    code: int
    reason: str
    plugin_failures: int
    exchange: str = ""


def held_by(owner: str) -> Document:
    """What is so only of deliveries that a process holds."""
    return {"lo": {"$regex": f"^{owner}:"}}


def in_job(job_id: str) -> Document:
    """What is so only of deliveries that a vendor works on in a stored job."""
    return {"jb": job_id}


def delivery_id(sync_key: str, message_id: str) -> str:
    """Database id of a delivery: one per event and sync."""
    return f"{sync_key}{SEPARATOR}{message_id}"


def _is_new(document: Document) -> bool:
    """True of a delivery that nobody has had and nothing was tried with: only its taking changes what taking needs."""
    return "lo" not in document and not document["b"]


class DeliveryStore:
    """Deliveries and the ledger in MongoDB."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def insert(self, documents: Sequence[Document]) -> set[str]:
        """Store planned deliveries; those that exist stay as they are.

        Returns:
            Ids of the new ones.
        """
        if not documents:
            return set()
        ids = [d["_id"] for d in documents]
        try:
            await self._db[DELIVERIES].insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details["writeErrors"]
            if any(failure["code"] != DUPLICATE_KEY for failure in failures) or error.details.get("writeConcernErrors"):
                raise
            known = {failure["index"] for failure in failures}
            return {id for index, id in enumerate(ids) if index not in known}
        return set(ids)

    async def existing(self, sync_key: str, message_ids: Iterable[str]) -> set[str]:
        """Those of the message ids that have a delivery at the sync."""
        ids = [delivery_id(sync_key, m) for m in message_ids]
        cursor = self._db[DELIVERIES].find({"_id": {"$in": ids}}, {"m": 1})
        return {d["m"] async for d in cursor}

    async def add_filtered(self, workspace_id: str, filtered: Mapping[tuple[str, str, str], Iterable[int]]) -> None:
        """Write down filtered events; writing them down again changes nothing.

        Args:
            workspace_id: The workspace.
            filtered: (sync key, segment id, reason) -> places in the segment.
        """
        operations = [
            UpdateOne(
                {"_id": f"{key}{SEPARATOR}{segment_id}"},
                {
                    "$addToSet": {f"f.{reason}": {"$each": sorted(places)}},
                    "$setOnInsert": {"k": key, "w": workspace_id, "s": segment_id},
                },
                upsert=True,
            )
            for (key, segment_id, reason), places in filtered.items()
        ]
        if operations:
            await self._db[LEDGER].bulk_write(operations, ordered=False)

    async def filtered_places(self, sync_key: str, segment_ids: Iterable[str]) -> dict[str, set[int]]:
        """Places of filtered events by segment, for any reason."""
        ids = [f"{sync_key}{SEPARATOR}{s}" for s in segment_ids]
        return {
            d["s"]: {place for places in d["f"].values() for place in places}
            async for d in self._db[LEDGER].find({"_id": {"$in": ids}})
        }

    async def claim(self, destination_key: str, *, owner: str, limit: int, now: int, lease_us: int) -> list[Document]:
        """Take waiting deliveries that are due, oldest due first.

        Returns:
            The deliveries; each is this owner's until now + lease_us.
        """
        due = {"d": destination_key, "st": WAITING, "na": {"$lte": now}}
        found = await self._db[DELIVERIES].find(due).sort("na", ASCENDING).limit(limit).to_list(None)
        if not found:
            return []
        ids = [d["_id"] for d in found]
        token = f"{owner}:{new_time_ordered_id()}"  # so that what another replica took meanwhile is told apart
        taken = {"lo": token, "na": now + lease_us}
        result = await self._db[DELIVERIES].update_many(
            {"_id": {"$in": ids}, "st": WAITING, "na": {"$lte": now}}, {"$set": taken}
        )
        if result.modified_count == len(ids) and all(_is_new(d) for d in found):
            return [d | taken for d in found]
        return [d async for d in self._db[DELIVERIES].find({"_id": {"$in": ids}, "lo": token, "st": WAITING})]

    async def unclaim(self, documents: Sequence[Document], *, at: int) -> None:
        """Give back, to be taken from a moment on, what claim() gave: as it was, whether or not it may have been sent.

        What was given back, taken by anybody or ended since is left alone.
        """
        for token in {d["lo"] for d in documents}:
            ids = [d["_id"] for d in documents if d["lo"] == token]
            await self._db[DELIVERIES].update_many(
                {"_id": {"$in": ids}, "st": WAITING, "lo": token}, {"$set": {"na": at}, "$unset": {"lo": ""}}
            )

    async def hold(self, ids: Sequence[str], *, owner: str, until: int, sending: bool = False) -> set[str]:
        """Keep deliveries of this owner a while longer.

        Args:
            ids: The deliveries.
            owner: Who holds them.
            until: New end of the lease.
            sending: True writes down that they are about to be sent to a vendor who counts repetitions.

        Returns:
            Those that are still this owner's; the others are somebody else's by now, or done.
        """
        query = {"_id": {"$in": list(ids)}, "st": WAITING, "lo": {"$regex": f"^{owner}:"}}
        change: Document = {"na": until, "sg": True} if sending else {"na": until}
        result = await self._db[DELIVERIES].update_many(query, {"$set": change})
        if result.matched_count == len(ids):
            return set(ids)
        return {d["_id"] async for d in self._db[DELIVERIES].find(query, {"_id": 1})}

    async def release(self, ids: Sequence[str], *, held: Document, at: int) -> None:
        """Give deliveries back untried, to be taken from a moment on."""
        await self._db[DELIVERIES].update_many(
            {"_id": {"$in": list(ids)}, "st": WAITING, **held},
            {"$set": {"na": at}, "$unset": {"lo": "", "sg": "", "jb": ""}},
        )

    async def in_job(self, job_id: str, ids: Sequence[str]) -> dict[str, Document]:
        """Those of the deliveries that still wait for the end of a stored job, by id."""
        query = {"_id": {"$in": list(ids)}, "st": WAITING, **in_job(job_id)}
        return {d["_id"]: d async for d in self._db[DELIVERIES].find(query, {"e": 0})}

    async def free(self, destination_keys: Sequence[str], *, owner: str, now: int) -> int:
        """Free what an owner held that is gone; whether it was sent stays marked. Returns how many."""
        freed = 0
        for key in destination_keys:
            result = await self._db[DELIVERIES].update_many(
                {"d": key, "st": WAITING, "na": {"$gt": now}, "lo": {"$regex": f"^{owner}:"}},
                {"$set": {"na": now}, "$unset": {"lo": ""}},
            )
            freed += int(result.modified_count)
        return freed

    async def save_consents(self, consents: Sequence[tuple[str, Consents]]) -> None:
        """Write down which consents allow what is about to be sent, by delivery id."""
        operations = [UpdateOne({"_id": id, "st": WAITING}, {"$set": {"co": stored(own)}}) for id, own in consents]
        if operations:
            await self._db[DELIVERIES].bulk_write(operations, ordered=False)

    async def accept(self, ids: Sequence[str], ending: Ending, *, now: int) -> None:
        """The vendor took them: true whoever holds the lease."""
        change: Document = {
            "$set": {"st": ending.state, "u": now},
            "$inc": {"at": 1},
            "$unset": dict.fromkeys(_HELD, ""),
        }
        if ending.code:
            change["$set"]["sc"] = ending.code
        change["$set" if ending.reason else "$unset"]["r"] = ending.reason
        change["$set" if ending.exchange else "$unset"]["ex"] = ending.exchange
        query = {"_id": {"$in": list(ids)}, "st": {"$nin": [DELIVERED, WARNING]}}
        await self._db[DELIVERIES].update_many(query, change)

    async def end(self, ids: Sequence[str], ending: Ending, *, now: int, tries: int = 1) -> None:
        """They will not be sent: FAILED or FILTERED."""
        change: Document = {
            "$set": {"st": ending.state, "sc": ending.code, "r": ending.reason, "u": now},
            "$inc": {"at": tries},
            "$unset": dict.fromkeys(_HELD, ""),
        }
        change["$set" if ending.exchange else "$unset"]["ex"] = ending.exchange
        await self._db[DELIVERIES].update_many({"_id": {"$in": list(ids)}, "st": WAITING}, change)

    async def postpone(self, items: Sequence[Postponed], *, held: Document, now: int) -> None:
        """They are tried again later."""
        operations = [
            UpdateOne(
                {"_id": one.id, "st": WAITING, **held},
                {
                    "$set": {
                        "na": one.due,
                        "b": one.begun,
                        "sc": one.code,
                        "r": one.reason,
                        "u": now,
                        **({"ex": one.exchange} if one.exchange else {}),
                    },
                    "$inc": {"at": 1, "pf": one.plugin_failures},
                    "$unset": dict.fromkeys(_HELD, ""),
                },
            )
            for one in items
        ]
        if operations:
            await self._db[DELIVERIES].bulk_write(operations, ordered=False)

    async def expire(self, destination_key: str, *, begun_before: int, reason: str, now: int) -> int:
        """Fail what was tried, is held by nobody and has used up its time; returns how many.

        What may have been sent when its process ended is left to whoever takes it, who says so.
        """
        due = {"d": destination_key, "st": WAITING, "na": {"$lte": now}}
        result = await self._db[DELIVERIES].update_many(
            {**due, "b": {"$gt": 0, "$lt": begun_before}, "sg": None},
            {"$set": {"st": FAILED, "r": reason, "u": now}, "$unset": {"lo": ""}},
        )
        return int(result.modified_count)

    async def wake(self, query: Document, *, now: int) -> int:
        """Let waiting deliveries be tried at once, their time beginning anew; returns how many.

        What is so already is neither looked at nor counted: behind a destination that takes nothing it may be a lot.
        """
        woken = 0
        for otherwise in ({"na": {"$gt": now}}, {"b": {"$gt": 0}}):
            result = await self._db[DELIVERIES].update_many(
                {"$and": [query, otherwise], "st": WAITING, "lo": None, "jb": None}, {"$set": {"na": now, "b": 0}}
            )
            woken += int(result.modified_count)
        return woken

    async def drop(self, ids: Sequence[str]) -> None:
        """Forget deliveries of a sync that no longer exists."""
        await self._db[DELIVERIES].delete_many({"_id": {"$in": list(ids)}})

    async def next_due(self, destination_key: str) -> int | None:
        """When the next waiting delivery is due; None when none waits."""
        query = {"d": destination_key, "st": WAITING}
        document = await self._db[DELIVERIES].find_one(query, {"na": 1}, sort=[("na", ASCENDING)])
        return int(document["na"]) if document else None

    async def follow_profiles(
        self,
        workspace_id: str,
        profile_ids: Sequence[str],
        profiles_now: Callable[[str, Sequence[str]], Awaitable[Mapping[str, str]]],
    ) -> set[str]:
        """Give deliveries of events that were assigned to other profiles their new ones.

        Args:
            workspace_id: The workspace.
            profile_ids: The old profiles.
            profiles_now: The profiles that events (by message id) belong to now, by message id.

        Returns:
            Keys of the destinations of those that wait.
        """
        waiting: set[str] = set()
        query = {"w": workspace_id, "p": {"$in": list(profile_ids)}, "e": {"$exists": False}}
        part: list[Document] = []

        async def flush() -> None:
            now = await profiles_now(workspace_id, [d["m"] for d in part])
            changed = [d for d in part if now.get(d["m"], d["p"]) != d["p"]]
            waiting.update(d["d"] for d in changed if d["st"] == WAITING)
            operations = [UpdateOne({"_id": d["_id"]}, {"$set": {"p": now[d["m"]]}}) for d in changed]
            if operations:
                await self._db[DELIVERIES].bulk_write(operations, ordered=False)
            part.clear()

        async for document in self._db[DELIVERIES].find(query, {"m": 1, "p": 1, "d": 1, "st": 1}):
            part.append(document)
            if len(part) >= _FOLLOWED_AT_ONCE:
                await flush()
        await flush()
        return waiting

    async def waiting_summary(self, sync_keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Sync key -> (number of waiting deliveries, planning time of the oldest), from an index alone."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"k": {"$in": list(sync_keys)}, "st": WAITING}},
            {"$group": {"_id": "$k", "n": {"$sum": 1}, "c": {"$min": "$c"}}},
        ]
        return {d["_id"]: (d["n"], d["c"]) async for d in aggregate(self._db[DELIVERIES], pipeline)}

    async def replay(self, sync_key: str, workspace_id: str, wanted: ReplayFilter, *, now: int) -> int:
        """Put failed deliveries back; returns how many."""
        query: Document = {"k": sync_key, "w": workspace_id, "st": FAILED, **wanted.query()}
        if wanted.ids:
            query["_id"] = {"$in": [delivery_id(sync_key, m) for m in wanted.ids]}
        result = await self._db[DELIVERIES].update_many(
            query,
            {"$set": {"st": WAITING, "na": now, "b": 0, "u": now, "at": 0, "pf": 0}, "$unset": {"lo": "", "sg": ""}},
        )
        return int(result.modified_count)

    async def page(
        self,
        sync_keys: Sequence[str],
        *,
        workspace_id: str,
        state: int,
        message_id: str,
        profile_ids: Sequence[str] = (),
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Document]:
        """Deliveries, newest first, those after a position (planned, id); of some profiles only when given."""
        query: Document = {
            "k": {"$in": list(sync_keys)},
            "w": workspace_id,
            "st": state or {"$in": list(STATES)},
        }
        if profile_ids:
            query["p"] = {"$in": list(profile_ids)}
        conditions: list[Document] = []
        if message_id:
            conditions.append({"_id": {"$in": [delivery_id(key, message_id) for key in sync_keys]}})
        if before is not None:
            conditions.append({"$or": [{"c": {"$lt": before[0]}}, {"c": before[0], "_id": {"$lt": before[1]}}]})
        if conditions:
            query["$and"] = conditions
        cursor = self._db[DELIVERIES].find(query, {"e": 0})
        return [d async for d in cursor.sort([("c", DESCENDING), ("_id", DESCENDING)]).limit(limit)]

    async def counts(self, sync_key: str) -> tuple[dict[int, int], dict[str, int]]:
        """(number by state, filtered by reason) over deliveries of a sync; FILTERED only by reason."""
        by_state: dict[int, int] = {}
        for state in STATES[:-1]:
            by_state[state] = await self._db[DELIVERIES].count_documents({"k": sync_key, "st": state})
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"k": sync_key, "st": FILTERED}},
            {"$group": {"_id": "$r", "n": {"$sum": 1}}},
        ]
        filtered = {str(d["_id"]): int(d["n"]) async for d in aggregate(self._db[DELIVERIES], pipeline)}
        return by_state, filtered

    async def filtered_counts(self, sync_key: str) -> dict[str, int]:
        """Number of events filtered at planning, by reason."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"k": sync_key}},
            {"$project": {"f": {"$objectToArray": "$f"}}},
            {"$unwind": "$f"},
            {"$group": {"_id": "$f.k", "n": {"$sum": {"$size": "$f.v"}}}},
        ]
        return {str(d["_id"]): int(d["n"]) async for d in aggregate(self._db[LEDGER], pipeline)}
