"""Following the profiles that change, by the streams of resolved events.

A watcher holds a position in every partition's stream. It is told which profiles may have changed, not how: it reads
them again, so being told twice is harmless. Streams keep a number of entries; who is further behind is told to read
everything again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from headrace.api.identity.v1.profile_pb2 import ResolvedBatch
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import Entry, Redis, edges, reaches_back, read_from
from headrace.telemetry import logs
from headrace_identity.store import survivors

_log = logs.get_logger(__name__)

_START = "0-0"
"""Position before the first entry of a stream."""
_BLOCK_MS = 1_000
_ENTRIES_AT_ONCE = 50
_CHECK_EVERY_S = 5.0
"""A stream loses entries only at its other end, which comes near only to who stands still, or is far behind."""
_SAY_SO_EVERY_S = 10.0

MOST_WATCHERS = 100
"""Watchers of one replica; each blocks a connection of Redis."""


class CursorExpired(Exception):
    """Entries after a position are no longer kept."""


class TooManyWatchers(Exception):
    """The replica has as many watchers as it takes."""


class Changes(NamedTuple):
    """Profiles that may have changed, in order, and the positions after which to go on, by partition."""

    profile_ids: list[str]
    positions: list[str]


class Watching:
    """Serves watchers from the streams."""

    def __init__(self, db: Database, redis: Redis, partitions: int, kept: int) -> None:
        """Read the streams of so many partitions, each of which keeps at least so many entries."""
        self._db = db
        self._redis = redis
        self._kept = kept
        self._streams = [names.resolved(p) for p in range(partitions)]
        self._watchers = 0
        self._closed = False

    def close(self) -> None:
        """End all watchers soon; each is told how far it came."""
        self._closed = True

    async def follow(
        self, workspace_id: str, wanted: Collection[str], positions: Sequence[str] | None
    ) -> AsyncIterator[Changes]:
        """Profiles that change, until `close`.

        The first answer comes at once, and an answer without profiles now and then, for their positions.

        Args:
            workspace_id: The workspace.
            wanted: Ids of the profiles to follow, and of those that they are merged into; empty means all.
            positions: Positions of an earlier answer; None means from now on.

        Raises:
            CursorExpired: Entries after the positions are no longer kept.
            TooManyWatchers: Try another replica, or later.
            redis.exceptions.RedisError: Go on after the last answer, later.
        """
        if self._watchers >= MOST_WATCHERS:
            raise TooManyWatchers
        self._watchers += 1
        try:
            async for changes in self._follow(workspace_id, wanted, positions):
                yield changes
        finally:
            self._watchers -= 1

    async def _follow(
        self, workspace_id: str, wanted: Collection[str], positions: Sequence[str] | None
    ) -> AsyncIterator[Changes]:
        if positions is None:
            found = await edges(self._redis, self._streams)
            here = {stream: last for stream, (_, last) in found.items()}
        elif len(positions) != len(self._streams):
            raise CursorExpired  # the partitions are other ones now
        else:
            here = dict(zip(self._streams, positions, strict=True))
        # After the positions are known: whoever is merged from now on is merged on the streams.
        concerned = {*wanted, *(await survivors(self._db, workspace_id, wanted)).values()} if wanted else None
        await self._check(here)
        yield Changes([], list(here.values()))
        checked = said = time.monotonic()
        is_behind = positions is not None
        while not self._closed:
            entries = await read_from(self._redis, here, count=_ENTRIES_AT_ONCE, block_ms=_BLOCK_MS)
            # After the reading: what is there from its positions on now was there then.
            if is_behind or time.monotonic() - checked > _CHECK_EVERY_S:
                await self._check(here)
                checked = time.monotonic()
            is_behind = len(entries) >= _ENTRIES_AT_ONCE
            for entry in entries:
                here[entry.stream] = entry.id
            changed = _changed(workspace_id, entries, concerned)
            if changed or time.monotonic() - said > _SAY_SO_EVERY_S:
                said = time.monotonic()
                yield Changes(changed, list(here.values()))

    async def _check(self, here: Mapping[str, str]) -> None:
        for stream, (first, last) in (await edges(self._redis, self._streams)).items():
            if here[stream] == _START and await self._redis.xlen(stream) < self._kept:
                continue  # nothing was ever trimmed
            if not reaches_back(here[stream], first, last):
                raise CursorExpired


def _changed(workspace_id: str, entries: Iterable[Entry], concerned: set[str] | None) -> list[str]:
    """Profiles that entries name; `concerned` gets those that a profile in it is merged into."""
    changed: dict[str, None] = {}  # keeps the order
    for entry in entries:
        try:
            batch = ResolvedBatch.FromString(entry.payload)
        except DecodeError:
            _log.warning("an entry of a stream cannot be read", stream=entry.stream, entry=entry.id)
            continue
        if batch.workspace_id != workspace_id:
            continue
        for merge in batch.merges:
            if concerned is not None and merge.loser in concerned:
                concerned.add(merge.survivor)
            changed.update({merge.loser: None, merge.survivor: None})
        for reassignment in batch.reassignments:
            if concerned is not None and reassignment.survivor and reassignment.profile_id in concerned:
                concerned.add(reassignment.survivor)
            changed[reassignment.profile_id] = None
        changed.update((event.profile_id, None) for event in batch.events if event.profile_id)
    return [p for p in changed if concerned is None or p in concerned]
