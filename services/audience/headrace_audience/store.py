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
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from headrace.api.audience.v1.audience_pb2 import AudienceState, MembershipChange
from headrace.domain.ids import partition_of
from headrace.storage.mongo.client import Database, Document

AUDIENCES = "audiences"
MEMBERSHIPS = "memberships"
CHANGES = "membership_changes"
LEASES = "audience_leases"
SNAPSHOTS = "audience_snapshots"
ARCHIVE_FILES = "archive_files"
ERASURES = "audience_erasures"
REPAIRS = "audience_repairs"

SEPARATOR = "\x1f"

_SOME = 8
"""Whoever holds more than one of so many partitions reads the members of all and passes the others over."""
_ROWS_AT_A_TIME = 20_000

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
    MEMBERSHIPS: [
        IndexModel(
            # With "in" among the keys counting members and reading their ids looks at no documents.
            [("w", ASCENDING), ("a", ASCENDING), ("in", ASCENDING), ("p", ASCENDING)],
            name="members_in",
            partialFilterExpression={"in": True},
        ),
        IndexModel(
            [("w", ASCENDING), ("p", ASCENDING), ("a", ASCENDING)],
            name="profile",
            partialFilterExpression={"in": True},
        ),
        IndexModel([("q", ASCENDING), ("w", ASCENDING)], name="partition", partialFilterExpression={"in": True}),
    ],
    CHANGES: [
        IndexModel([("q", ASCENDING), ("f", ASCENDING)], name="outbox"),
        IndexModel([("w", ASCENDING), ("m", ASCENDING)], name="message", sparse=True),
        IndexModel([("w", ASCENDING), ("a", ASCENDING), *_NEWEST_FIRST], name="audience_time"),
        IndexModel([("w", ASCENDING), ("p", ASCENDING), *_NEWEST_FIRST], name="profile_time"),
        IndexModel([("w", ASCENDING), *_NEWEST_FIRST], name="workspace_time"),
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
    query: dict[str, Any] = {"w": workspace_id, "a": {"$in": list(audience_ids)}, "in": True}
    if len(partitions) * _SOME < total:
        query["q"] = {"$in": list(partitions)}
    # Without the partition the index has all that is asked for: no row is looked at, which is many times as fast.
    cursor = db[MEMBERSHIPS].find(query, {"_id": 0, "a": 1, "p": 1}, batch_size=_ROWS_AT_A_TIME)
    while rows := await cursor.to_list(_ROWS_AT_A_TIME):
        for row in rows:
            if partition_of(row["p"], total) in partitions:
                found[row["a"]].append(row["p"])
    return found
