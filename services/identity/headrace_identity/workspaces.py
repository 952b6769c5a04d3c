"""What holds for a whole workspace when an event is resolved: rules, and which versions of everything else.

One small document per workspace is read in each transaction. It holds the versions of what rarely changes, so that
what is behind a version is read once and kept for as long as the version is the stored one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headrace.storage.mongo.client import Database, Session
from headrace_identity.resolving.rules import Rules
from headrace_identity.rules_store import RulesStore
from headrace_identity.store import IDENTITY_WORKSPACES

Counter = Literal["l", "c", "t", "e"]
"""Fields that count: versions of links (l), of computed traits (c), of tombstones (t), and the epoch (e)."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace at the moment of a transaction's snapshot.

    Attributes:
        id: The workspace.
        rules_version: Version of the rules in force; 0 for the default rules.
        rules: The rules in force.
        links_version: Counts changes of manual links; 0 when there have never been any.
        computed_version: Counts changes of computed traits; 0 when there have never been any.
        tombstones_version: Counts changes of tombstones; 0 when there have never been any.
        epoch: Counts reassignments.
        closing_us: Until when micro-batches should not begin, in microseconds; see the module `gates`.
        rebuilt_version: Version of the rules by which the last rebuild resolved everything; -1 when there was none.
        rebuilt_sequence: Up to where in the recorded order it did.
    """

    id: str
    rules_version: int
    rules: Rules
    links_version: int = 0
    computed_version: int = 0
    tombstones_version: int = 0
    epoch: int = 0
    closing_us: int = 0
    rebuilt_version: int = -1
    rebuilt_sequence: int = 0


class Workspaces:
    """Reads workspaces."""

    def __init__(self, db: Database) -> None:
        """Read from a database."""
        self._db = db
        self.rules = RulesStore(db)

    async def read(self, workspace_id: str, session: Session | None = None) -> Workspace:
        """A workspace as it is now, or in the snapshot of a transaction."""
        document = await self._db[IDENTITY_WORKSPACES].find_one({"_id": workspace_id}, session=session) or {}
        version, rules = await self.rules.read(workspace_id, session)
        rebuilt = document.get("rb", (-1, 0))
        return Workspace(
            workspace_id,
            version,
            rules,
            links_version=document.get("l", 0),
            computed_version=document.get("c", 0),
            tombstones_version=document.get("t", 0),
            epoch=document.get("e", 0),
            closing_us=document.get("cl", 0),
            rebuilt_version=rebuilt[0],
            rebuilt_sequence=rebuilt[1],
        )


async def mark_rebuilt(db: Database, session: Session, workspace_id: str, version: int, sequence: int) -> None:
    """Say that all is as rules of a version make it up to a sequence, in a transaction that has closed the gates."""
    await db[IDENTITY_WORKSPACES].update_one(
        {"_id": workspace_id}, {"$set": {"rb": [version, sequence]}}, upsert=True, session=session
    )


async def count(db: Database, session: Session, workspace_id: str, counter: Counter) -> int:
    """Raise a counter of a workspace, in a transaction that has closed the gates; returns the new value."""
    document = await db[IDENTITY_WORKSPACES].find_one_and_update(
        {"_id": workspace_id}, {"$inc": {counter: 1}}, upsert=True, return_document=True, session=session
    )
    assert document is not None  # an upsert that returns the new document always has one
    return int(document[counter])
