"""The deliveries of one destination: taken from the store, put together into batches, sent, written down.

Each destination has a worker of its own, with a bounded queue: one that is slow or dead fills its own queue and nothing
else. What does not fit waits in the store and is taken from there later.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Document
from headrace.telemetry import logs, metrics
from headrace_sdk import EventItem
from headrace_sync.config import SyncConfig
from headrace_sync.deliveries.replays import NOT_REPEATED
from headrace_sync.deliveries.results import Results, deliveries
from headrace_sync.deliveries.store import DeliveryStore, Ending, held_by
from headrace_sync.deliveries.work import Work
from headrace_sync.jobs.store import JobStore
from headrace_sync.outlets.batch import SEND_EVENTS, Done
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.people.consents import FRESH_S, Allowed, Consents
from headrace_sync.store import FAILED

log = logs.get_logger(__name__)

_batch_items = metrics.histogram(
    "headrace_delivery_batch_items", "Items in a batch to a vendor, by connector.", buckets=metrics.SIZE_BUCKETS
)

FAR_US = 3650 * 24 * 3600 * SECOND_US
_LEAST_ROOM = 200
_TAKEN_AT_ONCE = 2_000
_SETTLED_US = 120 * SECOND_US
_LONGEST_SLEEP_S = 15.0
_RETRY_STORE_S = 0.5
_GATHER_S = 0.1
_GATHER_ONCE_S = 0.01
_GATHERED = 200
"""Results that are written down without waiting for more: a statement costs as much as ten of its deliveries."""
_TRIAL_BEGINS_S = 0.05
_INTERRUPTED = "the process ended while it was being sent; " + NOT_REPEATED


class Items(Protocol):
    """Makes what connectors take of events (`headrace_sync.mappings.items.ItemBuilder`)."""

    async def event_items(
        self, outlet: Outlet, pairs: Sequence[tuple[SyncConfig, Event, str, str]]
    ) -> list[Allowed[EventItem] | Verdict]:
        """An item, or why there is none, for each (sync, event, profile id, trace context).

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
        """
        ...


LoadEvents = Callable[[Sequence[Document]], Awaitable[Mapping[str, Event]]]
"""Finds the events of stored deliveries, by delivery id."""


class Worker:
    """Delivers to one destination while it runs."""

    def __init__(
        self,
        *,
        key: str,
        outlet: Outlet,
        store: DeliveryStore,
        items: Items,
        load_events: LoadEvents,
        sync_of: Callable[[str], SyncConfig | None],
        owner: str,
        queue_size: int,
        lease_s: float,
        poll_s: float,
        results: Results,
        jobs: JobStore,
        begins_us: int = 0,
    ) -> None:
        """Make a worker; `run` starts it.

        Args:
            key: Database id of the destination.
            outlet: The way to the vendor.
            store: Deliveries.
            items: Makes items of events.
            load_events: Finds events in the log.
            sync_of: The sync of a key, None when there is none.
            owner: Unique name of this process.
            queue_size: Most deliveries held in memory.
            lease_s: How long a delivery is this process's, in seconds.
            poll_s: How often the store is looked at, in seconds.
            results: Writes down what became of deliveries.
            jobs: What vendors took into jobs.
            begins_us: When the destination was changed or resumed last: the time of what waits begins anew then.
        """
        self.key = key
        self.outlet = outlet
        self._store = store
        self._items = items
        self._load_events = load_events
        self._sync_of = sync_of
        self._owner = owner
        self._queue_size = queue_size
        self._lease_us = int(lease_s * SECOND_US)
        self._poll_s = poll_s
        self._results_of = results.write_down
        self._jobs = jobs
        self._begins_us = begins_us
        self._queue: deque[Work] = deque()
        self._arrived = asyncio.Event()
        self._wake = asyncio.Event()
        self._picking = asyncio.Lock()
        self._rate = 0.0
        self._in_hand = 0
        self._trial: list[Work] | None = None
        self._expired_at = -math.inf
        self._results: list[tuple[Work, Verdict]] = []
        self._decided = asyncio.Event()
        self._enough = asyncio.Event()
        self._writing = 0
        self._stopping = False
        self._ended = False

    @property
    def owner(self) -> str:
        """Name under which this process holds deliveries."""
        return self._owner

    def room(self) -> int:
        """How many more deliveries may be held: what goes out in a quarter of a lease, within the setting."""
        if self._stopping or self.outlet.paused_s() > 0:
            return 0
        if self.outlet.is_on_trial():
            return 0 if self._queue or self._trial else 1
        batch = self.outlet.info.batch.max_items
        steady = int(self._rate * self._lease_us / SECOND_US / 4)
        least = max(_LEAST_ROOM, 2 * batch * self.outlet.info.concurrency)
        allowed = min(self._queue_size, max(least, steady)) if self._rate else min(self._queue_size, 1_000 + batch)
        return max(0, allowed - len(self._queue))

    def offer(self, works: Iterable[Work]) -> bool:
        """Take deliveries that were stored as held by this process; False when this has ended, and takes none."""
        if self._ended:
            return False
        now = time.monotonic()
        for work in works:
            work.since = now
            self._queue.append(work)
        self._arrived.set()
        return True

    def wake(self) -> None:
        """Look at the store now."""
        self._wake.set()

    async def give_back(self) -> None:
        """Give back what is held in memory and not being sent: it is taken again as it is stored by now."""
        await self._give_back_queue(now_us())
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fill())
            tasks.create_task(self._record())
            for _ in range(self.outlet.info.concurrency):
                tasks.create_task(self._deliver())

    async def drain(self, task: asyncio.Task[None], within_s: float) -> None:
        """Stop: finish what is being sent, as far as time allows, and give everything else back."""
        self._stopping = True
        given_back, self._queue = list(self._queue), deque()
        deadline = time.monotonic() + within_s
        self.outlet.drain()
        while self._is_busy() and time.monotonic() < deadline and not task.done():  # noqa: ASYNC110 - ends in time
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._queue.extend(given_back)
        self._ended = True  # from here on nobody would give back what is offered
        await self._give_back_queue(now_us())

    def _is_busy(self) -> bool:
        """True while something is being sent or written down."""
        return bool(self._in_hand or self._results or self._writing)

    async def _fill(self) -> None:
        """Keep the queue filled from the store."""
        while True:
            try:
                await self._expire()
                while await self._fill_once():
                    pass
                await self._sleep()
            except PyMongoError:
                # The senders go on with what they have: a store that is away for a moment must not cut off requests.
                log.exception("deliveries could not be taken from the store", connector=self.outlet.info.name)
                await asyncio.sleep(_RETRY_STORE_S)

    async def _expire(self) -> None:
        """End what has used up its time, unless that was looked for just now."""
        if time.monotonic() - self._expired_at < self._poll_s:
            return
        now, policy = now_us(), self.outlet.info.retry
        reason = f"not accepted within {policy.max_age_s:g} s"
        begun_before = now - int(policy.max_age_s * SECOND_US)
        if begun_before > self._begins_us:
            expired = await self._store.expire(self.key, begun_before=begun_before, reason=reason, now=now)
            deliveries.add(expired, self._labels("expired"))
        self._expired_at = time.monotonic()

    async def _fill_once(self) -> bool:
        """Take what fits and is due; True when there may be more."""
        self._wake.clear()
        limit = min(self.room(), _TAKEN_AT_ONCE)
        if not limit or len(self._queue) > limit:
            return False
        return await self._take(limit) == limit

    async def _sleep(self) -> None:
        """Wait until something may be due: a wake-up, the next delivery in the store, or the poll's period."""
        wait_s = self._poll_s
        if self.room():  # else nothing would be taken, whatever is due
            due = await self._store.next_due(self.key)
            wait_s = _LONGEST_SLEEP_S if due is None else (due - now_us()) / SECOND_US
            wait_s = min(max(wait_s, self._poll_s), _LONGEST_SLEEP_S)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _take(self, limit: int) -> int:
        """Take deliveries from the store into the queue; returns how many.

        What was taken when this is stopped in the middle, or fails, is given back: nobody else may send it for as long
        as it is this process's.
        """
        claiming = asyncio.ensure_future(
            self._store.claim(self.key, owner=self._owner, limit=limit, now=now_us(), lease_us=self._lease_us)
        )
        try:
            # To its end: what the store still does for somebody who has gone away nobody would give back.
            documents = await asyncio.shield(claiming)
            if documents:
                self.offer(await self._sendable(documents))
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._unclaim(claiming)))
            raise
        return len(documents)

    async def _unclaim(self, claiming: asyncio.Future[list[Document]]) -> None:
        """Give back what a claim takes, or has taken."""
        try:
            await self._store.unclaim(await claiming, at=now_us())
        except PyMongoError:
            log.warning("deliveries that were just taken could not be given back and come back by their lease")

    async def _sendable(self, documents: Sequence[Document]) -> list[Work]:
        """What can be sent of deliveries that were taken; the others are ended, dropped or left for later."""
        interrupted = [d["_id"] for d in documents if d.get("sg")]
        if interrupted:
            await self._store.end(interrupted, Ending(FAILED, 0, _INTERRUPTED), now=now_us())
            deliveries.add(len(interrupted), self._labels(Kind.LOST.value))
        orphans = {d["_id"]: d["c"] for d in documents if self._sync_of(d["k"]) is None}
        if orphans:
            # A sync may be so new that it is not known here yet; else it was deleted.
            settled = now_us() - _SETTLED_US
            await self._store.drop([id for id, planned in orphans.items() if planned < settled])
            await self._store.release(list(orphans), held=held_by(self._owner), at=now_us() + 10 * SECOND_US)
        gone = {*interrupted, *orphans}
        rest = [d for d in documents if d["_id"] not in gone]
        events = await self._load_events(rest)
        missing = [d["_id"] for d in rest if d["_id"] not in events]
        if missing:
            await self._store.end(missing, Ending(FAILED, 0, "the event is not in the log"), now=now_us())
        return [Work(d, events[d["_id"]]) for d in rest if d["_id"] in events]

    async def _deliver(self) -> None:
        """Send batch after batch."""
        while True:
            batch = await self._next_batch()
            self._in_hand += 1
            try:
                await self._handle(batch)
            finally:
                self._in_hand -= 1
                if batch is self._trial:
                    self._trial = None

    async def _next_batch(self) -> list[Work]:
        """The next batch: full, or as large as it got within the time that an item may wait.

        A vendor of whom it is not known whether it answers again is tried with one delivery: the rest would be taken,
        made into requests and given back, again and again.
        """
        policy = self.outlet.info.batch
        async with self._picking:
            while True:
                pause_s = self.outlet.paused_s()
                if pause_s > 0:
                    await self._give_back_queue(now_us() + int(pause_s * SECOND_US))
                    await asyncio.sleep(min(pause_s, 5.0))
                    continue
                if self._trial is not None and self.outlet.is_on_trial():
                    await asyncio.sleep(_TRIAL_BEGINS_S)
                    continue
                if not self._queue:
                    self._arrived.clear()
                    self._wake.set()
                    await self._arrived.wait()
                    continue
                if self.outlet.is_on_trial():
                    self._trial = [self._queue.popleft()]
                    return self._trial
                wait_s = self._queue[0].since + policy.max_wait_s - time.monotonic()
                if len(self._queue) >= policy.max_items or wait_s <= 0:
                    return [self._queue.popleft() for _ in range(min(policy.max_items, len(self._queue)))]
                self._arrived.clear()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._arrived.wait()
                except TimeoutError:
                    pass

    async def _give_back_queue(self, at: int) -> None:
        if self._queue:
            given_back, self._queue = [w.id for w in self._queue], deque()
            try:
                await self._store.release(given_back, held=held_by(self._owner), at=at)
            except PyMongoError:
                log.warning("deliveries could not be given back and come back by their lease", count=len(given_back))

    async def _handle(self, batch: list[Work]) -> None:
        """Send a batch; nothing that goes wrong with it ends the worker."""
        started = time.monotonic()
        open_places, begun = set(range(len(batch))), set[int]()

        def decide(place: int, verdict: Verdict) -> None:
            open_places.discard(place)
            self._results.append((batch[place], verdict))
            self._decided.set()
            if len(self._results) >= _GATHERED:
                self._enough.set()

        try:
            await self._send(batch, decide, begun)
        except Exception:
            # The store or identity is away, or a defect of ours: the rest was not sent, or may have been.
            log.exception("a batch could not be handled", connector=self.outlet.info.name, items=len(batch))
            for place in list(open_places):
                lost = Verdict(Kind.LOST, "an error came between the request and its answer")
                untried = Verdict(Kind.UNTRIED, after_s=random.uniform(0.5, 2.0))  # noqa: S311 - jitter
                decide(place, lost if place in begun else untried)
            await asyncio.sleep(_RETRY_STORE_S)
        _batch_items.record(len(batch), {"connector": self.outlet.info.name})
        rate = len(batch) * self.outlet.info.concurrency / max(time.monotonic() - started, 0.001)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate

    async def _send(self, batch: list[Work], decide: Done, begun: set[int]) -> None:
        """Decide on each delivery of a batch; places of what may go out from now on are put into `begun`."""
        held = await self._held(batch)
        asked: list[tuple[SyncConfig, Event, str, str]] = []
        places: list[int] = []
        for place, work in enumerate(batch):
            if work.id not in held:
                decide(place, Verdict(Kind.GONE))
                continue
            sync = self._sync_of(work.document["k"])
            if sync is None:
                decide(place, Verdict(Kind.UNTRIED, "the sync is gone", after_s=30.0))
            elif sync.paused:
                decide(place, Verdict(Kind.UNTRIED, "the sync is paused", after_s=FAR_US / SECOND_US))
            else:
                asked.append((sync, work.event, work.document["p"], work.traceparent))
                places.append(place)
        sendable: list[EventItem] = []
        at: list[int] = []
        consents: list[tuple[str, Consents]] = []
        not_after = time.monotonic() + FRESH_S if self.outlet.required_consents else None
        for place, made in zip(places, await self._items.event_items(self.outlet, asked), strict=True):
            if isinstance(made, Verdict):
                decide(place, made)
            else:
                sendable.append(made.item)
                at.append(place)
                consents.append((batch[place].id, made.consents))
        if self.outlet.required_consents:
            await self._store.save_consents(consents)

        async def permit(chosen: Sequence[int]) -> set[int]:
            """Which deliveries are still this process's, and for long enough to send them."""
            held = await self._held([batch[at[i]] for i in chosen], sending=self.outlet.info.idempotency == "none")
            allowed = {i for i in chosen if batch[at[i]].id in held}
            begun.update(at[i] for i in allowed)
            return allowed

        async def taken(job: str, chosen: Sequence[int], after_s: float) -> None:
            """The vendor took them into a job."""
            ids = [batch[at[i]].id for i in chosen]
            await self._jobs.keep_deliveries(self.key, ids, job, owner=self._owner, after_s=after_s)

        if sendable:
            traceparents = [item.traceparent for item in sendable]
            await self.outlet.send(
                SEND_EVENTS,
                sendable,
                traceparents=traceparents,
                permit=permit,
                done=lambda i, verdict: decide(at[i], verdict),
                not_after=not_after,
                taken=taken,
            )

    async def _held(self, works: Sequence[Work], *, sending: bool = False) -> set[str]:
        """Ids of those deliveries that are this process's for as long as sending them may take."""
        now, needed_us = now_us(), int((self.outlet.info.timeout_s + 10) * SECOND_US)
        ids = [work.id for work in works]
        if not sending and all(work.document["na"] - now > needed_us for work in works):
            return set(ids)
        until = now + needed_us + self._lease_us
        held = await self._store.hold(ids, owner=self._owner, until=until, sending=sending)
        for work in works:
            if work.id in held:
                work.document["na"] = until
        return held

    async def _record(self) -> None:
        """Write down what is decided, soon after it is: what a crash forgets is sent again."""
        while True:
            await self._decided.wait()
            await self._gather()
            self._decided.clear()
            await self._write_results()

    async def _gather(self) -> None:
        """Wait a moment for more to be written down by the same statement.

        A vendor who counts repetitions is sent nothing again, so what is forgotten of it is lost: it is not waited for.
        """
        try:
            async with asyncio.timeout(_GATHER_ONCE_S if self.outlet.info.idempotency == "none" else _GATHER_S):
                await self._enough.wait()
        except TimeoutError:
            pass
        self._enough.clear()

    async def _write_results(self) -> None:
        results, self._results = self._results, []
        if not results:
            return
        self._writing += 1
        try:
            await self._write_down([work for work, _ in results], [verdict for _, verdict in results])
        finally:
            self._writing -= 1

    async def _write_down(self, batch: Sequence[Work], verdicts: Sequence[Verdict]) -> None:
        """Store verdicts; tried again until it works, because what was sent must not be forgotten."""
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._store_verdicts(batch, verdicts)
            except PyMongoError:
                log.exception("results of deliveries could not be stored yet", attempt=attempt)
                await asyncio.sleep(min(_RETRY_STORE_S * attempt, 5.0))
            else:
                break

    async def _store_verdicts(self, batch: Sequence[Work], verdicts: Sequence[Verdict]) -> None:
        tried = [(work.document, verdict) for work, verdict in zip(batch, verdicts, strict=True)]
        if await self._results_of(tried, held=held_by(self._owner)):
            self._wake.set()  # they may be due before the store was to be looked at next

    def _labels(self, outcome: str) -> dict[str, str]:
        return {"connector": self.outlet.info.name, "outcome": outcome}
