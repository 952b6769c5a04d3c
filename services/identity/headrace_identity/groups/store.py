"""Groups in MongoDB: what a micro-batch loads and writes of them, and reading them.

    groups         _id workspace + group, w workspace, c created
    group_traits   _id workspace + group + stripe, tr [[name, value, time_us, message, source], ...]
    group_members  _id workspace + group + part, w workspace, g group, p part, t time_us, m message, s source

Thousands of people of one company may be active at a time, each with group calls that repeat its traits. So that their
micro-batches do not wait for each other, a group's own document is written once, members are documents of their own,
and the traits lie in stripes, of which a worker writes always the same: the newest value over the stripes holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import ASCENDING, InsertOne, UpdateOne

from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.documents import SEPARATOR, trait_row, traits_of_rows
from headrace_identity.groups.statements import Groups, MemberKey, Membership, Mention, fold
from headrace_identity.resolving.graph import TraitValue, newest_traits
from headrace_identity.store import GROUP_MEMBERS, GROUP_TRAITS, GROUPS

STRIPES = 8
"""Documents that hold the traits of one group, at most."""

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)


def group_key(workspace_id: str, group_id: str) -> str:
    """Database id of a group; group ids contain no control characters, so no separator."""
    return f"{workspace_id}{SEPARATOR}{group_id}"


def member_key(workspace_id: str, key: MemberKey) -> str:
    """Database id of a membership."""
    return f"{workspace_id}{SEPARATOR}{key.group_id}{SEPARATOR}{key.part}"


def stripe_key(workspace_id: str, group_id: str, stripe: int) -> str:
    """Database id of a stripe of a group's traits."""
    return f"{workspace_id}{SEPARATOR}{group_id}{SEPARATOR}{stripe % STRIPES}"


async def record(db: Database, session: Session, workspace_id: str, mentions: Sequence[Mention], stripe: int) -> None:
    """Write what events say about groups, inside the transaction of their micro-batch.

    Args:
        db: Database.
        session: The transaction.
        workspace_id: The workspace of all events.
        mentions: The events that name a group, in the recorded order.
        stripe: Number of the worker's stripe, any.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same, among others.
    """
    groups = await _load(db, session, workspace_id, mentions, stripe)
    known = frozenset(groups.members)
    fold(groups, mentions)
    members = [_member_write(workspace_id, key, groups.members[key], key in known) for key in groups.changed_members]
    if members:
        await db[GROUP_MEMBERS].bulk_write(members, ordered=False, session=session)
    if groups.changed_traits:
        stripes = [
            UpdateOne(
                {"_id": stripe_key(workspace_id, group_id, stripe)},
                {"$set": {"tr": [trait_row(name, trait) for name, trait in groups.traits[group_id].items()]}},
                upsert=True,
            )
            for group_id in groups.changed_traits
        ]
        await db[GROUP_TRAITS].bulk_write(stripes, ordered=False, session=session)
    if groups.new:
        made: list[Document] = [
            {"_id": group_key(workspace_id, group_id), "w": workspace_id, "c": groups.created[group_id]}
            for group_id in groups.new
        ]
        await db[GROUPS].insert_many(made, ordered=False, session=session)


async def _load(db: Database, session: Session, workspace_id: str, mentions: Sequence[Mention], stripe: int) -> Groups:
    """What the events touch. A group that has a known member is there already, and is not read."""
    groups = Groups()
    keys = {MemberKey(m.event.group_id, m.part) for m in mentions if m.part}
    if keys:
        query = {"_id": {"$in": [member_key(workspace_id, key) for key in keys]}}
        async for document in db[GROUP_MEMBERS].find(query, session=session):
            key = MemberKey(document["g"], document["p"])
            groups.members[key] = _membership(document)
            groups.created[key.group_id] = 0
    unknown = {m.event.group_id for m in mentions} - groups.created.keys()
    if unknown:
        by_key = {group_key(workspace_id, group_id): group_id for group_id in unknown}
        async for document in db[GROUPS].find({"_id": {"$in": list(by_key)}}, {"c": 1}, session=session):
            groups.created[by_key[document["_id"]]] = document["c"]
    described = {m.event.group_id for m in mentions if m.traits}
    if described:
        by_key = {stripe_key(workspace_id, group_id, stripe): group_id for group_id in described}
        async for document in db[GROUP_TRAITS].find({"_id": {"$in": list(by_key)}}, session=session):
            groups.traits[by_key[document["_id"]]] = traits_of_rows(document["tr"])
    return groups


def _member_write(
    workspace_id: str, key: MemberKey, membership: Membership, known: bool
) -> InsertOne[Document] | UpdateOne:
    fields: Document = {"t": membership.time_us, "m": membership.message_id, "s": membership.source_id}
    if known:
        return UpdateOne({"_id": member_key(workspace_id, key)}, {"$set": fields})
    return InsertOne(member_document(workspace_id, key, membership))


def member_document(workspace_id: str, key: MemberKey, membership: Membership) -> Document:
    """The stored form of a membership."""
    return {
        "_id": member_key(workspace_id, key),
        "w": workspace_id,
        "g": key.group_id,
        "p": key.part,
        "t": membership.time_us,
        "m": membership.message_id,
        "s": membership.source_id,
    }


async def stored_members(
    db: Database, session: Session, workspace_id: str, parts: Collection[str]
) -> dict[MemberKey, Membership]:
    """All memberships of some parts, in the snapshot of a transaction."""
    query = {"w": workspace_id, "p": {"$in": list(parts)}}
    cursor = db[GROUP_MEMBERS].find(query, session=session)
    return {MemberKey(d["g"], d["p"]): _membership(d) async for d in cursor}


def _membership(document: Mapping[str, Any]) -> Membership:
    return Membership(document["t"], document["m"], document["s"])


class Group(NamedTuple):
    """A group: its id, the sequence of its first event, its traits."""

    id: str
    created: int
    traits: dict[str, TraitValue]


class GroupReader:
    """Reads groups and who belongs to them."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db

    async def get(self, workspace_id: str, group_id: str) -> Group | None:
        """A group; None when no event named it."""
        document = await self._db[GROUPS].find_one({"_id": group_key(workspace_id, group_id), "w": workspace_id})
        if document is None:
            return None
        traits = await self._traits(workspace_id, [group_id])
        return Group(group_id, document["c"], traits.get(group_id, {}))

    async def page(self, workspace_id: str, prefix: str, after: str, limit: int) -> list[Group]:
        """Groups in order of their ids.

        Args:
            workspace_id: The workspace.
            prefix: Only groups whose id begins with this.
            after: Only groups after this one; "" from the first on.
            limit: At most this many.
        """
        start = group_key(workspace_id, max(prefix, after))
        bounds: Document = {"$gt" if after else "$gte": start, "$lt": f"{workspace_id}{_AFTER_SEPARATOR}"}
        if prefix:
            bounds["$lt"] = group_key(workspace_id, f"{prefix}\U0010ffff")
        cursor = self._db[GROUPS].find({"_id": bounds, "w": workspace_id}).sort("_id", ASCENDING).limit(limit)
        found = {d["_id"].partition(SEPARATOR)[2]: d["c"] async for d in cursor}
        traits = await self._traits(workspace_id, found)
        return [Group(group_id, created, traits.get(group_id, {})) for group_id, created in found.items()]

    async def parts(self, workspace_id: str, group_id: str, after: str, limit: int) -> list[str]:
        """Parts that belong to a group in order of their ids, those after one of them."""
        start, end = member_key(workspace_id, MemberKey(group_id, after)), _after_members(workspace_id, group_id)
        query = {"_id": {"$gt": start, "$lt": end}}
        cursor = self._db[GROUP_MEMBERS].find(query, {"p": 1}).sort("_id", ASCENDING).limit(limit)
        return [d["p"] async for d in cursor]

    async def count_parts(self, workspace_id: str, group_id: str) -> int:
        """Number of parts that belong to a group."""
        start, end = member_key(workspace_id, MemberKey(group_id, "")), _after_members(workspace_id, group_id)
        return int(await self._db[GROUP_MEMBERS].count_documents({"_id": {"$gt": start, "$lt": end}}))

    async def which_belong(self, workspace_id: str, group_id: str, parts: Collection[str]) -> set[str]:
        """Those of some parts that belong to a group."""
        keys = [member_key(workspace_id, MemberKey(group_id, part)) for part in parts]
        return {d["p"] async for d in self._db[GROUP_MEMBERS].find({"_id": {"$in": keys}}, {"p": 1})}

    async def of_parts(self, workspace_id: str, parts: Collection[str]) -> dict[str, list[tuple[str, Membership]]]:
        """Group id and membership of each part that belongs to any group."""
        found: dict[str, list[tuple[str, Membership]]] = {}
        async for document in self._db[GROUP_MEMBERS].find({"w": workspace_id, "p": {"$in": list(parts)}}):
            found.setdefault(document["p"], []).append((document["g"], _membership(document)))
        return found

    async def _traits(self, workspace_id: str, group_ids: Iterable[str]) -> dict[str, dict[str, TraitValue]]:
        by_key = {stripe_key(workspace_id, g, stripe): g for g in group_ids for stripe in range(STRIPES)}
        stripes: dict[str, list[dict[str, TraitValue]]] = {}
        if by_key:
            async for document in self._db[GROUP_TRAITS].find({"_id": {"$in": list(by_key)}}):
                stripes.setdefault(by_key[document["_id"]], []).append(traits_of_rows(document["tr"]))
        return {group_id: newest_traits(found) for group_id, found in stripes.items()}


def _after_members(workspace_id: str, group_id: str) -> str:
    return f"{workspace_id}{SEPARATOR}{group_id}{_AFTER_SEPARATOR}"
