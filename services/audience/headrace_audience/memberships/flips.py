"""Writes changes of memberships: rows, history and fencing in one transaction, then the changes stream.

Each transaction of a partition takes a *flush number* (a hybrid clock, increasing per partition) and writes it to the
partition's head document, which also carries the fencing token of the lease: a writer whose lease has gone elsewhere
finds another token there and writes nothing. History rows carry the flush number and are the outbox: what was flushed
and not sent is sent later, by whoever owns the partition then.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter

from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from redis.exceptions import RedisError

from headrace.api.audience.v1.audience_pb2 import MembershipChangeBatch
from headrace.domain.ids import partition_of
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Client, Database, Document, transaction
from headrace.storage.mongo.log import DUPLICATE_KEY
from headrace.storage.streams import client as streams
from headrace.storage.streams import names
from headrace.telemetry import logs, metrics
from headrace_audience.engine.engine import Flip
from headrace_audience.memberships.flip_rows import Placed, Stamp, what_changes
from headrace_audience.store import (
    CHANGES,
    MEMBERSHIPS,
    SEPARATOR,
    SNAPSHOTS,
    change_key,
    change_message,
    membership_key,
)

log = logs.get_logger(__name__)

CHANGES_MAX_LENGTH = 100_000
CHANGES_PER_MESSAGE = 1_000
ROWS_PER_TRANSACTION = 1_000
LANES = 4
"""So many transactions, of different partitions, are in flight at a time when many flips wait: a store with several
processors writes them side by side."""
ATTEMPTS = 8
UNSENT_AT_A_TIME = 10 * ROWS_PER_TRANSACTION
"""Changes that are sent late are read so many at a time: more than a transaction has, so that each reading comes to the
end of one."""

_flips = metrics.counter("headrace_audience_flips", "Changes of memberships written, by cause.")


class FencedError(Exception):
    """Other replicas own these partitions now; nothing was written for anybody."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"partitions {sorted(self.partitions)} have a newer owner")


@dataclass(frozen=True)
class _Batch:
    """What is the same for all flips of a call."""

    workspace_id: str
    version_base: Mapping[str, int]
    moment_us: int


@dataclass
class _Recorded:
    """What transactions in flight together have committed."""

    history: list[tuple[int, Document]] = field(default_factory=list)
    """Each change with the place of its flip."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The flush number by partition."""


class FlipWriter:
    """Writes the flips of the partitions that this replica owns."""

    def __init__(self, client: Client, db: Database, redis: streams.Redis, partitions: int) -> None:
        self._client = client
        self._db = db
        self._redis = redis
        self._partitions = partitions
        self._tokens: dict[int, int] = {}
        self._flushed: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._sent_stored: dict[int, int] = {}
        self._unsent: set[int] = set()

    async def claim(self, tokens: Mapping[int, int]) -> None:
        """Become the writer of partitions under the tokens of their leases.

        From then on no owner with an older token can write. Raises FencedError when a newer owner was here already.
        """
        heads = self._db[SNAPSHOTS]
        fenced: list[int] = []
        for partition, token in tokens.items():
            try:
                head = await heads.find_one_and_update(
                    {"_id": head_key(partition), "token": {"$lte": token}},
                    {"$set": {"token": token}, "$setOnInsert": {"f": 0, "sent": 0}},
                    upsert=True,
                    return_document=True,
                )
            except DuplicateKeyError:
                fenced.append(partition)
                continue
            assert head is not None  # an upsert that returns the new document always has one
            self._tokens[partition] = token
            self._flushed[partition] = head["f"]
            self._sent[partition] = self._sent_stored[partition] = head["sent"]
            if head["f"] > head["sent"]:
                self._unsent.add(partition)
        if fenced:
            raise FencedError(fenced)

    def forget(self, partition: int) -> None:
        """Stop being the writer of a partition."""
        self._unsent.discard(partition)
        for values in (self._tokens, self._flushed, self._sent, self._sent_stored):
            values.pop(partition, None)

    def token(self, partition: int) -> int:
        """The token under which a claimed partition is written."""
        return self._tokens[partition]

    def flushed(self, partition: int) -> int:
        """Number of the last flush of a partition."""
        return self._flushed.get(partition, 0)

    async def write(
        self, workspace_id: str, flips: Sequence[Flip], version_base: Mapping[str, int], moment_us: int = 0
    ) -> int:
        """Write flips and send them on; what the stored rows say already is left out.

        Args:
            workspace_id: The workspace of all flips.
            flips: The flips, in order; those of partitions that are not claimed are refused.
            version_base: Version after which new memberships of an audience start; missing means 0.
            moment_us: The clock by which they were found: whoever begins where this one ended compares nothing earlier.

        Returns:
            The number of changes that were written.

        Raises:
            FencedError: A partition has a newer owner: flips up to some transaction are written, the rest is not.
            pymongo.errors.PyMongoError: The same, because the database failed; calling again is safe.
        """
        placed = [
            Placed(
                place,
                partition_of(flip.profile_id, self._partitions),
                membership_key(workspace_id, flip.audience_id, flip.profile_id),
                flip,
            )
            for place, flip in enumerate(flips)
        ]
        strangers = {one.partition for one in placed} - self._tokens.keys()
        if strangers:
            raise FencedError(strangers)
        written = 0
        at_a_time = LANES * ROWS_PER_TRANSACTION
        for start in range(0, len(placed), at_a_time):
            some = placed[start : start + at_a_time]
            written += await self._write_together(_Batch(workspace_id, version_base, moment_us), some)
        return written

    async def _write_together(self, batch: _Batch, flips: Sequence[Placed]) -> int:
        """Write flips by transactions in flight together, and send what came of them in the order of the flips."""
        recorded = _Recorded()
        lanes = [self._write_lane(batch, lane, recorded) for lane in _lanes(flips)]
        results = await asyncio.gather(*lanes, return_exceptions=True)
        recorded.history.sort(key=itemgetter(0))
        history = [document for _, document in recorded.history]
        for cause, count in Counter(document["c"] for document in history).items():
            _flips.add(count, {"cause": cause})
        if history and self._unsent.isdisjoint(recorded.numbers):
            await self._send(batch.workspace_id, history, recorded.numbers)
        elif history:
            self._unsent.update(recorded.numbers)  # of one partition earlier ones wait: nothing may overtake them
        failures = [result for result in results if isinstance(result, BaseException)]
        fenced = [failure.partitions for failure in failures if isinstance(failure, FencedError)]
        if fenced and len(fenced) == len(failures):
            raise FencedError(frozenset().union(*fenced))
        for failure in failures:
            if not isinstance(failure, FencedError):
                raise failure
        return len(history)

    async def _write_lane(self, batch: _Batch, flips: Sequence[Placed], recorded: _Recorded) -> None:
        for start in range(0, len(flips), ROWS_PER_TRANSACTION):
            await self._write_chunk(batch, flips[start : start + ROWS_PER_TRANSACTION], recorded)

    async def _write_chunk(self, batch: _Batch, flips: Sequence[Placed], recorded: _Recorded) -> None:
        now = now_us()
        numbers = {p: max(self._flushed[p] + 1, now) for p in sorted({placed.partition for placed in flips})}
        stamp = Stamp(batch.workspace_id, batch.version_base, numbers, now)
        told: dict[str, int] = {}
        for attempt in range(ATTEMPTS):
            try:
                history = await self._transact(stamp, batch.moment_us, flips, told)
                break
            except OperationFailure as error:
                if not told and attempt < ATTEMPTS - 1 and _is_recorded_already(error):
                    # Rows are gone of which there is history: it says how far the versions are.
                    told = await self._versions(flips)
                    continue
                # An earlier attempt whose answer was lost may have been committed: then the rows say so already, no
                # history comes out of this one, and the outbox sends what that attempt recorded under these numbers.
                if not error.has_error_label("TransientTransactionError") or attempt == ATTEMPTS - 1:
                    self._unsent.update(numbers)
                    raise
                await asyncio.sleep(0.01 * 2**attempt)
            except PyMongoError:
                self._unsent.update(numbers)
                raise
        self._flushed.update(numbers)
        if history:
            recorded.history += history
            recorded.numbers.update(numbers)

    async def _transact(
        self, stamp: Stamp, moment_us: int, flips: Sequence[Placed], told: Mapping[str, int]
    ) -> list[tuple[int, Document]]:
        async with transaction(self._client) as session:
            heads = await self._db[SNAPSHOTS].bulk_write(
                [
                    UpdateOne(
                        {"_id": head_key(p), "token": self._tokens[p]},
                        {"$set": {"f": number}, "$max": {"moment": moment_us}},
                    )
                    for p, number in stamp.numbers.items()
                ],
                session=session,
            )
            if heads.matched_count != len(stamp.numbers):
                fenced = await self._fenced(stamp.numbers)
                raise FencedError(fenced or stamp.numbers)
            keys = list({placed.key for placed in flips})
            found = self._db[MEMBERSHIPS].find({"_id": {"$in": keys}}, {"version": 1, "in": 1}, session=session)
            rows = {row["_id"]: row for row in await found.to_list(len(keys))}
            changes = what_changes(stamp, flips, rows, told)
            if changes.history:
                history = [document for _, document in changes.history]
                await self._db[CHANGES].insert_many(history, ordered=False, session=session)
            if changes.new:
                await self._db[MEMBERSHIPS].insert_many(changes.new, ordered=False, session=session)
            if changes.updates:
                await self._db[MEMBERSHIPS].bulk_write(changes.updates, ordered=False, session=session)
        return changes.history

    async def _versions(self, flips: Sequence[Placed]) -> dict[str, int]:
        """The last version of each membership that has any history."""
        found: dict[str, int] = {}
        for key in {placed.key for placed in flips}:
            query: Document = {"_id": {"$gte": change_key(key, 0), "$lt": key + chr(ord(SEPARATOR) + 1)}}
            async for change in self._db[CHANGES].find(query, {"v": 1}).sort("_id", DESCENDING).limit(1):
                found[key] = change["v"]
        return found

    async def _fenced(self, partitions: Iterable[int]) -> set[int]:
        query = {"_id": {"$in": [head_key(p) for p in partitions]}}
        found = {d["_id"]: d["token"] async for d in self._db[SNAPSHOTS].find(query, {"token": 1})}
        return {p for p in partitions if found.get(head_key(p)) != self._tokens.get(p)}

    async def _send(self, workspace_id: str, history: Sequence[Document], numbers: Mapping[int, int]) -> None:
        try:
            await streams.send(self._redis, _messages(workspace_id, history), max_length=CHANGES_MAX_LENGTH)
        except RedisError as error:
            log.warning("changes wait for the stream", count=len(history), error=type(error).__name__)
            self._unsent.update(numbers)
            return
        self._sent.update(numbers)

    async def send_unsent(self) -> None:
        """Send some of what was written and not sent, and store how far everything is sent.

        Very much may wait when the stream was away or lost: that takes several calls, between which others go on.

        Raises:
            redis.exceptions.RedisError: The stream still cannot be reached; try again later.
            pymongo.errors.PyMongoError: The database cannot be reached; try again later.
        """
        room = UNSENT_AT_A_TIME
        for partition in sorted(self._unsent):
            room -= await self._send_waiting(partition)
            if room <= 0:
                break
        behind = {p: sent for p, sent in self._sent.items() if sent > self._sent_stored.get(p, 0)}
        if behind:
            await self._db[SNAPSHOTS].bulk_write(
                [
                    UpdateOne({"_id": head_key(p), "token": self._tokens[p]}, {"$max": {"sent": sent}})
                    for p, sent in behind.items()
                ],
                ordered=False,
            )
            self._sent_stored.update(behind)

    async def _send_waiting(self, partition: int) -> int:
        """Send the next of what a partition has written and not sent; returns how many changes."""
        query = {"q": partition, "f": {"$gt": self._sent[partition]}}
        flushed = self._flushed[partition]
        found = self._db[CHANGES].find(query).sort([("q", ASCENDING), ("f", ASCENDING)]).limit(UNSENT_AT_A_TIME)
        documents = await found.to_list(UNSENT_AT_A_TIME)
        if is_all := len(documents) < UNSENT_AT_A_TIME:
            last = max([flushed, *(d["f"] for d in documents)])
        else:
            # The last transaction may have been cut: it is read again.
            documents = [d for d in documents if d["f"] < documents[-1]["f"]]
            last = documents[-1]["f"]
        waiting: dict[str, list[Document]] = defaultdict(list)
        for document in documents:
            waiting[document["w"]].append(document)
        for workspace_id, history in waiting.items():
            history.sort(key=lambda d: (d["f"], d.get("n", 0), d["_id"]))
            await streams.send(self._redis, _messages(workspace_id, history), max_length=CHANGES_MAX_LENGTH)
        self._sent[partition] = last
        self._flushed[partition] = max(self._flushed[partition], last)
        if is_all:
            self._unsent.discard(partition)
        return len(documents)

    def resend_from(self, partitions: Iterable[int], moment_us: int) -> None:
        """Redis may have forgotten messages: send again, soon, what was flushed after a moment."""
        for partition in partitions:
            if partition in self._sent and self._flushed[partition] > moment_us:
                self._sent[partition] = min(self._sent[partition], moment_us)
                self._unsent.add(partition)


def _lanes(flips: Sequence[Placed]) -> list[list[Placed]]:
    """The flips, divided by partition when one transaction cannot hold them; each partition keeps its order."""
    if len(flips) <= ROWS_PER_TRANSACTION:
        return [list(flips)]
    of_partition: dict[int, list[Placed]] = defaultdict(list)
    for placed in flips:
        of_partition[placed.partition].append(placed)
    lanes: list[list[Placed]] = [[] for _ in range(LANES)]
    for own in sorted(of_partition.values(), key=len, reverse=True):
        min(lanes, key=len).extend(own)
    return [sorted(lane, key=attrgetter("place")) for lane in lanes if lane]


def _is_recorded_already(error: OperationFailure) -> bool:
    """Whether a change of the same version of the same membership is there already."""
    if isinstance(error, BulkWriteError):
        return any(e["code"] == DUPLICATE_KEY for e in error.details.get("writeErrors", ()))
    return isinstance(error, DuplicateKeyError)


def head_key(partition: int) -> str:
    """The database id of a partition's head document, which also names its snapshot."""
    return f"head:{partition}"


def _messages(workspace_id: str, history: Sequence[Document]) -> list[tuple[str, bytes]]:
    return [
        (
            names.CHANGES,
            MembershipChangeBatch(
                workspace_id=workspace_id,
                changes=[change_message(d) for d in history[start : start + CHANGES_PER_MESSAGE]],
            ).SerializeToString(),
        )
        for start in range(0, len(history), CHANGES_PER_MESSAGE)
    ]
