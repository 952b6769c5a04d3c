"""Collections of the identity service: loading the part of the graph that a micro-batch touches, writing what changed.

Everything here that takes a session runs inside the snapshot transaction of a micro-batch (ADR 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne

from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.documents import (
    consents_field,
    identifier_key,
    identifiers_field,
    merged_fields,
    merges_fields,
    profile_document,
    profile_from,
    profile_key,
    profile_of_key,
    traits_fields,
)
from headrace_identity.resolving.graph import Changes, Graph, Profile
from headrace_identity.resolving.links import NO_LINKS, Links
from headrace_identity.resolving.resolver import Prepared
from headrace_identity.resolving.rules import Identifier

PROFILES = "profiles"
IDENTIFIERS = "identifiers"
IDENTITY_RULES = "identity_rules"
IDENTITY_RULES_HISTORY = "identity_rules_history"
IDENTITY_WORKSPACES = "identity_workspaces"
IDENTITY_REBUILDS = "identity_rebuilds"
IDENTITY_ALARMS = "identity_alarms"
IDENTITY_GATES = "identity_gates"
IDENTITY_LINKS = "identity_links"
DEMOTIONS = "demotions"
PARKED_EVENTS = "parked_events"
TOMBSTONES = "tombstones"
DELETIONS = "deletions"
DELETION_KEYS = "deletion_keys"
REFUSED_COUNTS = "refused_counts"
GROUPS = "groups"
GROUP_TRAITS = "group_traits"
GROUP_MEMBERS = "group_members"
COMPUTED_TRAITS = "computed_traits"
COMPUTED_TRAIT_REMOVALS = "computed_trait_removals"
COMPUTED_VALUES = "computed_values"

TRAIT_TERMS = "trait_terms"
"""Name of the index that traits are searched by."""

_MERGED = "merged"

INDEXES: dict[str, list[IndexModel]] = {
    PROFILES: [
        # Only merged profiles stand in it, so asking a thousand profiles whether they were merged reads no profile.
        IndexModel(
            [("_id", ASCENDING), ("into", ASCENDING)],
            name=_MERGED,
            partialFilterExpression={"into": {"$exists": True}},
        ),
        IndexModel(
            [("w", ASCENDING), ("ms", DESCENDING), ("_id", DESCENDING)],
            name="merges",
            partialFilterExpression={"into": {"$exists": True}},
        ),
        IndexModel(
            [("w", ASCENDING), ("s", ASCENDING), ("_id", ASCENDING)],
            name=TRAIT_TERMS,
            partialFilterExpression={"s": {"$exists": True}},
        ),
    ],
    IDENTITY_REBUILDS: [
        # The field is there only while a rebuild runs, so that a workspace has one at a time.
        IndexModel([("rw", ASCENDING)], name="running", unique=True, partialFilterExpression={"rw": {"$exists": True}}),
        IndexModel([("a", ASCENDING)], name="active", partialFilterExpression={"a": {"$exists": True}}),
        IndexModel([("te", ASCENDING)], name="expire", expireAfterSeconds=30 * 24 * 3600),
    ],
    IDENTITY_ALARMS: [
        IndexModel([("w", ASCENDING), ("t", DESCENDING), ("_id", DESCENDING)], name="newest"),
        IndexModel([("t", ASCENDING)], name="expire", expireAfterSeconds=90 * 24 * 3600),
    ],
    GROUP_MEMBERS: [IndexModel([("w", ASCENDING), ("p", ASCENDING)], name="part")],
    IDENTITY_LINKS: [IndexModel([("w", ASCENDING), ("u", ASCENDING)], name="undone_merges")],
    DEMOTIONS: [IndexModel([("k", ASCENDING)], name="identifier")],
    PARKED_EVENTS: [IndexModel([("w", ASCENDING), ("_id", ASCENDING)], name="workspace")],
    COMPUTED_TRAITS: [
        IndexModel([("st", ASCENDING)], name="filling", partialFilterExpression={"st": "filling"}),
    ],
    COMPUTED_VALUES: [
        IndexModel([("p", ASCENDING)], name="part"),
        # MongoDB itself removes days that no window can reach any more.
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
    TOMBSTONES: [
        IndexModel([("w", ASCENDING), ("s", ASCENDING)], name="workspace_changes"),
        IndexModel([("s", ASCENDING), ("_id", ASCENDING)], name="changes"),
        IndexModel([("w", ASCENDING), ("of", ASCENDING)], name="forms"),
    ],
    DELETIONS: [
        IndexModel([("w", ASCENDING), ("_id", ASCENDING)], name="workspace"),
        IndexModel([("s", ASCENDING), ("next", ASCENDING)], name="due"),
        # One person has one deletion at a time; those that are over have no such field.
        IndexModel(
            [("w", ASCENDING), ("who", ASCENDING)],
            name="person",
            unique=True,
            partialFilterExpression={"who": {"$exists": True}},
        ),
    ],
    REFUSED_COUNTS: [
        IndexModel([("w", ASCENDING), ("_id", ASCENDING)], name="workspace"),
        IndexModel([("x", ASCENDING)], name="expire", expireAfterSeconds=0),
    ],
}
"""Indexes beside those on _id; made by `headrace admin indexes`."""


class MissingProfile(Exception):
    """A profile that others point to is not stored: the store was damaged from outside."""


@dataclass(slots=True)
class Loaded:
    """The graph that a micro-batch touches.

    Attributes:
        graph: Profiles and holders.
        stored: Identifiers that have a document: those that somebody holds, or whose absence another event relied on.
    """

    graph: Graph = field(default_factory=Graph)
    stored: set[Identifier] = field(default_factory=set)


async def load(
    db: Database, session: Session, workspace_id: str, events: Sequence[Prepared], links: Links = NO_LINKS
) -> Loaded:
    """Load what these events touch: who holds their identifiers, and the profiles that they may change.

    Who holds what these identifiers are forced together with is loaded too.

    Most events find one profile by identifiers that it has already, and set no trait. For those the id of the
    profile is all that resolving asks for, so the profile is not read unless another event needs it.

    Raises:
        MissingProfile: A pointer leads nowhere.
    """
    loaded = Loaded()
    graph = loaded.graph
    mentioned = {i for e in events for i in (*e.identifiers, *e.previous)}
    mentioned.update([partner for i in mentioned for partner in links.partners(i)] if links else ())
    by_key = {identifier_key(workspace_id, i): i for i in mentioned}
    if not by_key:
        return loaded
    found = await db[IDENTIFIERS].find({"_id": {"$in": list(by_key)}}, {"p": 1}, session=session).to_list(None)
    for document in found:
        identifier = by_key[document["_id"]]
        loaded.stored.add(identifier)
        if document["p"]:
            graph.holders[identifier] = document["p"]
    parts = set(graph.holders.values())
    moved = await survivors(db, workspace_id, parts, session) if parts else {}
    for part in parts | set(moved.values()):
        graph.profiles[part] = Profile(part, created=0, parts=[part], merged_into=moved.get(part))
    needed = _to_be_read(events, graph, links)
    if needed:
        keys = [profile_key(workspace_id, p) for p in needed]
        documents = await db[PROFILES].find({"_id": {"$in": keys}}, session=session).to_list(None)
        if len(documents) != len(needed):
            raise MissingProfile
        for document in documents:
            profile = profile_from(document)
            graph.profiles[profile.id] = profile
    return loaded


def _to_be_read(events: Sequence[Prepared], graph: Graph, links: Links) -> set[str]:
    """Ids of the profiles that resolving these events may look into or change."""
    needed: set[str] = set()
    for event in events:
        roots = {root.id if (root := graph.find(i)) is not None else "" for i in event.identifiers}
        if links:
            found = [
                graph.find(partner) for i in (*event.identifiers, *event.previous) for partner in links.partners(i)
            ]
            roots.update(root.id for root in found if root is not None)
        if len(roots) > 1 or event.traits or event.consents or event.previous or event.policy is not None:
            needed |= roots
            needed.update(root.id for i in event.previous if (root := graph.find(i)) is not None)
    needed.discard("")
    return needed


async def write(db: Database, session: Session, workspace_id: str, loaded: Loaded, changes: Changes) -> None:
    """Write what resolving changed: one write per profile, one per identifier.

    Raises:
        pymongo.errors.PyMongoError: Another transaction changed the same, among others.
        MissingProfile: A profile to be changed is not stored.
    """
    profile_writes, updates = _profile_writes(workspace_id, loaded.graph, changes)
    if profile_writes:
        result = await db[PROFILES].bulk_write(profile_writes, ordered=False, session=session)
        if result.matched_count != updates:
            raise MissingProfile
    identifier_writes = _identifier_writes(workspace_id, loaded, changes)
    if identifier_writes:
        await db[IDENTIFIERS].bulk_write(identifier_writes, ordered=False, session=session)


def _profile_writes(
    workspace_id: str, graph: Graph, changes: Changes
) -> tuple[list[InsertOne[Document] | UpdateOne], int]:
    writes: list[InsertOne[Document] | UpdateOne] = [
        InsertOne(profile_document(workspace_id, graph.profiles[p])) for p in changes.created
    ]
    created = len(writes)
    changed = changes.attached | changes.traits | changes.consents | changes.survivors
    changed |= changes.merged | changes.watched
    for profile_id in changed - changes.created:
        profile = graph.profiles[profile_id]
        fields: Document = {}
        if profile_id in changes.attached or profile_id in changes.survivors:
            fields["ids"] = identifiers_field(profile)
        if profile_id in changes.traits:
            fields |= traits_fields(profile)
        if profile_id in changes.consents:
            fields["co"] = consents_field(profile)
        if profile_id in changes.survivors:
            fields |= merges_fields(profile)
        if profile_id in changes.merged:
            fields |= merged_fields(profile)
        # A profile that is only watched gets a write that changes nothing, so that whoever changes it conflicts.
        update: Document = {"$set": fields} if fields else {"$inc": {"g": 1}}
        writes.append(UpdateOne({"_id": profile_key(workspace_id, profile_id)}, update))
    return writes, len(writes) - created


def _identifier_writes(workspace_id: str, loaded: Loaded, changes: Changes) -> list[InsertOne[Document] | UpdateOne]:
    writes: list[InsertOne[Document] | UpdateOne] = []
    for identifier, holder in changes.identifiers.items():
        key = identifier_key(workspace_id, identifier)
        if identifier in loaded.stored:
            writes.append(UpdateOne({"_id": key}, {"$set": {"p": holder}}))
        else:
            writes.append(InsertOne({"_id": key, "p": holder}))
    for identifier in changes.absent - changes.identifiers.keys():
        # Whoever adds it at the same time inserts or updates this document too, and one of the two conflicts.
        key = identifier_key(workspace_id, identifier)
        writes.append(UpdateOne({"_id": key}, {"$inc": {"g": 1}, "$setOnInsert": {"p": ""}}, upsert=True))
    for identifier in changes.relied - changes.identifiers.keys():
        writes.append(UpdateOne({"_id": identifier_key(workspace_id, identifier)}, {"$inc": {"g": 1}}))
    return writes


async def survivors(
    db: Database, workspace_id: str, profile_ids: Iterable[str], session: Session | None = None
) -> dict[str, str]:
    """Which of these profiles have been merged, and what each is now; those that have not are left out."""
    pointers: dict[str, str] = {}
    wanted = set(profile_ids)
    while wanted:
        keys = [profile_key(workspace_id, p) for p in wanted]
        query = {"_id": {"$in": keys}, "into": {"$exists": True}}
        cursor = db[PROFILES].find(query, {"into": 1}, hint=_MERGED, session=session)
        found = {profile_of_key(d["_id"]): d["into"] async for d in cursor}
        pointers |= found
        wanted = set(found.values()) - pointers.keys()
    return {p: _end(pointers, p) for p in pointers}


def _end(pointers: dict[str, str], profile_id: str) -> str:
    while profile_id in pointers:
        profile_id = pointers[profile_id]
    return profile_id
