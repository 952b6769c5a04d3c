"""Collections of the sync service and their indexes; reading and writing destinations and syncs.

The other collections have files of their own: `deliveries.store` (deliveries, ledger), `lists.store` (list_members,
sync_runs), `jobs.store`,
`exchanges.store`, `plans.store`, `erasure.store` and `alerts.sender`.

`left_on_lists` is who was on the list of a sync that was deleted, until the person is: the receipt of that deletion
says which lists could not be told. Fields: w workspace, p profile id, d destination id, i sync id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError, PyMongoError

from headrace.storage.mongo.client import Database, Document, Session, aggregate, transaction
from headrace_sync.config import SEPARATOR, DestinationConfig, SyncConfig, key_of

DESTINATIONS = "destinations"
SYNCS = "syncs"
DELIVERIES = "deliveries"
LEDGER = "ledger"
LIST_MEMBERS = "list_members"
SYNC_RUNS = "sync_runs"
SYNC_PLANS = "sync_plans"
STATE = "sync_state"
ERASURES = "sync_erasures"
TOKENS = "sync_tokens"
ALERTS = "sync_alerts"
VENDOR_JOBS = "vendor_jobs"
EXCHANGES = "exchanges"
LEFT_ON_LISTS = "left_on_lists"

STATE_KINDS = (
    "balanced",
    "consents",
    "erased",
    "initial",
    "reconciled",
    "rows",
    "scheduled",
    "settled",
    "tally",
    "window",
)
"""What `sync_state` holds per sync, as kind + separator + sync key."""

WAITING = 1
DELIVERED = 2
WARNING = 3
FAILED = 4
FILTERED = 5
STATES = (WAITING, DELIVERED, WARNING, FAILED, FILTERED)

INDEXES: dict[str, list[IndexModel]] = {
    DESTINATIONS: [IndexModel([("w", ASCENDING), ("i", ASCENDING)], name="workspace")],
    SYNCS: [
        IndexModel([("w", ASCENDING), ("i", ASCENDING)], name="workspace"),
        IndexModel([("key", ASCENDING)], name="key", unique=True),
    ],
    DELIVERIES: [
        IndexModel([("d", ASCENDING), ("na", ASCENDING)], name="claim", partialFilterExpression={"st": WAITING}),
        IndexModel(
            [("d", ASCENDING), ("b", ASCENDING)],
            name="tried",
            partialFilterExpression={"st": WAITING, "b": {"$gt": 0}},
        ),
        IndexModel(
            [("k", ASCENDING), ("st", ASCENDING), ("c", DESCENDING), ("_id", DESCENDING)], name="sync_state_time"
        ),
        IndexModel([("w", ASCENDING), ("p", ASCENDING), ("c", DESCENDING), ("_id", DESCENDING)], name="profile_time"),
    ],
    LEDGER: [IndexModel([("k", ASCENDING)], name="sync")],
    LIST_MEMBERS: [
        IndexModel([("k", ASCENDING), ("_id", ASCENDING)], name="due", partialFilterExpression={"due": {"$gt": 0}}),
        IndexModel([("k", ASCENDING), ("rows.k", ASCENDING)], name="rows"),
        IndexModel([("k", ASCENDING), ("u", DESCENDING), ("_id", DESCENDING)], name="time"),
        IndexModel([("k", ASCENDING), ("desired", ASCENDING), ("st", ASCENDING), ("_id", ASCENDING)], name="state"),
    ],
    SYNC_RUNS: [
        IndexModel([("k", ASCENDING), ("_id", DESCENDING)], name="sync"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    SYNC_PLANS: [
        IndexModel([("k", ASCENDING), ("st", ASCENDING), ("_id", DESCENDING)], name="sync_state"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    ALERTS: [
        IndexModel([("na", ASCENDING)], name="due", partialFilterExpression={"na": {"$gt": 0}}),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    VENDOR_JOBS: [IndexModel([("na", ASCENDING)], name="due")],
    LEFT_ON_LISTS: [IndexModel([("w", ASCENDING), ("p", ASCENDING)], name="profile")],
    EXCHANGES: [IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0)],
    ERASURES: [
        IndexModel([("p", ASCENDING)], name="profile"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
}
"""Indexes beside those on _id; made by `headrace admin indexes`."""

_CONFIG = "config"
_TRIES = 5

Check = Callable[[DestinationConfig, Sequence[SyncConfig]], None]
"""Raises when what is being stored does not go with (its destination, the syncs of that)."""


class ConfigStore:
    """Destinations and syncs in MongoDB."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def generation(self) -> int:
        """Grows with every change of any destination or sync."""
        document = await self._db[STATE].find_one({"_id": _CONFIG})
        return int(document["n"]) if document else 0

    async def all_destinations(self) -> list[DestinationConfig]:
        """Every destination of every workspace: what this service delivers to."""
        return [DestinationConfig.from_document(d) async for d in self._db[DESTINATIONS].find({})]

    async def all_syncs(self) -> list[SyncConfig]:
        """Every sync of every workspace."""
        return [SyncConfig.from_document(d) async for d in self._db[SYNCS].find({})]

    async def all_erased(self) -> frozenset[str]:
        """Digests of the profiles of all people who are being deleted or were lately."""
        return frozenset([digest async for d in self._db[ERASURES].find({}, {"p": 1}) for digest in d["p"]])

    async def get_destination(self, workspace_id: str, key: str) -> DestinationConfig | None:
        """A destination by its database id."""
        document = await self._db[DESTINATIONS].find_one({"_id": key, "w": workspace_id})
        return DestinationConfig.from_document(document) if document else None

    async def get_sync(self, workspace_id: str, doc_id: str) -> SyncConfig | None:
        """A sync by its database id."""
        document = await self._db[SYNCS].find_one({"_id": doc_id, "w": workspace_id})
        return SyncConfig.from_document(document) if document else None

    async def list_destinations(self, workspace_id: str, after_id: str, limit: int) -> list[DestinationConfig]:
        """Destinations of a workspace with a greater id, by id."""
        return [
            DestinationConfig.from_document(d) for d in await self._page(DESTINATIONS, workspace_id, after_id, limit)
        ]

    async def list_syncs(self, workspace_id: str, after_id: str, limit: int) -> list[SyncConfig]:
        """Syncs of a workspace with a greater id, by id."""
        return [SyncConfig.from_document(d) for d in await self._page(SYNCS, workspace_id, after_id, limit)]

    async def syncs_of_destination(self, workspace_id: str, destination_id: str) -> list[SyncConfig]:
        """Syncs that use a destination."""
        cursor = self._db[SYNCS].find({"w": workspace_id, "destination_id": destination_id})
        return [SyncConfig.from_document(d) async for d in cursor]

    async def insert_destination(self, destination: DestinationConfig) -> bool:
        """Store a new destination; False when the id is taken."""
        return await self._insert(DESTINATIONS, destination.document())

    async def insert_sync(self, sync: SyncConfig, check: Check | None = None) -> bool:
        """Store a new sync; False when the id is taken.

        Args:
            sync: The sync.
            check: Raises when it does not go with the others of its destination; decided one after the other.
        """
        if check is None:
            return await self._insert(SYNCS, sync.document())

        async def insert(session: Session) -> bool:
            if await self._db[SYNCS].find_one({"_id": sync.doc_id}, {"_id": 1}, session=session) is not None:
                return False
            await self._db[SYNCS].insert_one(sync.document(), session=session)
            return True

        return await self._together(sync.workspace_id, sync.destination_id, insert, check)

    async def replace_destination(
        self, destination: DestinationConfig, revision: int, check: Check | None = None
    ) -> bool:
        """Store a changed destination; False when it is no longer at that revision.

        Args:
            destination: As it is to be.
            revision: As it was read.
            check: Raises when it does not go with its syncs; decided one after the other.
        """
        if check is None:
            return await self._replace(DESTINATIONS, destination.document(), revision)

        async def replace(session: Session) -> bool:
            return await self._replaced(DESTINATIONS, destination.document(), revision, session)

        return await self._together(destination.workspace_id, destination.id, replace, check)

    async def replace_sync(self, sync: SyncConfig, revision: int, check: Check | None = None) -> bool:
        """Store a changed sync; False when it is no longer at that revision.

        Args:
            sync: As it is to be.
            revision: As it was read.
            check: Raises when it does not go with the others of its destination; decided one after the other.
        """
        if check is None:
            return await self._replace(SYNCS, sync.document(), revision)

        async def replace(session: Session) -> bool:
            return await self._replaced(SYNCS, sync.document(), revision, session)

        return await self._together(sync.workspace_id, sync.destination_id, replace, check)

    async def set_destination_state(
        self, destination: DestinationConfig, *, state: int, reason: str, now_us: int
    ) -> bool:
        """Change the state alone; False when the destination was changed meanwhile."""
        result = await self._db[DESTINATIONS].update_one(
            {"_id": destination.key, "w": destination.workspace_id, "revision": destination.revision},
            {"$set": {"state": state, "state_reason": reason, "updated_us": now_us}, "$inc": {"revision": 1}},
        )
        await self.announce()
        return result.modified_count == 1

    async def delete_destination(self, workspace_id: str, key: str) -> bool:
        """Delete a destination; False when there is none."""
        result = await self._db[DESTINATIONS].delete_one({"_id": key, "w": workspace_id})
        if result.deleted_count:
            await self._db[TOKENS].delete_one({"_id": key})
            await self._db[VENDOR_JOBS].delete_many({"d": key, "w": workspace_id})
        await self.announce()
        return result.deleted_count == 1

    async def delete_sync(self, sync: SyncConfig) -> bool:
        """Delete a sync and all that it remembers but who is left on its list; False when there is none."""
        await self._remember_left(sync)
        result = await self._db[SYNCS].delete_one({"_id": sync.doc_id, "w": sync.workspace_id, "key": sync.key})
        await self.announce()
        await self._remember_left(sync)  # also those whom a pass that was under way has added
        for collection in (DELIVERIES, LIST_MEMBERS, LEDGER, SYNC_RUNS, SYNC_PLANS, VENDOR_JOBS):
            await self._db[collection].delete_many({"k": sync.key, "w": sync.workspace_id})
        await self._db[STATE].delete_many({"_id": {"$in": [f"{kind}{SEPARATOR}{sync.key}" for kind in STATE_KINDS]}})
        return result.deleted_count == 1

    async def begin_at(self, sync: SyncConfig, moment_us: int) -> None:
        """A sync is accounted for from a moment on: everybody is to plan and count by it."""
        await self._db[SYNCS].update_one({"_id": sync.doc_id, "key": sync.key}, {"$max": {"swept_us": moment_us}})
        await self.announce()

    async def announce(self) -> None:
        """Let every process notice a change."""
        await self._db[STATE].update_one({"_id": _CONFIG}, {"$inc": {"n": 1}}, upsert=True)

    async def _remember_left(self, sync: SyncConfig) -> None:
        """Keep who is or may be on the list of a sync."""
        if not sync.is_list:
            return
        whose = {"w": "$w", "p": "$p", "d": {"$literal": sync.destination_id}, "i": {"$literal": sync.id}}
        pipeline: list[Document] = [
            {"$match": {"k": sync.key, "w": sync.workspace_id, "rows.k": {"$gte": ""}}},
            {"$project": whose},
            {"$merge": {"into": LEFT_ON_LISTS, "whenMatched": "keepExisting"}},
        ]
        async for _ in aggregate(self._db[LIST_MEMBERS], pipeline):
            pass

    async def _page(self, collection: str, workspace_id: str, after_id: str, limit: int) -> list[Document]:
        cursor = self._db[collection].find({"w": workspace_id, "i": {"$gt": after_id}})
        return [d async for d in cursor.sort("i", ASCENDING).limit(limit)]

    async def _insert(self, collection: str, document: Document) -> bool:
        try:
            await self._db[collection].insert_one(document)
        except DuplicateKeyError:
            return False
        await self.announce()
        return True

    async def _replace(self, collection: str, document: Document, revision: int) -> bool:
        replaced = await self._replaced(collection, document, revision)
        await self.announce()
        return replaced

    async def _replaced(
        self, collection: str, document: Document, revision: int, session: Session | None = None
    ) -> bool:
        result = await self._db[collection].replace_one(
            {"_id": document["_id"], "w": document["w"], "revision": revision}, document, session=session
        )
        return result.matched_count == 1

    async def _together(
        self, workspace_id: str, destination_id: str, write: Callable[[Session], Awaitable[bool]], check: Check
    ) -> bool:
        """Write a destination or a sync of it, unless that does not go with the others.

        All who do so write to the destination first, so of two one waits for the other and sees what it did.
        """
        key = key_of(workspace_id, destination_id)
        for attempt in range(_TRIES):
            try:
                async with transaction(self._db.client) as session:
                    await self._db[DESTINATIONS].update_one({"_id": key}, {"$inc": {"n": 1}}, session=session)
                    written = await write(session)
                    if written:
                        found = await self._db[DESTINATIONS].find_one({"_id": key}, session=session)
                        of_it = {"w": workspace_id, "destination_id": destination_id}
                        syncs = [
                            SyncConfig.from_document(d) async for d in self._db[SYNCS].find(of_it, session=session)
                        ]
                        if found is not None:
                            check(DestinationConfig.from_document(found), syncs)
            except PyMongoError as error:
                if attempt + 1 == _TRIES or not error.has_error_label("TransientTransactionError"):
                    raise
            else:
                await self.announce()
                return written
        raise AssertionError("the last try returns or raises")
