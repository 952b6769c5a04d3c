"""Planning the log again where the streams may have lost something, and checking that nothing is missing.

One process at a time does this. Three things start it: Redis started anew, or trimmed or lost entries (the plan mark
says from where); a forwarding sync was made or changed, and another process may have planned by its earlier form for
a moment; or the account of a sync does not balance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo import log as event_log
from headrace.storage.mongo.client import Database
from headrace.storage.streams import names
from headrace.storage.streams.client import Redis
from headrace.telemetry import logs, metrics
from headrace_sync.config import SEPARATOR, SyncConfig
from headrace_sync.consumer import ResolvedConsumer
from headrace_sync.deliveries.reassigned import Reassigned, profiles_of_stored
from headrace_sync.leases import Lease, Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.planning.planner import Planner
from headrace_sync.planning.positions import StreamState, has_gap, mark_us
from headrace_sync.planning.rules import SETTLE_US
from headrace_sync.planning.streams import read_states
from headrace_sync.registry import Registry
from headrace_sync.store import STATE

log = logs.get_logger(__name__)

_replanned = metrics.counter("headrace_replanned", "Deliveries found missing and planned from the log, by cause.")

MARGIN_US = 60 * SECOND_US
"""How much later than it was resolved an event may reach its stream without being missed."""

_MARK = "plan_mark"
_EPOCH = "headrace:sync:epoch"
"""A key that is gone, or another, when Redis was emptied or exchanged."""
_EVENTS_AT_ONCE = 1_000
_PATIENCE = 6
"""Checks after which the log is gone through even if all that is unaccounted may be on its way."""


class Recovery:
    """Keeps the plan mark and plans again what may be missing."""

    def __init__(
        self,
        *,
        db: Database,
        redis: Redis,
        partitions: int,
        leases: Leases,
        registry: Registry,
        planner: Planner,
        consumer: ResolvedConsumer,
        reassigned: Reassigned,
        accounts: Accounts,
        wake_workers: Callable[[], None],
        mark_every_s: float,
        check_every_s: float,
    ) -> None:
        """Wire it; `run` starts it."""
        self._db = db
        self._redis = redis
        self._streams = [names.resolved(p) for p in range(partitions)]
        self._leases = leases
        self._registry = registry
        self._planner = planner
        self._consumer = consumer
        self._reassigned = reassigned
        self._accounts = accounts
        self._wake_workers = wake_workers
        self._mark_every_s = mark_every_s
        self._check_every_s = check_every_s
        self._patience_us = int(_PATIENCE * check_every_s * SECOND_US) + 2 * MARGIN_US
        self._checked_at = time.monotonic()

    async def run(self) -> None:
        """Look after the mark until cancelled."""
        while True:
            async with self._leases.hold(_MARK) as lease:
                if lease is not None:
                    await self.tick(lease)
            await asyncio.sleep(self._mark_every_s)

    async def tick(self, lease: Lease) -> None:
        """One round."""
        await self._registry.refresh()
        try:
            await self._follow_streams(lease)
        except (RedisError, OSError) as error:
            log.warning("the plan mark waits for Redis", error=error)
        await self._settle_changed(lease)
        if time.monotonic() - self._checked_at >= self._check_every_s:
            await self._check_accounts(lease)
            self._checked_at = time.monotonic()

    async def plan_again(
        self, lease: Lease, from_us: int, to_us: int | None, *, workspace_id: str | None, cause: str
    ) -> int:
        """Plan what the log holds of a range of time; returns how many deliveries were missing."""
        missing = 0
        part: list[ResolvedEvent] = []

        async def flush() -> int:
            lease.check()
            snapshot = self._registry.current
            new = await self._planner.plan(snapshot, part, again=True)
            by_workspace: dict[str, list[ResolvedEvent]] = {}
            for event in part:
                by_workspace.setdefault(event.event.workspace_id, []).append(event)
            for workspace, own in by_workspace.items():
                await self._consumer.mark_lists(snapshot, workspace, own, [])
            part.clear()
            return new

        upto = to_us if to_us is not None else now_us() + 3600 * SECOND_US
        async for event in event_log.events_between(self._db, max(from_us, 0), upto, workspace_id):
            part.append(event)
            if len(part) >= _EVENTS_AT_ONCE:
                missing += await flush()
        missing += await flush()
        await self._follow_reassignments(lease, max(from_us, 0), workspace_id)
        if missing:
            _replanned.add(missing, {"cause": cause})
            log.info("deliveries were missing and are planned from the log", count=missing, cause=cause)
            self._wake_workers()
        return missing

    async def _follow_reassignments(self, lease: Lease, from_us: int, workspace_id: str | None) -> None:
        """Take in what was assigned anew since a moment: its place on the streams may be lost like any other."""
        async for stored in event_log.reassignments_since(self._db, from_us, workspace_id):
            lease.check()
            profile_ids = profiles_of_stored(stored)
            await self._reassigned.take(self._registry.current, stored.workspace_id, profile_ids, erased=stored.erased)

    async def _follow_streams(self, lease: Lease) -> None:
        clock: Any = await self._redis.time()
        server: Any = await self._redis.info("server")
        run_id = str(server["run_id"])
        states = await read_states(self._redis, self._streams)
        epoch = await self._redis.get(_EPOCH)
        stored = await self._db[STATE].find_one({"_id": _MARK})
        lost = {stream for stream, state in states.items() if state is None or has_gap(state)}
        known = [state for state in states.values() if state is not None]
        forgot = epoch is None or (stored is not None and _text(epoch) != stored["epoch"])
        if stored is not None and (stored["run"] != run_id or forgot or lost):
            log.warning("streams may have lost entries: planning the log again", streams=len(lost))
            await self.plan_again(lease, int(stored["s"]) - MARGIN_US, None, workspace_id=None, cause="streams")
            await self._give_up_trimmed(states)
        mark = mark_us(known, clock[0] * 1000 + clock[1] // 1000)
        if stored is not None:
            mark = max(mark, int(stored["s"]))
        current = new_time_ordered_id() if forgot else _text(epoch)
        if forgot:
            await self._redis.set(_EPOCH, current)
        change = {"$set": {"s": mark, "run": run_id, "epoch": current}}
        await self._db[STATE].update_one({"_id": _MARK}, change, upsert=True)

    async def _give_up_trimmed(self, states: dict[str, StreamState | None]) -> None:
        """Acknowledge entries that were given and have left the stream: the log was planned in their place."""
        for stream, state in states.items():
            if state is None or not state.first_id or not state.oldest_pending_id:
                continue
            pending: Any = await self._redis.xpending_range(
                stream, names.SYNC_GROUP, min="-", max=f"({state.first_id}", count=100_000
            )
            ids = [_text(entry["message_id"]) for entry in pending]
            if ids:
                await self._redis.xack(stream, names.SYNC_GROUP, *ids)

    async def _settle_changed(self, lease: Lease) -> None:
        """Plan the time around a sync's creation or change again, once everybody has noticed it."""
        now = now_us()
        settling = {
            f"settled{SEPARATOR}{sync.key}": (sync, max(sync.created_us, sync.changed_us))
            for syncs in self._registry.current.forwarding.values()
            for sync in syncs
        }
        done = {d["_id"]: d["t"] async for d in self._db[STATE].find({"_id": {"$in": list(settling)}}) if settling}
        for id, (sync, changed_us) in settling.items():
            if done.get(id, 0) < changed_us < now - SETTLE_US:
                await self._plan_sync_again(lease, sync, changed_us - MARGIN_US, changed_us + 2 * SETTLE_US, "settled")
                await self._db[STATE].update_one({"_id": id}, {"$set": {"t": changed_us}}, upsert=True)

    async def _check_accounts(self, lease: Lease) -> None:
        """Plan again from where an account last balanced, when it does not."""
        for syncs in list(self._registry.current.forwarding.values()):
            for sync in syncs:
                lease.check()
                began = now_us()
                missing, balanced_us = await self._accounts.missing(sync)
                if 0 < missing <= await self._accounts.just_now(sync) and began - balanced_us < self._patience_us:
                    continue  # all of it may be on its way; under steady load that is so at any moment
                if missing > 0:
                    await self._plan_sync_again(lease, sync, balanced_us - MARGIN_US, None, "account")
                await self._accounts.balanced(sync, began - 2 * MARGIN_US)

    async def _plan_sync_again(
        self, lease: Lease, sync: SyncConfig, from_us: int, to_us: int | None, cause: str
    ) -> None:
        await self.plan_again(lease, from_us, to_us, workspace_id=sync.workspace_id, cause=cause)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
