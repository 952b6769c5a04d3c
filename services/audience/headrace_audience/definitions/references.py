"""What the batch evaluator needs to know of the audiences that a definition names."""

from __future__ import annotations

from collections.abc import Collection

from headrace.storage.mongo.client import Database, Document
from headrace_audience.batching import batched
from headrace_audience.definitions.stored import MEANING_FIELDS, keeps_members
from headrace_audience.definitions.unreadable import readable
from headrace_audience.language.definition import Definition
from headrace_audience.store import AUDIENCES, COMPUTED, MEMBERSHIPS, PAUSED, membership_key

Known = Definition | list[str]

_LOOKED_UP_AT_A_TIME = 1_000


async def referenced(db: Database, workspace_id: str, definition: Definition, *, only: str = "") -> dict[str, Known]:
    """Each audience that a definition names, directly or through others.

    Those that are computed by their definition; those that are not, because they are static, refreshed at intervals,
    paused, waiting for a new version or unreadable, by their stored members; drafts and archived ones have none. With
    `only` of the stored members none but this profile are told.
    """
    computed, stored = await meanings(db, workspace_id, definition)
    known: dict[str, Known] = dict(computed)
    for audience_id, is_filled in stored.items():
        known[audience_id] = await stored_members(db, workspace_id, audience_id, only) if is_filled else []
    return known


async def meanings(
    db: Database, workspace_id: str, definition: Definition
) -> tuple[dict[str, Definition], dict[str, bool]]:
    """What the audiences mean that a definition names, directly or through others, without reading who is in them.

    Returns:
        The definitions of those that are computed; and of those that go by their stored members whether they have any.
    """
    computed: dict[str, Definition] = {}
    stored: dict[str, bool] = {}
    waiting = set(definition.references)
    while waiting:
        query: Document = {"w": workspace_id, "a": {"$in": sorted(waiting)}, "state": {"$in": [*COMPUTED, PAUSED]}}
        found = {d["a"]: d async for d in db[AUDIENCES].find(query, {"a": 1, **MEANING_FIELDS})}
        following: set[str] = set()
        for audience_id in sorted(waiting):
            document = found.get(audience_id)
            named = readable(document) if document is not None else None
            if document is None or named is None or keeps_members(document) or not named.is_continuous:
                stored[audience_id] = document is not None
            else:
                computed[audience_id] = named
                following |= named.references
        waiting = following - computed.keys() - stored.keys()
    return computed, stored


async def stored_members(db: Database, workspace_id: str, audience_id: str, only: str = "") -> list[str]:
    """Profile ids of the members of an audience, as they are written; with `only` at most this one."""
    query: Document = {"w": workspace_id, "a": audience_id, "in": True, **({"p": only} if only else {})}
    return [d["p"] async for d in db[MEMBERSHIPS].find(query, {"_id": 0, "p": 1})]


async def stored_members_among(db: Database, workspace_id: str, audience_id: str, people: Collection[str]) -> list[str]:
    """Which of some profiles are members of an audience, as they are written."""
    found: list[str] = []
    for some in batched(people, _LOOKED_UP_AT_A_TIME):
        keys = [membership_key(workspace_id, audience_id, profile_id) for profile_id in some]
        query: Document = {"_id": {"$in": keys}, "in": True}
        found += [d["p"] async for d in db[MEMBERSHIPS].find(query, {"_id": 0, "p": 1})]
    return found


async def referenced_whole(db: Database, workspace_id: str, definition: Definition) -> dict[str, Known] | None:
    """The same, when none of the audiences whose stored members were read was being filled or refreshed meanwhile.

    Else None: half of the members may be those of before, and half those of after.
    """
    before = await _generations(db, workspace_id)
    known = await referenced(db, workspace_id, definition)
    after = await _generations(db, workspace_id)
    read = [audience_id for audience_id, meaning in known.items() if isinstance(meaning, list)]
    is_whole = all(before.get(a) == after.get(a) and not before.get(a, (0, False))[1] for a in read)
    return known if is_whole else None


async def _generations(db: Database, workspace_id: str) -> dict[str, tuple[int, bool]]:
    """The generation of each audience that is computed, and whether its members are being written for it."""
    query: Document = {"w": workspace_id, "a": {"$exists": True}, "state": {"$in": list(COMPUTED)}}
    fields = {"a": 1, "state": 1, "gen": 1, "open": 1, "pending.gen": 1}
    return {d["a"]: (d["gen"], d["open"] and not keeps_members(d)) async for d in db[AUDIENCES].find(query, fields)}
