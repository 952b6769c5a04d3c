"""Announces reassignments: what is committed in the log goes to the resolved streams of the partitions concerned.

The log is the outbox. What is sent is marked; what was sent and not marked, because something ended in between, is sent
again, which is harmless: reassignments carry their epoch. When Redis forgets what it was sent, consumers read the log.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from headrace.api.identity.v1.profile_pb2 import Reassignment, ResolvedBatch
from headrace.domain.ids import partition_of
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database
from headrace.storage.mongo.log import StoredReassignment
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis, send
from headrace.telemetry import logs
from headrace_identity.consumer import Sending
from headrace_identity.worker import AtStep, no_step

_log = logs.get_logger(__name__)

_EVERY_S = 1.0
_AT_A_TIME = 20
_PROFILES_A_MESSAGE = 200


class Outbox:
    """Sends reassignments, in the recorded order."""

    def __init__(self, db: Database, redis: Redis, sending: Sending, *, at_step: AtStep = no_step) -> None:
        """Send from a database to a Redis."""
        self._db = db
        self._redis = redis
        self._sending = sending
        self._at_step = at_step
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at once: something was committed."""
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled; at the latest a second after a commit anywhere."""
        while True:
            self._woken.clear()
            try:
                while await self.send():
                    pass
            except Exception:
                _log.exception("reassignments wait because a store failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._woken.wait()

    async def send(self) -> int:
        """Send some of what is not sent; returns how many reassignments that were."""
        unsent = await log.unsent_reassignments(self._db, _AT_A_TIME)
        if unsent:
            await send(self._redis, messages(unsent, self._sending.partitions), max_length=self._sending.stream_entries)
            await self._at_step("sent")
            await log.mark_sent(self._db, unsent)
        return len(unsent)


def messages(reassignments: Sequence[StoredReassignment], partitions: int) -> list[tuple[str, bytes]]:
    """The stream messages for reassignments, in their order: (stream, ResolvedBatch) pairs."""
    made: list[tuple[str, bytes]] = []
    for one in reassignments:
        by_partition: dict[int, list[Reassignment]] = defaultdict(list)
        for item in one.items:
            by_partition[partition_of(item.profile_id, partitions)].append(
                Reassignment(
                    profile_id=item.profile_id,
                    parts=item.parts,
                    survivor=item.survivor,
                    epoch=one.epoch,
                    erased=one.erased,
                )
            )
        for partition, items in sorted(by_partition.items()):
            for start in range(0, len(items), _PROFILES_A_MESSAGE):
                batch = ResolvedBatch(
                    workspace_id=one.workspace_id,
                    partition=partition,
                    reassignments=items[start : start + _PROFILES_A_MESSAGE],
                )
                made.append((names.resolved(partition), batch.SerializeToString()))
    return made
