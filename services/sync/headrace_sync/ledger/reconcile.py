"""Comparing list and event syncs with the whole audience, so that lost `changes` heal.

A new sync is compared at once: that is how it learns who is a member already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from headrace.api.audience.v1.audience_pb2 import AudienceState, Member, MembershipChange
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database
from headrace.telemetry import logs, metrics
from headrace_sync.config import SEPARATOR, SyncConfig
from headrace_sync.deliveries.handover import Handover
from headrace_sync.deliveries.store import DeliveryStore
from headrace_sync.deliveries.work import Work, event_sync_document, membership_event
from headrace_sync.leases import Lease, Leases
from headrace_sync.ledger.accounts import Accounts
from headrace_sync.lists.store import ListStore
from headrace_sync.people.audiences import Audiences
from headrace_sync.planning.rules import event_sync_message_id
from headrace_sync.registry import Registry
from headrace_sync.store import STATE

log = logs.get_logger(__name__)

_healed = metrics.counter("headrace_reconciled", "Memberships that a comparison with the audience put right, by kind.")

MARGIN_US = 60 * SECOND_US
_AT_ONCE = 1_000
_COUNTED = frozenset(
    {
        AudienceState.AUDIENCE_STATE_ACTIVE,
        AudienceState.AUDIENCE_STATE_PAUSED,
        AudienceState.AUDIENCE_STATE_ARCHIVED,
    }
)
"""States whose members are who is to be on a list: in an archived audience nobody."""


class Reconciler:
    """Compares each list and event sync with its audience now and then."""

    def __init__(
        self,
        *,
        db: Database,
        leases: Leases,
        registry: Registry,
        audiences: Audiences,
        lists: ListStore,
        deliveries: DeliveryStore,
        handover: Handover,
        accounts: Accounts,
        wake_list: Callable[[str], None],
        every_s: float,
        look_every_s: float,
    ) -> None:
        """Wire it; `run` starts it."""
        self._db = db
        self._leases = leases
        self._registry = registry
        self._audiences = audiences
        self._lists = lists
        self._deliveries = deliveries
        self._handover = handover
        self._accounts = accounts
        self._wake_list = wake_list
        self._every_us = int(every_s * SECOND_US)
        self._look_every_s = look_every_s
        self._failed: set[str] = set()

    async def run(self) -> None:
        """Compare what is due, until cancelled."""
        while True:
            snapshot = self._registry.current
            syncs = [s for s in snapshot.syncs.values() if not s.is_forwarding and not s.paused and not s.deleting]
            marks = {f"reconciled{SEPARATOR}{s.key}": s for s in syncs}
            done = (
                {d["_id"]: d["t"] async for d in self._db[STATE].find({"_id": {"$in": list(marks)}})} if marks else {}
            )
            for id, sync in marks.items():
                if done.get(id, 0) < now_us() - self._every_us:
                    await self._one(id, sync)
            await asyncio.sleep(self._look_every_s)

    async def _one(self, id: str, sync: SyncConfig) -> None:
        async with self._leases.hold(f"reconcile{SEPARATOR}{sync.key}") as lease:
            if lease is None:
                return
            mark = await self._db[STATE].find_one({"_id": id})
            began = now_us()
            if mark is not None and mark["t"] >= began - self._every_us:
                return  # another process was quicker
            try:
                done = await self.reconcile(sync, lease, since_us=mark["t"] if mark else 0)
            except grpc.aio.AioRpcError as error:
                if sync.key not in self._failed:
                    log.warning("an audience cannot be read yet", sync=sync.name, code=error.code().name)
                self._failed.add(sync.key)
                return
            self._failed.discard(sync.key)
            if done:
                await self._db[STATE].update_one({"_id": id}, {"$set": {"t": began}}, upsert=True)

    async def reconcile(self, sync: SyncConfig, lease: Lease, *, since_us: int) -> bool:
        """Compare a sync with its audience; False when the audience is not complete now.

        Args:
            sync: A list or event sync.
            lease: Held by the caller.
            since_us: When it was compared before, in microseconds; 0 for never.

        Raises:
            grpc.aio.AioRpcError: The audience service does not answer.
        """
        audience = await self._audiences.get(sync.audience_name)
        # While a new version waits to take the place of an audience's members, these stay as they are.
        if audience is None or not (audience.state in _COUNTED or audience.HasField("pending_version")):
            return False
        if sync.is_list:
            await self._list(sync, lease)
        else:
            await self._event_sync(sync, lease, since_us)
        return True

    async def _list(self, sync: SyncConfig, lease: Lease) -> None:
        """Take in what differs between the audience's members and those known here."""
        began = now_us()
        changes: list[MembershipChange] = []
        absent: list[tuple[str, int]] = []
        healed = 0

        async def flush() -> None:
            lease.check()
            await self._lists.change_members(sync.workspace_id, [(sync.key, c) for c in changes], now=now_us())
            await self._lists.set_absent(sync.key, absent, known_before=began - MARGIN_US, now=now_us())
            if changes or absent:
                self._wake_list(sync.key)

        known = self._lists.scan(sync.key)
        async for member, held in _side_by_side(self._audiences.members(sync.audience_name), known):
            if member is not None and self._registry.current.is_erased(sync.workspace_id, member.profile_id):
                continue
            if member is not None and (held is None or (held[2] < member.version and not held[1])):
                changes.append(_entry(sync, member))
            elif member is None and held is not None and held[1]:
                absent.append((held[0], held[2]))
            if len(changes) + len(absent) >= _AT_ONCE:
                healed += len(changes) + len(absent)
                await flush()
                changes, absent = [], []
        healed += len(changes) + len(absent)
        await flush()
        _healed.add(healed, {"kind": "list"})

    async def _event_sync(self, sync: SyncConfig, lease: Lease, since_us: int) -> None:
        """Plan changes that were missed; the first time also who was a member already.

        Who that is may be another between two tries, so they are counted as they are planned, part by part. Which part
        is in hand is written down first: what an end in between has stored of it is counted by the next try.
        """
        in_hand = await self._accounts.begin_initial(sync)
        first = in_hand is not None
        before: dict[str, Member] = {}
        if in_hand is not None:
            if in_hand:
                await self._accounts.count_initial(sync, len(await self._deliveries.existing(sync.key, in_hand)))
            before = {m.profile_id: m async for m in self._audiences.members(sync.audience_name)}
        since = max(sync.begins_us, 0 if first else since_us - MARGIN_US)
        part: list[MembershipChange] = []
        async for change in self._audiences.changes_since(sync.audience_name, since):
            member = before.get(change.profile_id)
            if member is not None and change.member and change.version == member.version:
                del before[change.profile_id]
            part.append(change)
            if len(part) >= _AT_ONCE:
                lease.check()
                await self._plan(sync, part)
                part = []
        await self._plan(sync, part)
        initial = [_entry(sync, member) for member in before.values()]
        for start in range(0, len(initial), _AT_ONCE):
            lease.check()
            await self._plan_initial(sync, initial[start : start + _AT_ONCE])
        if first:
            await self._accounts.end_initial(sync)

    async def _plan_initial(self, sync: SyncConfig, changes: list[MembershipChange]) -> None:
        works = await self._new(sync, changes)
        if works:
            await self._accounts.plan_initial(sync, [work.document["m"] for work in works])
            planned = await self._handover.store(works)
            await self._accounts.count_initial(sync, planned)
            _healed.add(planned, {"kind": "event"})

    async def _plan(self, sync: SyncConfig, changes: list[MembershipChange]) -> None:
        works = await self._new(sync, changes)
        if works:
            _healed.add(await self._handover.store(works), {"kind": "event"})

    async def _new(self, sync: SyncConfig, changes: list[MembershipChange]) -> list[Work]:
        """Those of the changes that are not planned yet."""
        is_erased = self._registry.current.is_erased
        changes = [c for c in changes if not is_erased(sync.workspace_id, c.profile_id)]
        ids = {event_sync_message_id(sync.key, c.profile_id, c.version): c for c in changes}
        known = await self._deliveries.existing(sync.key, ids) if ids else set()
        now = now_us()
        return [
            Work(
                event_sync_document(sync, sync.workspace_id, change, now),
                membership_event(sync, sync.workspace_id, id, change, now),
            )
            for id, change in ids.items()
            if id not in known
        ]


def _entry(sync: SyncConfig, member: Member) -> MembershipChange:
    """The change by which somebody became a member."""
    return MembershipChange(
        audience_id=sync.audience_id,
        profile_id=member.profile_id,
        member=True,
        version=member.version,
        effective_at_us=member.since_us,
        changed_at_us=member.since_us,
        cause="reconciled",
    )


async def _side_by_side(
    members: AsyncIterator[Member], known: AsyncIterator[tuple[str, bool, int]]
) -> AsyncIterator[tuple[Member | None, tuple[str, bool, int] | None]]:
    """Two lists in order of profile id as pairs; None where one lacks what the other has."""
    left = await anext(members, None)
    right = await anext(known, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.profile_id < right[0]):
            yield left, None
            left = await anext(members, None)
        elif left is None or right[0] < left.profile_id:
            yield None, right
            right = await anext(known, None)
        else:
            yield left, right
            left, right = await anext(members, None), await anext(known, None)
