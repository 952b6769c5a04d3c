"""The collection `list_members`: what each list sync knows of each profile.

A member's document has `due` while something is to be done for it, and `g`, which grows whenever somebody asks for
that; a pass takes `due` away only if `g` is still what it read. Only passes write rows, and one pass runs per sync.

Fields: k sync key, w workspace, p profile id, desired, v version, rows [{k, d, s}], into survivor of a merge, due, g,
st state, r reason, at tries, hold no removal before, a when the version came in, u changed, co the consents that
allowed the last addition, where the destination requires any, ur true when a withdrawal of consent waits for no
schedule, op true when a pass began with the member and goes on whatever the schedule says, pn the plan that holds what
is to be done (its id, a digest of what), sc status code of the last answer, ex the last request that is kept of it
(`exchanges`), jb jobs into which the vendor took rows of it (`vendor_jobs`): until their end no pass looks at it. All
times in microseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from pymongo import ASCENDING, DESCENDING, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError

from headrace.api.audience.v1.audience_pb2 import MembershipChange
from headrace.storage.mongo.client import Database, Document, aggregate
from headrace_sync.config import SEPARATOR
from headrace_sync.deliveries.replays import ReplayFilter
from headrace_sync.lists.diff import HeldRow, MemberRecord, RowChange, RowState
from headrace_sync.lists.results import MemberResult, finish_change, rows_change, stored_rows
from headrace_sync.lists.runs import RunStore
from headrace_sync.people.consents import REASON_PREFIX, Consents, Spoken, stored
from headrace_sync.plans.rules import APPROVAL
from headrace_sync.store import DELIVERED, EXCHANGES, FAILED, FILTERED, LIST_MEMBERS, STATE, WAITING, WARNING

MEMBER_STATES = (WAITING, DELIVERED, WARNING, FAILED, FILTERED)
_DUPLICATE = 11000


def member_id(sync_key: str, profile_id: str) -> str:
    """Database id of a member of a list sync."""
    return f"{sync_key}{SEPARATOR}{profile_id}"


def record_of(document: Document) -> MemberRecord:
    """The record in a stored document."""
    rows = {row["k"]: HeldRow(msgspec.json.decode(row["d"]), RowState(row["s"])) for row in document.get("rows", ())}
    return MemberRecord(
        profile_id=document["p"],
        desired=document["desired"],
        version=document["v"],
        rows=rows,
        merged_into=document.get("into", ""),
    )


class ListStore:
    """Members of list syncs in MongoDB.

    Attributes:
        runs: Their passes.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.runs = RunStore(db)

    async def change_members(
        self, workspace_id: str, changes: Sequence[tuple[str, MembershipChange]], *, now: int
    ) -> None:
        """Take in membership changes, each for a sync key; old versions change nothing.

        Who is not known yet is inserted, which costs the store a tenth of an update.
        """
        named = [(member_id(key, change.profile_id), key, change) for key, change in changes]
        if not named:
            return
        members = self._db[LIST_MEMBERS]
        known = {d["_id"] async for d in members.find({"_id": {"$in": [id for id, _, _ in named]}}, {"_id": 1})}
        new: dict[str, Document] = {}
        operations: list[UpdateOne] = []
        for id, key, change in named:
            if id in known or id in new:
                operations.append(_change_operation(id, workspace_id, key, change, now))
            else:
                new[id] = _new_member(id, workspace_id, key, change, now)
        if new:
            try:
                await members.insert_many(new.values(), ordered=False)
            except BulkWriteError as error:
                if any(problem["code"] != _DUPLICATE for problem in error.details["writeErrors"]):
                    raise
                # Another process was quicker with some.
                operations = [_change_operation(id, workspace_id, key, change, now) for id, key, change in named]
        if operations:
            await members.bulk_write(operations, ordered=True)

    async def mark_dirty(self, sync_key: str, profile_ids: Iterable[str], *, now: int) -> int:
        """Ask that desired members be looked at again; returns how many of these are."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        result = await self._db[LIST_MEMBERS].update_many(
            {"_id": {"$in": ids}, "desired": True}, {"$set": {"due": now}, "$inc": {"g": 1}}
        )
        return int(result.modified_count)

    async def mark_spoken(self, sync_key: str, spoken: Spoken, *, now: int) -> int:
        """Ask that desired members be looked at again whose events spoke of required purposes; returns how many.

        Many events repeat what was known. A denial is news unless the member is left out for lack of consent already,
        a grant only if it is; and both are while a pass may be looking at the member.
        """
        left_out: Document = {"st": FILTERED, "r": {"$regex": f"^{REASON_PREFIX}"}}
        idle: Document = {"due": {"$exists": False}}
        under_way: Document = {"due": {"$exists": True}}
        marked = 0
        for profile_ids, news, urgent in (
            (spoken.denied, {"$nor": [{**left_out, **idle}]}, {"ur": True}),
            (spoken.granted, {"$or": [left_out, under_way]}, {}),
        ):
            if profile_ids:
                ids = [member_id(sync_key, p) for p in profile_ids]
                result = await self._db[LIST_MEMBERS].update_many(
                    {"_id": {"$in": ids}, "desired": True, **news}, {"$set": {"due": now, **urgent}, "$inc": {"g": 1}}
                )
                marked += int(result.modified_count)
        return marked

    async def mark_all(self, sync_key: str, *, now: int, doubt: bool, at_once: bool, waits: bool = False) -> None:
        """Ask that all members be looked at.

        Args:
            sync_key: The sync.
            now: The clock.
            doubt: Forgets every acknowledgement, so that all is sent again.
            at_once: Waits for no schedule.
            waits: Says of all that they wait.
        """
        fields: Document = {"due": now, "at": 0, **({"op": True} if at_once else {})}
        if waits:
            fields |= {"st": WAITING, "r": ""}
        query: Document = {"k": sync_key, "$or": [{"desired": True}, {"rows.0": {"$exists": True}}]}
        parts: list[tuple[Document, Document]] = [({}, {})]
        if doubt:
            doubted = {"rows.$[known].s": int(RowState.SENT)}
            parts = [({"rows": {"$exists": True}}, doubted), ({"rows": {"$exists": False}}, {})]
        for part, more in parts:
            change = {"$set": {**fields, **more}, "$inc": {"g": 1}}
            known = [{"known.s": {"$gt": int(RowState.SENT)}}] if more else None
            await self._db[LIST_MEMBERS].update_many({**query, **part}, change, array_filters=known)

    async def mark_elsewhere(self, sync_key: str, *, now: int) -> None:
        """Another list is filled: nothing is known to be on it, nothing is approved, and all members wait."""
        query: Document = {"k": sync_key, "$or": [{"desired": True}, {"rows.0": {"$exists": True}}]}
        fields: Document = {"due": now, "at": 0, "st": WAITING, "r": ""}
        left = {"rows.$[].s": int(RowState.ELSEWHERE)}
        for part, more in (({"rows": {"$exists": True}}, left), ({"rows": {"$exists": False}}, {})):
            change = {"$set": {**fields, **more}, "$unset": {"pn": ""}, "$inc": {"g": 1}}
            await self._db[LIST_MEMBERS].update_many({**query, **part}, change)

    async def has_due(self, sync_key: str, *, now: int, extra: Mapping[str, Any] | None = None) -> bool:
        """True when something is to be done now, of those that match an extra query."""
        query: Document = {"k": sync_key, "due": {"$gt": 0, "$lte": now}, "jb.0": {"$exists": False}, **(extra or {})}
        return await self._db[LIST_MEMBERS].find_one(query, {"_id": 1}) is not None

    async def due(self, sync_key: str, *, now: int, after: str, limit: int, extra: Mapping[str, Any]) -> list[Document]:
        """Documents to be looked at with a greater id, by id."""
        query = {
            "k": sync_key,
            "due": {"$gt": 0, "$lte": now},
            "jb.0": {"$exists": False},
            "_id": {"$gt": after},
            **extra,
        }
        return [d async for d in self._db[LIST_MEMBERS].find(query).sort("_id", ASCENDING).limit(limit)]

    async def get(self, sync_key: str, profile_ids: Iterable[str]) -> dict[str, Document]:
        """Documents by profile id."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        return {d["p"]: d async for d in self._db[LIST_MEMBERS].find({"_id": {"$in": ids}})}

    async def known(self, sync_key: str, *, after: str, limit: int) -> list[Document]:
        """Documents of members and of who has rows, with a greater profile id, by profile id."""
        query = {
            "_id": {"$gt": member_id(sync_key, after), "$lt": member_id(sync_key, "\uffff")},
            "$or": [{"desired": True}, {"rows.0": {"$exists": True}}],
        }
        return [d async for d in self._db[LIST_MEMBERS].find(query).sort("_id", ASCENDING).limit(limit)]

    async def planned(self, sync_key: str, plan_id: str, *, after: str, limit: int) -> list[Document]:
        """Documents of people whom a plan holds, with a greater profile id, by profile id."""
        query = {
            "_id": {"$gt": member_id(sync_key, after), "$lt": member_id(sync_key, "\uffff")},
            "pn.0": plan_id,
        }
        return [d async for d in self._db[LIST_MEMBERS].find(query).sort("_id", ASCENDING).limit(limit)]

    async def release_held(self, sync_key: str, *, now: int) -> None:
        """Look again at members whose changes wait for approval; for the schedule they have waited."""
        query = {"k": sync_key, "desired": {"$in": [True, False]}, "st": WAITING, "r": APPROVAL}
        await self._db[LIST_MEMBERS].update_many(query, {"$set": {"due": now, "op": True}})

    async def count_on_list(self, sync_key: str) -> int:
        """How many people have something on the list, or may have."""
        return await self._db[LIST_MEMBERS].count_documents({"k": sync_key, "rows.0": {"$exists": True}})

    async def save_rows(self, records: Sequence[tuple[str, MemberRecord]]) -> None:
        """Store the rows of records, each of a sync key."""
        operations = [
            UpdateOne({"_id": member_id(key, record.profile_id)}, {"$set": {"rows": stored_rows(record)}})
            for key, record in records
        ]
        if operations:
            await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)

    async def intend_rows(self, sync_key: str, records: Sequence[MemberRecord]) -> set[str]:
        """Store the rows of members before some are added; returns the profile ids of those who are members no more."""
        rows = {member_id(sync_key, record.profile_id): stored_rows(record) for record in records}
        operations = [UpdateOne({"_id": id, "desired": True}, {"$set": {"rows": own}}) for id, own in rows.items()]
        if not operations:
            return set()
        stored = await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)
        if stored.matched_count == len(operations):
            return set()
        # By the rows and not by `desired`: who has come back by now has nothing written down either.
        kept = await self.get(sync_key, [record.profile_id for record in records])
        return {
            record.profile_id
            for record in records
            if record.profile_id not in kept or record_of(kept[record.profile_id]).rows.keys() != record.rows.keys()
        }

    async def save_consents(self, sync_key: str, consents: Mapping[str, Consents]) -> None:
        """Write down which consents allow what is about to be added, by profile id."""
        operations = [
            UpdateOne({"_id": member_id(sync_key, profile_id)}, {"$set": {"co": stored(own)}})
            for profile_id, own in consents.items()
        ]
        if operations:
            await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)

    async def evaluated_consents(self, sync_key: str) -> int:
        """When what the destination requires last changed, as of the last look at all members; 0 for never."""
        document = await self._db[STATE].find_one({"_id": f"consents{SEPARATOR}{sync_key}"})
        return int(document["t"]) if document else 0

    async def remember_evaluated(self, sync_key: str, changed_us: int) -> None:
        """All members have been marked since what the destination requires changed."""
        await self._db[STATE].update_one(
            {"_id": f"consents{SEPARATOR}{sync_key}"}, {"$max": {"t": changed_us}}, upsert=True
        )

    async def finish(self, results: Sequence[MemberResult], *, sync_key: str, now: int) -> None:
        """Store what a pass made of members: rows always, state and due only if nobody asked for another look."""
        ids = {member_id(sync_key, result.record.profile_id): result for result in results}
        operations: list[UpdateOne | UpdateMany] = []
        alike: dict[tuple[Any, ...], list[str]] = {}
        for id, result in ids.items():
            if result.rows is RowChange.REPLACED:
                operations.append(UpdateOne({"_id": id, "g": result.generation}, finish_change(result, now)))
            else:
                alike.setdefault(result.sign, []).append(id)
        for same in alike.values():
            result = ids[same[0]]
            operations.append(UpdateMany({"_id": {"$in": same}, "g": result.generation}, finish_change(result, now)))
        if not operations:
            return
        done = await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)
        if done.matched_count < len(results):
            await self._finish_rows({id: r for id, r in ids.items() if r.rows is not RowChange.NONE or r.goes_on}, now)

    async def _finish_rows(self, results: Mapping[str, MemberResult], now: int) -> None:
        """Store the rows alone of those, by database id, whose documents were not changed at `now`."""
        others = self._db[LIST_MEMBERS].find({"_id": {"$in": list(results)}, "u": {"$ne": now}}, {"_id": 1})
        operations = [UpdateOne({"_id": d["_id"]}, rows_change(results[d["_id"]])) async for d in others]
        if operations:
            await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)

    async def hand_over(
        self,
        workspace_id: str,
        sync_key: str,
        survivor: MemberRecord,
        loser: str,
        *,
        now: int,
        hold_until: int,
        urgent: bool,
    ) -> None:
        """Store rows that moved from a merged profile to its survivor, first there, then here."""
        await self._db[LIST_MEMBERS].update_one(
            {"_id": member_id(sync_key, survivor.profile_id)},
            {
                "$set": {
                    "rows": stored_rows(survivor), "due": now, "hold": hold_until, "op": True,
                    **({"ur": True} if urgent else {}),
                },
                "$inc": {"g": 1},
                "$setOnInsert": {
                    "k": sync_key, "w": workspace_id, "p": survivor.profile_id,
                    "desired": False, "v": -1, "st": WAITING,
                },
            },
            upsert=True,
        )  # fmt: skip
        await self._db[LIST_MEMBERS].update_one(
            {"_id": member_id(sync_key, loser)},
            {"$set": {"rows": [], "due": now, "op": True}, "$unset": {"into": ""}, "$inc": {"g": 1}},
        )

    async def look_later(self, sync_key: str, profile_id: str, *, at: int) -> None:
        """Look at a member at a moment, and not before."""
        await self._db[LIST_MEMBERS].update_one({"_id": member_id(sync_key, profile_id)}, {"$set": {"due": at}})

    async def want_nobody(self, sync_key: str, *, now: int, again: bool) -> None:
        """Want nobody on a list any more; with `again` of those alone who have come since."""
        query: Document = {"k": sync_key, "desired": True}
        if not again:
            query = {"k": sync_key, "$or": [{"desired": True}, {"rows.k": {"$gte": ""}}]}
        # As with who is erased: rows of parts are removed where they are.
        gone = {"hold": "", "into": "", "co": "", "pn": ""}
        await self._db[LIST_MEMBERS].update_many(
            query, {"$set": {"desired": False, "due": now, "at": 0}, "$unset": gone, "$inc": {"g": 1}}
        )

    async def has_rows(self, sync_key: str) -> bool:
        """True when anything is or may be on a list, or the vendor works on it."""
        return await self._db[LIST_MEMBERS].find_one({"k": sync_key, "rows.k": {"$gte": ""}}, {"_id": 1}) is not None

    async def not_urgent(self, sync_key: str, members: Sequence[tuple[str, int]]) -> None:
        """What is to be done for members, (profile id, generation) as they were read, waits for the sync."""
        operations = [
            UpdateOne({"_id": member_id(sync_key, profile_id), "g": generation}, {"$unset": {"ur": ""}})
            for profile_id, generation in members
        ]
        if operations:
            await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)

    async def mark_erased(self, sync_key: str, profile_ids: Iterable[str], *, now: int) -> int:
        """Want nothing of these profiles on the list any more, now; returns how many members there are."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        result = await self._db[LIST_MEMBERS].update_many(
            {"_id": {"$in": ids}},
            # Rows of parts are removed where they are: handing them over would only delay it.
            {
                "$set": {"desired": False, "due": now, "at": 0},
                "$unset": {"hold": "", "into": "", "co": ""},
                "$inc": {"g": 1},
            },
        )
        return int(result.matched_count)

    async def in_jobs(self, sync_key: str, profile_ids: Iterable[str]) -> bool:
        """True when a vendor works on rows of these profiles in a stored job."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        return (
            await self._db[LIST_MEMBERS].find_one({"_id": {"$in": ids}, "jb.0": {"$exists": True}}, {"_id": 1})
            is not None
        )

    async def in_job(self, job_id: str, ids: Sequence[str]) -> dict[str, Document]:
        """Those of the members, by database id, that still wait for the end of a stored job."""
        query = {"_id": {"$in": list(ids)}, "jb": job_id}
        return {d["_id"]: d async for d in self._db[LIST_MEMBERS].find(query)}

    async def holds_rows(self, sync_key: str, profile_ids: Iterable[str]) -> bool:
        """True when something of these profiles is or may be on the list."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        query = {"_id": {"$in": ids}, "rows.0": {"$exists": True}}
        return await self._db[LIST_MEMBERS].find_one(query, {"_id": 1}) is not None

    async def drop_members(self, sync_key: str, profile_ids: Iterable[str]) -> int:
        """Forget those of these profiles of which nothing is on the list; returns how many."""
        ids = [member_id(sync_key, p) for p in profile_ids]
        gone: Document = {"_id": {"$in": ids}, "rows.0": {"$exists": False}}
        exchanges = [d["ex"] async for d in self._db[LIST_MEMBERS].find({**gone, "ex": {"$exists": True}}, {"ex": 1})]
        await self._db[EXCHANGES].delete_many({"_id": {"$in": exchanges}})
        result = await self._db[LIST_MEMBERS].delete_many(gone)
        return int(result.deleted_count)

    async def holders(self, sync_key: str, keys: Sequence[str], *, besides: Iterable[str]) -> set[str]:
        """Those of the row keys that a desired member besides these profiles holds."""
        query = {
            "k": sync_key,
            "rows.k": {"$in": list(keys)},
            "desired": True,
            "p": {"$nin": list(besides)},
        }
        wanted = set(keys)
        return {
            row["k"]
            async for d in self._db[LIST_MEMBERS].find(query, {"rows.k": 1})
            for row in d["rows"]
            if row["k"] in wanted
        }

    async def scan(self, sync_key: str) -> AsyncIterator[tuple[str, bool, int]]:
        """(profile id, desired, version) of all members, by profile id."""
        cursor = self._db[LIST_MEMBERS].find(
            {"k": sync_key, "_id": {"$gt": member_id(sync_key, ""), "$lt": member_id(sync_key, "\uffff")}},
            {"p": 1, "desired": 1, "v": 1},
        )
        async for d in cursor.sort("_id", ASCENDING):
            yield d["p"], d["desired"], d["v"]

    async def set_absent(self, sync_key: str, found: Sequence[tuple[str, int]], *, known_before: int, now: int) -> None:
        """Members that the audience no longer has.

        Args:
            sync_key: The sync.
            found: (profile id, version at which that was seen).
            known_before: Only those that came in before this moment: younger ones the audience's list may just lack.
            now: The clock.
        """
        operations = [
            UpdateOne(
                {
                    "_id": member_id(sync_key, profile_id),
                    "v": version,
                    "desired": True,
                    "$or": [{"a": {"$lt": known_before}}, {"a": None}],
                },
                # One version less, so that the audience's list can take it back if it was incomplete.
                {"$set": {"desired": False, "due": now, "st": WAITING, "at": 0}, "$inc": {"g": 1, "v": -1}},
            )
            for profile_id, version in found
        ]
        if operations:
            await self._db[LIST_MEMBERS].bulk_write(operations, ordered=False)

    async def counts(self, sync_key: str) -> tuple[dict[int, int], dict[str, int]]:
        """(desired members by state, skipped ones by reason); FILTERED only by reason."""
        by_state: dict[int, int] = dict.fromkeys(MEMBER_STATES, 0)
        desired = {"k": sync_key, "desired": True}
        # From the index alone: reading the documents of a large list takes half a minute.
        async for d in aggregate(
            self._db[LIST_MEMBERS], [{"$match": desired}, {"$group": {"_id": "$st", "n": {"$sum": 1}}}]
        ):
            by_state[int(d["_id"])] = int(d["n"])
        reasons: dict[str, int] = {}
        if by_state.pop(FILTERED):
            left_out: list[Mapping[str, Any]] = [
                {"$match": {**desired, "st": FILTERED}},
                {"$group": {"_id": "$r", "n": {"$sum": 1}}},
            ]
            async for d in aggregate(self._db[LIST_MEMBERS], left_out):
                reasons[str(d["_id"])] = int(d["n"])
        return by_state, reasons

    async def page(
        self,
        sync_keys: Sequence[str],
        *,
        workspace_id: str,
        state: int,
        profile_ids: Sequence[str] = (),
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Document]:
        """Members, last changed first, those after a position (changed, id); of some profiles only when given."""
        query: Document = {"k": {"$in": list(sync_keys)}, "w": workspace_id, "u": {"$exists": True}}
        if state:
            query["st"] = state
        if profile_ids:
            query["_id"] = {"$in": [member_id(key, p) for key in sync_keys for p in profile_ids]}
        if before is not None:
            query["$or"] = [{"u": {"$lt": before[0]}}, {"u": before[0], "_id": {"$lt": before[1]}}]
        cursor = self._db[LIST_MEMBERS].find(query)
        return [d async for d in cursor.sort([("u", DESCENDING), ("_id", DESCENDING)]).limit(limit)]

    async def replay(self, sync_key: str, workspace_id: str, wanted: ReplayFilter, *, now: int) -> int:
        """Try failed members again; returns how many."""
        query: Document = {"k": sync_key, "w": workspace_id, "st": FAILED, **wanted.query()}
        if wanted.ids:
            query["_id"] = {"$in": [member_id(sync_key, p) for p in wanted.ids]}
        result = await self._db[LIST_MEMBERS].update_many(
            query, {"$set": {"due": now, "at": 0, "st": WAITING, "r": ""}, "$inc": {"g": 1}}
        )
        return int(result.modified_count)


def _new_member(id: str, workspace_id: str, sync_key: str, change: MembershipChange, now: int) -> Document:
    """What a change makes of somebody who is not known yet: the same as `_change_operation`."""
    return {
        "_id": id,
        "k": sync_key,
        "w": workspace_id,
        "p": change.profile_id,
        "desired": change.member,
        "into": change.merged_into if not change.member else "",
        "st": WAITING,
        "r": "",
        "at": 0,
        "due": now,
        "g": 1,
        "a": now,
        "v": change.version,
    }


def _change_operation(id: str, workspace_id: str, sync_key: str, change: MembershipChange, now: int) -> UpdateOne:
    """Applies a change if its version is higher than the stored one, in one step of the store."""
    newer = {"$gt": [change.version, {"$ifNull": ["$v", -1]}]}
    into = change.merged_into if not change.member else ""
    fields: Document = {
        "k": sync_key,
        "w": workspace_id,
        "p": change.profile_id,
        "desired": {"$cond": [newer, change.member, "$desired"]},
        "into": {"$cond": [newer, into, {"$ifNull": ["$into", ""]}]},
        "st": {"$cond": [newer, WAITING, "$st"]},
        "r": {"$cond": [newer, "", {"$ifNull": ["$r", ""]}]},
        "at": {"$cond": [newer, 0, {"$ifNull": ["$at", 0]}]},
        "due": {"$cond": [newer, now, {"$ifNull": ["$due", "$$REMOVE"]}]},
        "g": {"$cond": [newer, {"$add": [{"$ifNull": ["$g", 0]}, 1]}, "$g"]},
        "a": {"$cond": [newer, now, {"$ifNull": ["$a", 0]}]},
        "v": {"$max": [change.version, {"$ifNull": ["$v", -1]}]},
    }
    return UpdateOne({"_id": id}, [{"$set": fields}], upsert=True)
