"""Alarms: profiles at a cap, people with suspiciously many identifiers, values that many different people carry.

Each is written once per profile or value, and none by the micro-batch that notices it: that one only remembers, in
memory, and a loop looks and writes some seconds later. What a crash forgets is noticed again at the next occasion.

    identity_alarms  _id workspace + kind + profile or namespace + value, w workspace, k kind, p profile, n count,
                     i [namespace, value] for weak values, t when it was raised, expires
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pymongo import DESCENDING
from pymongo.errors import BulkWriteError

from headrace.storage.mongo.client import Database, Document, aggregate
from headrace.storage.mongo.log import DUPLICATE_KEY
from headrace.telemetry import logs, metrics
from headrace_identity.documents import SEPARATOR, identifier_key
from headrace_identity.emitter import Resolved
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.store import DEMOTIONS, IDENTITY_ALARMS, survivors

_log = logs.get_logger(__name__)

CAP_MERGES = "cap:merges"
CAP_IDENTIFIERS = "cap:identifiers"
SUPER_NODE = "super_node"
WEAK_VALUE = "weak_value"

ADVICE = {
    CAP_MERGES: "Look at what merged: a value that many people share belongs into `blocked` or wants a lower limit.",
    CAP_IDENTIFIERS: "Look at the identifiers: lower the limit of the namespace that has most, then rebuild.",
    SUPER_NODE: "Is this one person? If not, block or limit the value that ties several together, then rebuild.",
    WEAK_VALUE: "It may be a shared device or mailbox: block it, or set a policy for shared devices for its source.",
}
"""What to do about each kind of alarm."""


_EVERY_S = 2.0
_MOST_REMEMBERED = 100_000
_MOST_SUSPECTS = 5_000
_FORGET_S = 3_600

_raised = metrics.counter("headrace_identity_alarms", "Alarms that were raised, by kind.")


class Alarm(NamedTuple):
    """An alarm.

    Attributes:
        kind: One of the keys of ADVICE.
        profile_id: The profile, as it was; "" for a weak value.
        number: Identifiers, merges or people when it was raised.
        identifier: The value that many people carry, for weak values.
        raised_at: When it was raised.
    """

    kind: str
    profile_id: str
    number: int
    identifier: Identifier | None = None
    raised_at: datetime | None = None


class AlarmPosition(NamedTuple):
    """A place in the list of alarms, newest first."""

    raised_ms: int
    key: str


class Alarms:
    """Notices what deserves an alarm, and writes it."""

    def __init__(self, db: Database) -> None:
        """Write to a database."""
        self._db = db
        self._noticed: dict[str, tuple[str, Alarm]] = {}
        self._suspects: dict[str, tuple[str, Identifier, int]] = {}
        self._known: set[str] = set()
        self._forget_at = time.monotonic() + _FORGET_S

    def notice(
        self, workspace_id: str, rules: Rules, resolved: Iterable[Resolved], graph: Graph, changes: Changes
    ) -> None:
        """Look at a micro-batch that was committed; reads and writes nothing.

        Args:
            workspace_id: The workspace.
            rules: Its rules.
            resolved: The events with their decisions.
            graph: The graph after them.
            changes: What they changed in it.
        """
        for one in resolved:
            for aside in one.decision.set_aside:
                if aside.action != "demoted":
                    continue
                rule = aside.rule
                if rule in (CAP_MERGES, CAP_IDENTIFIERS) and one.profile_id:
                    # The event's own person, or who holds what was set aside: it is the larger one who is at the cap.
                    holder = graph.find((aside.identifier.namespace, aside.identifier.value))
                    counts = {
                        root.id: root.merges if rule == CAP_MERGES else len(root.identifiers)
                        for root in (graph.root(one.profile_id), holder)
                        if root is not None
                    }
                    largest = max(counts, key=lambda profile_id: counts[profile_id])
                    self._add(workspace_id, Alarm(rule, largest, counts[largest]))
                if not rule.startswith(("policy:", "apart:")):  # those are the cure, not the illness
                    self._suspect(workspace_id, (aside.identifier.namespace, aside.identifier.value), rules)
        for profile_id in changes.attached | changes.survivors:
            profile = graph.profiles[profile_id]
            if len(profile.identifiers) >= rules.alarm_identifiers and profile.merged_into is None:
                self._add(workspace_id, Alarm(SUPER_NODE, profile_id, len(profile.identifiers)))

    async def run(self) -> None:
        """Write alarms until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.write()
            except Exception:
                _log.exception("alarms wait because a store failed")

    async def write(self) -> None:
        """Write what was noticed since the last time."""
        if time.monotonic() > self._forget_at:
            self._known.clear()
            self._forget_at = time.monotonic() + _FORGET_S
        suspects, self._suspects = self._suspects, {}
        for workspace_id, alarm in await self._weak_values(suspects):
            self._add(workspace_id, alarm)
        noticed = dict(self._noticed)
        if noticed:
            now = datetime.now(UTC)
            await self._insert([_document(key, workspace_id, a, now) for key, (workspace_id, a) in noticed.items()])
        for key in noticed:
            del self._noticed[key]
            self._known.add(key)

    def _add(self, workspace_id: str, alarm: Alarm) -> None:
        key = _key(workspace_id, alarm)
        if key not in self._known and len(self._noticed) < _MOST_REMEMBERED:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._noticed.setdefault(key, (workspace_id, alarm))

    def _suspect(self, workspace_id: str, identifier: Identifier, rules: Rules) -> None:
        if len(self._suspects) < _MOST_SUSPECTS and _weak_key(workspace_id, identifier) not in self._known:
            key = identifier_key(workspace_id, identifier)
            self._suspects.setdefault(key, (workspace_id, identifier, rules.alarm_people))

    async def _weak_values(self, suspects: dict[str, tuple[str, Identifier, int]]) -> list[tuple[str, Alarm]]:
        """Those of the values for whose sake more different people had them demoted than the rules allow."""
        if not suspects:
            return []
        pipeline: list[Document] = [
            {"$match": {"k": {"$in": list(suspects)}}},
            {"$group": {"_id": "$k", "n": {"$sum": 1}}},
            {"$match": {"n": {"$gt": min(most for _, _, most in suspects.values())}}},
        ]
        found: list[tuple[str, Alarm]] = []
        async for document in aggregate(self._db[DEMOTIONS], pipeline):
            workspace_id, identifier, most = suspects[document["_id"]]
            if document["n"] <= most:
                continue
            parts = {d["p"] async for d in self._db[DEMOTIONS].find({"k": document["_id"]}, {"p": 1})}
            moved = await survivors(self._db, workspace_id, parts)
            people = len({moved.get(part, part) for part in parts})
            if people > most:
                found.append((workspace_id, Alarm(WEAK_VALUE, "", people, identifier)))
        return found

    async def _insert(self, documents: Sequence[Document]) -> None:
        raised = {d["_id"]: d for d in documents}
        try:
            await self._db[IDENTITY_ALARMS].insert_many(documents, ordered=False)
        except BulkWriteError as error:
            for failure in error.details["writeErrors"]:
                if failure["code"] != DUPLICATE_KEY:
                    raise
                del raised[documents[failure["index"]]["_id"]]
        for document in raised.values():
            _raised.add(1, {"kind": document["k"]})
            _log.warning("an identity alarm", workspace=document["w"], kind=document["k"], count=document["n"])


async def page(
    db: Database, workspace_id: str, before: AlarmPosition | None, limit: int
) -> list[tuple[Alarm, AlarmPosition]]:
    """Alarms of a workspace, newest first, those after a position."""
    query: Document = {"w": workspace_id}
    if before is not None:
        moment = datetime.fromtimestamp(before.raised_ms / 1_000, UTC)
        query["$or"] = [{"t": {"$lt": moment}}, {"t": moment, "_id": {"$lt": before.key}}]
    cursor = db[IDENTITY_ALARMS].find(query).sort([("t", DESCENDING), ("_id", DESCENDING)]).limit(limit)
    return [
        (
            Alarm(d["k"], d["p"], d["n"], tuple(d["i"]) if d["i"] else None, d["t"]),
            AlarmPosition(round(d["t"].timestamp() * 1_000), d["_id"]),
        )
        async for d in cursor
    ]


def _key(workspace_id: str, alarm: Alarm) -> str:
    if alarm.identifier is not None:
        return _weak_key(workspace_id, alarm.identifier)
    return SEPARATOR.join((workspace_id, alarm.kind, alarm.profile_id))


def _weak_key(workspace_id: str, identifier: Identifier) -> str:
    return SEPARATOR.join((workspace_id, WEAK_VALUE, *identifier))


def _document(key: str, workspace_id: str, alarm: Alarm, now: datetime) -> Document:
    return {
        "_id": key,
        "w": workspace_id,
        "k": alarm.kind,
        "p": alarm.profile_id,
        "n": alarm.number,
        "i": list(alarm.identifier) if alarm.identifier is not None else None,
        "t": now,
    }
