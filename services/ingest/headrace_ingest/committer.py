"""Group commit: what concurrent requests bring is written together, and each learns whether it is durable.

One document per workspace and partition holds the events of a group; raw and refused messages go beside them.
A request is answered only after everything of it is on a majority and in the journal. When the outcome of
a write is unknown, nothing of the group is acknowledged: whoever sends again has the same message ids.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bson.errors import BSONError
from pymongo.errors import BulkWriteError, PyMongoError

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.identifiers import ANONYMOUS_ID, USER_ID
from headrace.domain.ids import partition_of
from headrace.rpc.errors import is_unavailable
from headrace.storage.mongo.client import Database, Document
from headrace.storage.mongo.log import DUPLICATE_KEY, Segment, append, segment_of
from headrace.telemetry import spans
from headrace.telemetry.logs import get_logger
from headrace_ingest import metrics
from headrace_ingest.store import REJECTED_MESSAGES, SOURCE_MESSAGES

log = get_logger(__name__)

MAX_SEGMENT_BYTES = 4 * 1024 * 1024
"""Bytes of the events in one segment, about: far below what one document may hold, whatever compression makes of it."""
_MAX_FAILURES = 3


class QueueFull(Exception):
    """Too much waits to be written: the sender should come again later."""


class NotWritten(Exception):
    """It is unknown or untrue that everything was written: nothing may be acknowledged."""


@dataclass(slots=True, eq=False)
class Work:
    """What one request wants to be durable.

    Attributes:
        events: Checked events.
        raw: Documents of raw messages.
        rejected: Documents of refused messages.
    """

    events: Sequence[Event] = ()
    raw: Sequence[Document] = ()
    rejected: Sequence[Document] = ()
    done: asyncio.Future[None] = field(init=False)

    @property
    def size(self) -> int:
        """Number of things to write."""
        return len(self.events) + len(self.raw) + len(self.rejected)


class Committer:
    """Writes works in groups."""

    def __init__(
        self,
        db: Database,
        *,
        partitions: int,
        on_committed: Callable[[list[Segment]], None],
        linger_s: float,
        max_events: int,
        parallel: int,
        timeout_s: float,
        queue_max: int,
    ) -> None:
        """Write to a database.

        Args:
            db: Database.
            partitions: Partitions of the events stream.
            on_committed: Told the segments that are durable; must not block.
            linger_s: How long the first work of a group waits for others, in seconds.
            max_events: Size of a group, about, and of a segment.
            parallel: Groups in flight at a time.
            timeout_s: After how long a write without an answer is given up, in seconds.
            queue_max: Things that may wait.
        """
        self._db = db
        self._partitions = partitions
        self._on_committed = on_committed
        self._linger_s = linger_s
        self._max_events = max_events
        self._timeout_s = timeout_s
        self._queue_max = queue_max
        self._queue: deque[Work] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._slots = asyncio.Semaphore(parallel)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Things that wait for a group."""
        return self._waiting

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run(), name="committer")

    async def close(self) -> None:
        """Write everything that waits, then stop."""
        self._closing = True
        self._arrived.set()
        self._enough.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def commit(self, work: Work) -> None:
        """Make a work durable; returns when it is.

        Raises:
            QueueFull: Too much waits already; nothing was written.
            NotWritten: The store did not say that everything is written.
        """
        size = work.size
        if not size:
            return
        if self._waiting + size > self._queue_max and self._waiting:
            raise QueueFull
        if self._closing:
            raise NotWritten
        work.done = asyncio.get_running_loop().create_future()
        self._queue.append(work)
        self._waiting += size
        self._arrived.set()
        if self._waiting >= self._max_events:
            self._enough.set()
        await work.done

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                continue
            if self._waiting < self._max_events and not self._closing and self._linger_s:
                self._enough.clear()
                try:
                    async with asyncio.timeout(self._linger_s):
                        await self._enough.wait()
                except TimeoutError:
                    pass  # nobody else came: a small group
            await self._slots.acquire()
            group = self._take()
            task = asyncio.create_task(self._write_and_tell(group))
            self._in_flight.add(task)
            task.add_done_callback(self._finished)

    def _take(self) -> list[Work]:
        group: list[Work] = []
        size = 0
        while self._queue and size < self._max_events:
            work = self._queue.popleft()
            size += work.size
            if not work.done.done():  # else the request went away while it waited
                group.append(work)
        self._waiting -= size
        return group

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._slots.release()

    async def _write_and_tell(self, group: list[Work]) -> None:
        try:
            await self._write_all(group)
        except Exception as error:
            log.exception("a group commit failed by a defect: nothing of it is acknowledged")
            _tell(group, error)  # whoever waits must not wait for ever

    async def _write_all(self, group: list[Work]) -> None:
        error = await self._write(group)
        if error is None or len(group) == 1 or isinstance(error, TimeoutError) or is_unavailable(error):
            _tell(group, error)
            return
        # The store is there and refused something, perhaps one document: that is not the others' fault. When it
        # refuses everything, as with a full disk, trying them all would help nobody.
        failures = 0
        for work in group:
            alone = await self._write([work]) if failures < _MAX_FAILURES else error
            failures = failures + 1 if alone is not None else 0
            _tell([work], alone)

    async def _write(self, group: list[Work]) -> Exception | None:
        """Write a group; returns what went wrong."""
        if not group:
            return None
        events = [event for work in group for event in work.events]
        segments = self._segments(events)
        raw = [document for work in group for document in work.raw]
        rejected = [document for work in group for document in work.rejected]
        started = time.perf_counter()
        failure: Exception | None = None
        with spans.batch_span("ingest.commit", [e.traceparent for e in events] if spans.tracing() else ()):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._insert(segments, raw, rejected)
            except (PyMongoError, BSONError, ValueError, TimeoutError) as error:
                failure = error
        seconds = time.perf_counter() - started
        if failure is None and seconds > 2 * self._timeout_s:
            # The process was stopped meanwhile: the sweeper may have passed these segments' ids already.
            failure = TimeoutError()
        metrics.commit_seconds.record(seconds, {"outcome": "failed" if failure else "written"})
        if failure is not None:
            level = log.warning if isinstance(failure, TimeoutError) or is_unavailable(failure) else log.error
            level("a group commit failed: nothing of it is acknowledged", events=len(events), failure=failure)
            return failure
        metrics.commit_events.record(len(events))
        metrics.tally.accepted(len(events))
        metrics.tally.report()
        if segments:
            self._on_committed(segments)
        return None

    async def _insert(self, segments: list[Segment], raw: list[Document], rejected: list[Document]) -> None:
        writes = []
        if segments:
            writes.append(append(self._db, segments))
        if raw:
            writes.append(_insert(self._db, SOURCE_MESSAGES, raw))
        if rejected:
            writes.append(_insert(self._db, REJECTED_MESSAGES, rejected))
        if len(writes) == 1:
            await writes[0]
        else:
            await asyncio.gather(*writes)

    def _segments(self, events: Iterable[Event]) -> list[Segment]:
        """The segments for events; each event is serialised once, for the log and for the stream."""
        tracing = spans.tracing()
        parts: defaultdict[tuple[str, int], list[Event]] = defaultdict(list)
        for event in events:
            key = partition_of(partition_key(event), self._partitions)
            parts[event.workspace_id, key].append(event)
        segments = []
        for (workspace_id, partition), part in parts.items():
            serialised = [event.SerializeToString() for event in part]
            for run in _runs(serialised, self._max_events):
                traceparents = [event.traceparent for event in part[run]] if tracing else ()
                segments.append(segment_of(workspace_id, partition, serialised[run], traceparents))
        return segments


def partition_key(event: Event) -> str:
    """What decides to which partition an event goes: the device, so that its events stay in order, else the user.

    Order is a convenience, not a need: identity resolves events in any order.
    """
    found = ""
    for identifier in event.identifiers:
        namespace = identifier.namespace
        if namespace == ANONYMOUS_ID:
            found = identifier.value
            break
        if not found or namespace == USER_ID:
            found = identifier.value
    return f"{event.workspace_id}\x1f{found or event.message_id}"


def _runs(serialised: Sequence[bytes], most: int) -> Iterable[slice]:
    """Runs of events that fit into one document, in order."""
    start = size = 0
    for index, event in enumerate(serialised):
        if index > start and (index - start >= most or size + len(event) > MAX_SEGMENT_BYTES):
            yield slice(start, index)
            start, size = index, 0
        size += len(event)
    if serialised:
        yield slice(start, len(serialised))


async def _insert(db: Database, collection: str, documents: list[Document]) -> None:
    try:
        await db[collection].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        # Ids are new and random: one that exists was written by an earlier try of the same group.
        if any(e["code"] != DUPLICATE_KEY for e in error.details["writeErrors"]):
            raise


def _tell(group: Iterable[Work], error: Exception | None) -> None:
    for work in group:
        if work.done.done():
            continue
        if error is None:
            work.done.set_result(None)
        else:
            failure = NotWritten()
            failure.__cause__ = error
            work.done.set_exception(failure)
