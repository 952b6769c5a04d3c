"""The collections of the audience service: documents, ids and indexes.

``audiences`` holds definitions and states; beside a definition (``def``) the ids of the computed traits that it
names (``traits``) and their definitions as of then (``computed``, by id). ``memberships`` holds one row per audience
and profile that was ever a member; ``membership_changes`` every change of it, insert-only, and is also the outbox of
the changes stream. ``audience_leases`` says who computes which partition. ``audience_snapshots`` holds a head per
partition and the chunks of its computed state. ``archive_files`` says which files of the archive are valid.
``audience_erasures`` holds people who are still to be removed from snapshots and archive, ``audience_repairs`` those
whose memberships differ from the batch evaluator and are to be made right by the owners of their partitions.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import itemgetter
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from headrace.api.audience.v1.audience_pb2 import AudienceState, MembershipChange
from headrace.storage.mongo.client import Database, Document
from headrace_audience.batching import batched

AUDIENCES = "audiences"
MEMBERSHIPS = "memberships"
CHANGES = "membership_changes"
LEASES = "audience_leases"
SNAPSHOTS = "audience_snapshots"
ARCHIVE_FILES = "archive_files"
ERASURES = "audience_erasures"
REPAIRS = "audience_repairs"

SEPARATOR = "\x1f"

_ROWS_AT_A_TIME = 20_000
_MERGED_AT_A_TIME = 128
"""So many ranges of an index are merged by the database, which does so with at most 200; beyond, it would sort."""

DRAFT = "DRAFT"
FILLING = "FILLING"
ACTIVE = "ACTIVE"
PAUSED = "PAUSED"
ARCHIVED = "ARCHIVED"
"""Put away: members leave partition by partition; then nobody is in it."""
DELETING = "DELETING"
"""Being removed: hidden from the API, members leave partition by partition."""
DELETED = "DELETED"
"""Gone. The document stays to remember the highest version, so that a new audience of the same id goes on from it."""

VISIBLE = (DRAFT, FILLING, ACTIVE, PAUSED, ARCHIVED)
COMPUTED = (FILLING, ACTIVE)
LEAVING = (ARCHIVED, DELETING)
"""States in which all members leave."""

_NEWEST_FIRST = (("t", DESCENDING), ("_id", DESCENDING))

INDEXES: dict[str, list[IndexModel]] = {
    AUDIENCES: [
        IndexModel([("w", ASCENDING), ("a", ASCENDING)], name="workspace_audience"),
        IndexModel([("updated", ASCENDING)], name="updated"),
    ],
    # Each index of these two is paid for by every flip: what can be read by another one has none of its own.
    MEMBERSHIPS: [
        IndexModel(
            # With "in" among the keys counting members and reading their ids looks at no documents. In the order of
            # profile ids members are read by merging the partitions; the audiences of a profile by their keys.
            [("w", ASCENDING), ("a", ASCENDING), ("in", ASCENDING), ("q", ASCENDING), ("p", ASCENDING)],
            name="members",
            partialFilterExpression={"in": True},
        ),
    ],
    CHANGES: [
        IndexModel([("q", ASCENDING), ("f", ASCENDING)], name="outbox"),
        # Flips by time alone, which come in bursts, have no event that caused them.
        IndexModel(
            [("w", ASCENDING), ("m", ASCENDING)], name="event", partialFilterExpression={"m": {"$exists": True}}
        ),
        # Those of a workspace by time are read by merging its audiences.
        IndexModel([("w", ASCENDING), ("a", ASCENDING), *_NEWEST_FIRST], name="audience_time"),
        # A profile has few: they are sorted when they are read.
        IndexModel([("w", ASCENDING), ("p", ASCENDING)], name="profile"),
    ],
    SNAPSHOTS: [IndexModel([("q", ASCENDING), ("g", ASCENDING)], name="chunks", sparse=True)],
    ARCHIVE_FILES: [
        IndexModel([("w", ASCENDING), ("live", ASCENDING)], name="workspace_live"),
        IndexModel([("retired", ASCENDING)], name="retired", sparse=True),
    ],
    REPAIRS: [
        IndexModel([("open", ASCENDING)], name="open"),
        IndexModel([("made", ASCENDING)], name="expire", expireAfterSeconds=3600),
    ],
}
"""Indexes beside those on _id; made by `headrace admin indexes`."""

RETIRED_INDEXES: dict[str, tuple[str, ...]] = {
    MEMBERSHIPS: ("members_in", "profile", "partition"),
    CHANGES: ("message", "profile_time", "workspace_time"),
}
"""Names of indexes of earlier versions; `headrace admin indexes` drops them."""


def audience_key(workspace_id: str, audience_id: str) -> str:
    """The database id of an audience."""
    return f"{workspace_id}{SEPARATOR}{audience_id}"


def membership_key(workspace_id: str, audience_id: str, profile_id: str) -> str:
    """The database id of a membership."""
    return f"{workspace_id}{SEPARATOR}{audience_id}{SEPARATOR}{profile_id}"


def change_key(membership: str, version: int) -> str:
    """The database id of a change: a version of a membership is recorded once."""
    return f"{membership}{SEPARATOR}{version:012d}"


def state_message(state: str) -> AudienceState.ValueType:
    """The public form of a stored state."""
    return AudienceState.Value(f"AUDIENCE_STATE_{state}")


def change_message(document: Document) -> MembershipChange:
    """A change as it is sent and listed, from its stored form."""
    return MembershipChange(
        audience_id=document["a"],
        profile_id=document["p"],
        member=document["in"],
        version=document["v"],
        effective_at_us=document["e"],
        changed_at_us=document["t"],
        cause=document["c"],
        message_id=document.get("m", ""),
        traceparent=document.get("tp", ""),
        merged_into=document.get("into", ""),
    )


async def member_count(db: Database, workspace_id: str, audience_id: str) -> int:
    """Number of members of an audience, by its index."""
    query: dict[str, Any] = {"w": workspace_id, "a": audience_id, "in": True}
    return int(await db[MEMBERSHIPS].count_documents(query))


async def members_in(
    db: Database, workspace_id: str, audience_ids: Collection[str], partitions: Collection[int], total: int
) -> dict[str, list[str]]:
    """Audience id to the profile ids of its members in some partitions of so many in all."""
    found: dict[str, list[str]] = {audience_id: [] for audience_id in audience_ids}
    query: Document = {"w": workspace_id, "a": {"$in": list(audience_ids)}, "in": True}
    if len(partitions) < total:
        query["q"] = {"$in": list(partitions)}
    # The index has all that is asked for: no row is looked at, which is many times as fast.
    cursor = db[MEMBERSHIPS].find(query, {"_id": 0, "a": 1, "p": 1}, batch_size=_ROWS_AT_A_TIME)
    while rows := await cursor.to_list(_ROWS_AT_A_TIME):
        for row in rows:
            found[row["a"]].append(row["p"])
    return found


async def members_after(
    db: Database,
    workspace_id: str,
    audience_id: str,
    after: str,
    limit: int,
    total: int,
    fields: Collection[str],
) -> list[Document]:
    """Members of an audience in the order of their profile ids.

    Args:
        db: Database.
        workspace_id: The workspace.
        audience_id: The audience.
        after: The profile id after which they begin; empty for the first.
        limit: At most this many.
        total: Number of partitions of profiles.
        fields: What to read of each, with "p" among them; "p" alone is read from the index.
    """
    found: list[Document] = []
    query: Document = {"w": workspace_id, "a": audience_id, "in": True, "p": {"$gt": after}}
    wanted = {"_id": 0, **dict.fromkeys(fields, 1)}
    for some in batched(range(total), _MERGED_AT_A_TIME):
        cursor = db[MEMBERSHIPS].find({**query, "q": {"$in": some}}, wanted).sort("p", ASCENDING).limit(limit)
        found += await cursor.to_list(limit)
    if total > _MERGED_AT_A_TIME:
        found.sort(key=itemgetter("p"))
    return found[:limit]


async def changes_of_all(db: Database, workspace_id: str, before: tuple[int, str] | None, limit: int) -> list[Document]:
    """Changes of the memberships of all audiences of a workspace, those that are gone included, newest first.

    Args:
        db: Database.
        workspace_id: The workspace.
        before: Only those after this place in the list, a time and the id of a change.
        limit: At most this many.
    """
    found: list[Document] = []
    audiences = db[AUDIENCES].find({"w": workspace_id, "a": {"$exists": True}}, {"_id": 0, "a": 1})
    ids = [document["a"] async for document in audiences]
    for some in batched(ids, _MERGED_AT_A_TIME):
        query: Document = {"w": workspace_id, "a": {"$in": some}, **_older(before)}
        found += await db[CHANGES].find(query).sort(list(_NEWEST_FIRST)).limit(limit).to_list(limit)
    if len(ids) > _MERGED_AT_A_TIME:
        found.sort(key=itemgetter("t", "_id"), reverse=True)
    return found[:limit]


async def changes_of(db: Database, query: Document, before: tuple[int, str] | None, limit: int) -> list[Document]:
    """Changes of memberships of an audience, of a profile or by an event, newest first.

    Args:
        db: Database.
        query: Names the workspace and at least one of these.
        before: Only those after this place in the list, a time and the id of a change.
        limit: At most this many.
    """
    return await db[CHANGES].find({**query, **_older(before)}).sort(list(_NEWEST_FIRST)).limit(limit).to_list(limit)


def _older(before: tuple[int, str] | None) -> Document:
    """What holds for changes after a place in the list of those that come newest first; None is its beginning."""
    if before is None:
        return {}
    moment, key = before
    return {"t": {"$lte": moment}, "$or": [{"t": {"$lt": moment}}, {"_id": {"$lt": key}}]}
