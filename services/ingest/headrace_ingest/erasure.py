"""Removes what ingest keeps about a person who is to be deleted.

- Segments: the person's events are emptied, the others keep their places. The deletion names the segments; those that
  are not resolved yet are looked through.
- Entries of the events streams: what identity has not read yet is sent again without the person's events.
- Raw webhook bodies and refused messages: by message id, and whatever mentions an identifier, in any form. A body that
  holds several people's records goes as a whole: their events are in the log.

Doing it again is harmless, and finds what came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.api.common.v1.event_pb2 import Event, EventBatch
from headrace.domain.ids import time_ordered_floor
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, rewrite
from headrace_ingest.mentions import Mentions
from headrace_ingest.store import REJECTED_MESSAGES, SOURCE_MESSAGES, waiting_segments
from headrace_ingest.tombstones import forms_of

STREAMS = "headrace:events"
"""Place of what waits on the events streams."""

_PAGE = 1_000
_BODIES = 100


@dataclass(frozen=True)
class Erased:
    """Whom to remove.

    Attributes:
        workspace_id: The workspace.
        identifiers: Identifiers of the person, normalised and as they came; none when only messages are named.
        message_ids: Message ids of the person's events.
        segment_ids: Segments that hold these.
    """

    workspace_id: str
    identifiers: Collection[tuple[str, str]]
    message_ids: Collection[str]
    segment_ids: Sequence[str]

    def is_theirs(self, event: Event) -> bool:
        """Whether an event is one of the person."""
        if event.message_id in self.message_ids:
            return True
        if not self.identifiers:
            return False
        return any(
            (i.namespace, form) in self.identifiers
            for i in event.identifiers
            for form in forms_of(i.namespace, i.value)
        )


class Eraser:
    """Removes people from what ingest keeps."""

    def __init__(self, db: Database, redis: Redis, *, event_partitions: int) -> None:
        """Work on the stores.

        Args:
            db: Database.
            redis: Redis.
            event_partitions: Number of events streams.
        """
        self._db = db
        self._redis = redis
        self._event_partitions = event_partitions

    async def erase(self, whom: Erased) -> dict[str, int]:
        """Remove everything about a person.

        Returns:
            Number of entries that went, by place.

        Raises:
            pymongo.errors.PyMongoError, redis.exceptions.RedisError: Not everything is gone: do it again.
        """
        counts = {
            "segments": await self._segments(whom),
            STREAMS: await self._streams(whom),
            SOURCE_MESSAGES: await self._by_message_id(SOURCE_MESSAGES, whom),
            REJECTED_MESSAGES: await self._by_message_id(REJECTED_MESSAGES, whom),
        }
        mentions = Mentions(whom.identifiers)
        if mentions:
            for collection in (SOURCE_MESSAGES, REJECTED_MESSAGES):
                counts[collection] += await self._mentioning(collection, whom.workspace_id, mentions)
        return counts

    async def _segments(self, whom: Erased) -> int:
        erased = 0
        for segment_id in whom.segment_ids:
            erased += await log.erase_events(self._db, segment_id, whom.is_theirs)
        if not whom.identifiers:
            return erased
        after, before = "", time_ordered_floor(now_us() + 60_000_000)
        while True:
            page, after = await waiting_segments(self._db, after, before, _PAGE)
            ids = [segment_id for segment_id, _ in page]
            query: Document = {"_id": {"$in": ids}, "w": whom.workspace_id}
            async for document in self._db[log.SEGMENTS].find(query, {"_id": 1}):
                erased += await log.erase_events(self._db, document["_id"], whom.is_theirs)
            if not after:
                return erased

    async def _streams(self, whom: Erased) -> int:
        erased = 0

        def without(payload: bytes) -> bytes | None:
            nonlocal erased
            try:
                batch = EventBatch.FromString(payload)
            except DecodeError:
                return None  # identity parks it
            if batch.workspace_id != whom.workspace_id:
                return None
            count = log.erase_from(batch, whom.is_theirs)
            erased += count
            return batch.SerializeToString() if count else None

        for partition in range(self._event_partitions):
            await rewrite(self._redis, names.events(partition), without, groups=(names.IDENTITY_GROUP,))
        return erased

    async def _by_message_id(self, collection: str, whom: Erased) -> int:
        removed = 0
        message_ids = list(whom.message_ids)
        for start in range(0, len(message_ids), _PAGE):
            some = message_ids[start : start + _PAGE]
            result = await self._db[collection].delete_many({"w": whom.workspace_id, "m": {"$in": some}})
            removed += result.deleted_count
        return removed

    async def _mentioning(self, collection: str, workspace_id: str, mentions: Mentions) -> int:
        removed = 0
        page: list[Document] = []
        cursor = self._db[collection].find({"w": workspace_id}, {"b": 1}).batch_size(_BODIES)
        async for document in cursor:
            page.append(document)
            if len(page) >= _BODIES:
                removed += await self._remove_mentioning(collection, workspace_id, page, mentions)
                page = []
        return removed + await self._remove_mentioning(collection, workspace_id, page, mentions)

    async def _remove_mentioning(
        self, collection: str, workspace_id: str, page: Sequence[Document], mentions: Mentions
    ) -> int:
        # Beside the loop: looking through a hundred bodies takes longer than events may wait.
        found = await asyncio.to_thread(lambda: [d["_id"] for d in page if mentions.in_body(bytes(d["b"]))])
        if not found:
            return 0
        result = await self._db[collection].delete_many({"_id": {"$in": found}, "w": workspace_id})
        return result.deleted_count
