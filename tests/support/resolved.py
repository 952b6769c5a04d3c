"""Resolved events and merges as identity makes them: stored in the log, sent on the streams of their partitions."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo.errors import BulkWriteError

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.api.identity.v1.profile_pb2 import Decision, DecisionAction, Merge, ResolvedBatch, ResolvedEvent
from headrace.domain.ids import partition_of
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from headrace.storage.streams import names

_numbers = itertools.count(1)

KINDS = {
    "track": EventKind.EVENT_KIND_TRACK,
    "identify": EventKind.EVENT_KIND_IDENTIFY,
    "page": EventKind.EVENT_KIND_PAGE,
    "group": EventKind.EVENT_KIND_GROUP,
}


def event(
    profile_id: str,
    name: str = "",
    *,
    at_us: int | None = None,
    workspace_id: str = "acme",
    message_id: str = "",
    kind: str = "",
    properties: Mapping[str, Any] | None = None,
    traits: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    identifiers: Sequence[tuple[str, str]] = (),
    merges: Iterable[Merge] = (),
    traceparent: str = "",
) -> ResolvedEvent:
    """An event of a profile; without a name it is an identify event. The sequence is given when it is stored."""
    now = now_us()
    merged = list(merges)
    return ResolvedEvent(
        event=Event(
            message_id=message_id or f"m{next(_numbers)}",
            workspace_id=workspace_id,
            source_id="web",
            kind=KINDS[kind or ("track" if name else "identify")],
            name=name,
            properties=json.dumps(properties).encode() if properties else b"",
            traits=json.dumps(traits).encode() if traits else b"",
            context=json.dumps(context).encode() if context else b"",
            received_at_us=now,
            timestamp_us=now if at_us is None else at_us,
            traceparent=traceparent,
        ),
        profile_id=profile_id,
        decision=Decision(
            action=DecisionAction.DECISION_ACTION_MERGED if merged else DecisionAction.DECISION_ACTION_ATTACHED,
            identifiers=[Identifier(namespace=n, value=v) for n, v in identifiers],
            merges=merged,
        ),
        resolved_at_us=now,
        traceparent=traceparent,
    )


class FakeIdentity:
    """Stores resolved events as identity does and sends them on; knows who was merged into whom."""

    def __init__(self, db: Database, redis: streams.Redis, partitions: int) -> None:
        self.db = db
        self.redis = redis
        self.partitions = partitions
        self.parts: dict[str, list[str]] = {}
        self.into: dict[str, str] = {}
        self.stored: list[ResolvedEvent] = []

    def survivor(self, profile_id: str) -> str:
        while profile_id in self.into:
            profile_id = self.into[profile_id]
        return profile_id

    def merge(self, loser: str, survivor: str) -> Merge:
        """Decide on a merge; it takes effect when an event that carries it is stored."""
        loser_parts = [loser, *self.parts.get(loser, [])]
        self.into[loser] = survivor
        self.parts.setdefault(survivor, []).extend(loser_parts)
        return Merge(loser=loser, survivor=survivor, loser_parts=loser_parts)

    async def store(self, events: Sequence[ResolvedEvent]) -> None:
        """Commit events to the log, in order; those that are stored already stay as they are."""
        if not events:
            return
        first = await log.next_sequence(self.db, len(events), now_us())
        for offset, resolved in enumerate(events):
            resolved.decision.sequence = first + offset
        try:
            await self.db[log.EVENTS].insert_many([log.event_document(e) for e in events], ordered=False)
        except BulkWriteError as error:
            if any(e["code"] != log.DUPLICATE_KEY for e in error.details["writeErrors"]):
                raise
        self.stored += events

    async def send(self, events: Sequence[ResolvedEvent]) -> None:
        """Send stored events on, to the partitions of the survivors, and merges to those of both."""
        batches: dict[tuple[str, int], ResolvedBatch] = defaultdict(ResolvedBatch)
        for resolved in events:
            workspace_id = resolved.event.workspace_id
            sent = ResolvedEvent()
            sent.CopyFrom(resolved)
            sent.profile_id = self.survivor(resolved.profile_id)
            key = sent.profile_id or resolved.event.message_id
            batches[workspace_id, partition_of(key, self.partitions)].events.append(sent)
            for merge in resolved.decision.merges:
                for partition in {partition_of(p, self.partitions) for p in (merge.loser, merge.survivor)}:
                    batches[workspace_id, partition].merges.append(merge)
        messages = []
        for (workspace_id, partition), batch in batches.items():
            batch.workspace_id = workspace_id
            batch.partition = partition
            messages.append((names.resolved(partition), batch.SerializeToString()))
        await streams.send(self.redis, messages, max_length=10_000)

    async def resolve(self, *events: ResolvedEvent) -> None:
        """Store events and send them on."""
        await self.store(events)
        await self.send(events)
