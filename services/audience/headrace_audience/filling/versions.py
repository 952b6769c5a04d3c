"""New versions of the definitions of active audiences: computed beside, compared, then put in place.

A pending version lies in its audience's document. Replicas compute it like an audience of its own, of which nothing is
written; each owner of a partition that knows all its members counts who would enter, leave and stay. When all
partitions are counted, the version takes the place of the definition, or waits for somebody to confirm it when it moves
more people than may move unseen. Taking the place is one change of the document; its state is in the engines by then,
so what is left to do is to compare and to write the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database, Document
from headrace_audience.definitions.catalog import Audience
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import ACTIVE, AUDIENCES, COMPUTED, audience_key


@dataclass(frozen=True)
class Change:
    """What a new definition does to the members of an audience."""

    enter: int
    leave: int
    stay: int

    @property
    def share(self) -> float:
        """People who move, as a share of the members before; of an empty audience 1 when anybody enters."""
        before = self.leave + self.stay
        return self.moved / before if before else float(self.moved > 0)

    @property
    def moved(self) -> int:
        """People who move."""
        return self.enter + self.leave


@dataclass(frozen=True)
class Limits:
    """What may move without being confirmed."""

    share: float
    """Share of the members."""
    members: int
    """Fewer people than that may always move."""

    def hold(self, change: Change) -> bool:
        """Whether a change has to be confirmed."""
        return change.moved >= self.members and change.share > self.share


def pending(definition: str, number: int, naming: Mapping[str, Any]) -> Document:
    """What a document gets when a new version begins; a higher number is a newer version.

    `naming` is what is stored with a definition of the computed traits that it names.
    """
    version = {"def": definition, **naming, "gen": number, "at": now_us(), "parts": {}, "ready": False, "held": False}
    return {"pending": version}


def switched(document: Mapping[str, Any]) -> Document:
    """What a document gets when its pending version takes the place of its definition."""
    now = now_us()
    version = document["pending"]
    definition = version["def"]
    refresh_us = parse_definition(definition).refresh_us
    return {
        "state": ACTIVE,
        "def": definition,
        "traits": version["traits"],
        "computed": version["computed"],
        "declined": None,
        "pending": None,
        "gen": document["gen"] + 1,
        "rev": document["rev"] + 1,
        "cause": "definition",
        "at": now,
        "next": now + refresh_us if refresh_us else 0,
        "done": [],
        "open": True,
        "updated": now,
    }


def change_of(document: Mapping[str, Any]) -> Change | None:
    """What the pending version of a document does; None while it is being counted."""
    version = document["pending"]
    return Change(*map(sum, zip(*version["parts"].values(), strict=True))) if version["ready"] else None


async def record_counts(db: Database, version: Audience, counts: Mapping[int, tuple[int, int, int]]) -> None:
    """Record what was counted in partitions: how many enter, leave and stay."""
    counted: Document = {f"pending.parts.{partition}": list(count) for partition, count in counts.items()}
    await db[AUDIENCES].update_one(_query(version), {"$set": {**counted, "updated": now_us()}})


async def finish(db: Database, version: Audience, limits: Limits, total: int) -> bool:
    """Go on with a version that is counted in all partitions; doing it again changes nothing.

    Returns:
        Whether the document was changed.
    """
    query = _query(version)
    document = await db[AUDIENCES].find_one(query)
    if document is None or len(document["pending"]["parts"]) < total:
        return False
    if not document["pending"]["ready"]:
        document["pending"]["ready"] = True
        change = change_of(document)
        # Whom it moves was not told to who gave it: then nobody is moved unseen.
        is_unseen = bool(document["pending"].get("unseen"))
        held = change is not None and (limits.hold(change) or (is_unseen and change.moved > 0))
        now = now_us()
        marked: Document = {"pending.ready": True, "pending.held": held, "pending.counted": now, "updated": now}
        await db[AUDIENCES].update_one(query, {"$set": marked})
        if held:
            return True
    elif document["pending"]["held"]:
        return False
    query = {**query, "gen": document["gen"], "rev": document["rev"]}
    return bool((await db[AUDIENCES].update_one(query, {"$set": switched(document)})).modified_count)


def _query(version: Audience) -> Document:
    return {
        "_id": audience_key(version.workspace_id, version.version_of),
        "w": version.workspace_id,
        "state": {"$in": list(COMPUTED)},
        "pending.gen": version.generation,
    }
