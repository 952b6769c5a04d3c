"""Who else carried an identifier: parts whose events had it demoted, or that had to hand it over.

A look-up by identifier finds only its holder. Whoever resolves events anew must find everybody whose events carried an
identifier, so each part with such an event is remembered, once per identifier and part.

    demotions  _id workspace + namespace + value + part, k workspace + namespace + value, p part
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pymongo import UpdateOne

from headrace.api.identity.v1.profile_pb2 import Decision
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.documents import SEPARATOR, identifier_key
from headrace_identity.resolving.rules import Identifier
from headrace_identity.store import DEMOTIONS

Demotion = tuple[Identifier, str]
"""An identifier and a part that carried it without holding it."""


def demotions_of(profile_id: str, decision: Decision) -> Iterator[Demotion]:
    """The demotions in a decision.

    Args:
        profile_id: The part to which the event belongs.
        decision: The decision.
    """
    for aside in decision.set_aside:
        if aside.action == "demoted" and profile_id:
            yield (aside.identifier.namespace, aside.identifier.value), profile_id
    for handover in decision.handovers:
        yield (handover.identifier.namespace, handover.identifier.value), handover.from_profile


async def add(db: Database, session: Session, workspace_id: str, demotions: Iterable[Demotion]) -> None:
    """Remember demotions; those that are known already change nothing, and conflict with nobody."""
    writes = [
        UpdateOne(
            {"_id": _key(workspace_id, demotion)},
            {"$setOnInsert": {"k": identifier_key(workspace_id, demotion[0]), "p": demotion[1]}},
            upsert=True,
        )
        for demotion in sorted(set(demotions))
    ]
    if writes:
        await db[DEMOTIONS].bulk_write(writes, ordered=False, session=session)


async def find(
    db: Database,
    session: Session | None,
    workspace_id: str,
    identifiers: Collection[Identifier],
    *,
    parts: Collection[str] | None = None,
) -> set[Demotion]:
    """All demotions of these identifiers; only by these parts, when they are given."""
    by_key = {identifier_key(workspace_id, i): i for i in identifiers}
    if not by_key:
        return set()
    query: Document = {"k": {"$in": list(by_key)}}
    if parts is not None:
        query["p"] = {"$in": list(parts)}
    cursor = db[DEMOTIONS].find(query, session=session)
    return {(by_key[d["k"]], d["p"]) async for d in cursor}


async def remove(db: Database, session: Session, workspace_id: str, demotions: Iterable[Demotion]) -> None:
    """Forget demotions."""
    keys = [_key(workspace_id, demotion) for demotion in demotions]
    if keys:
        await db[DEMOTIONS].delete_many({"_id": {"$in": keys}}, session=session)


def _key(workspace_id: str, demotion: Demotion) -> str:
    identifier, part = demotion
    return f"{identifier_key(workspace_id, identifier)}{SEPARATOR}{part}"
