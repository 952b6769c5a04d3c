"""Removes what the sync service keeps about a person who is to be deleted, and asks destinations to do the same.

The order makes every crash harmless. First it is written down that nothing may be sent about the person any more. Then
their rows are taken off lists, by a pass for them alone; then destinations that can are asked to forget them; then
what is kept here goes. Repeating all of it finds what came meanwhile, and asks those again that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import grpc

from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.telemetry import logs
from headrace_sdk import Subject
from headrace_sync.config import SEPARATOR, DestinationConfig, SyncConfig, key_of
from headrace_sync.erasure.store import ErasureStore
from headrace_sync.exchanges.store import ExchangeStore
from headrace_sync.fleet import Fleet
from headrace_sync.jobs.store import JobStore
from headrace_sync.leases import LeaseLost, Leases
from headrace_sync.lists.passes import IN_JOB, ListPass, Tally
from headrace_sync.lists.store import ListStore
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.batch import DELETE_PEOPLE
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind
from headrace_sync.registry import Registry
from headrace_sync.store import DELIVERIES, LEDGER, LIST_MEMBERS, ConfigStore

log = logs.get_logger(__name__)

_WAIT_FOR_PASS_S = 15.0
_LOOK_EVERY_S = 0.1
_NOT_ACTIVE = "the destination is paused or stopped: it is asked when it delivers again"
_BUSY = "the destination takes nothing at the moment"
_DELETION = "deletion"
_MORE_THAN_LISTS = frozenset({"event_sync", "forwarding"})
"""Who takes events knows people beside its lists, and forgets them as such."""


class Result(IntEnum):
    """What became of a place, the worst last."""

    REMOVED = 1
    REQUESTED = 2
    NOT_SUPPORTED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Whom:
    """A person, or a share of what there is of one.

    Attributes:
        workspace_id: The workspace.
        deletion_id: The deletion.
        profile_ids: All parts of the person, the surviving one first.
        identifiers: Their identifiers by namespace; none in calls that only bring further messages.
        message_ids: Message ids of their events.
    """

    workspace_id: str
    deletion_id: str
    profile_ids: Sequence[str] = ()
    identifiers: dict[str, list[str]] = field(default_factory=dict)
    message_ids: Sequence[str] = ()


@dataclass(slots=True)
class Place:
    """What became of one place; `detail` is a sentence without personal data."""

    name: str
    result: Result = Result.REMOVED
    count: int = 0
    detail: str = ""

    def worse(self, result: Result, detail: str) -> None:
        """Take in what became of a part of it."""
        if result > self.result:
            self.result, self.detail = result, detail

    def left(self, sync_ids: Sequence[str]) -> None:
        """The person may be on the lists of syncs that were deleted, which nothing was asked to take them off."""
        text = f"may still be on the list of a sync that was deleted ({', '.join(sync_ids)})"
        if self.result is Result.REMOVED:
            self.result, self.detail = Result.NOT_SUPPORTED, text
        else:
            self.detail = f"{self.detail}; {text}" if self.detail else text


class Eraser:
    """Removes people."""

    def __init__(
        self,
        *,
        config_store: ConfigStore,
        registry: Registry,
        erasures: ErasureStore,
        lists: ListStore,
        new_leases: Callable[[], Leases],
        fleet: Fleet,
        items: ItemBuilder,
        jobs: JobStore,
        exchanges: ExchangeStore,
    ) -> None:
        """Wire it.

        Args:
            config_store: Destinations and syncs as stored.
            registry: The same in memory.
            erasures: What is known of deletions.
            lists: Members of list syncs.
            new_leases: Leases of an owner of their own, so that no pass of this process runs beside.
            fleet: Ways to destinations.
            items: Makes members.
            jobs: What vendors took into jobs.
            exchanges: Requests that are kept for the delivery log.
        """
        self._jobs = jobs
        self._exchanges = exchanges
        self._config_store = config_store
        self._registry = registry
        self._erasures = erasures
        self._lists = lists
        self._new_leases = new_leases
        self._fleet = fleet
        self._items = items

    async def erase(self, whom: Whom) -> list[Place]:
        """Remove a person; repeating it is harmless.

        Raises:
            pymongo.errors.PyMongoError: The store does not answer; repeat it.
        """
        await self._erasures.begin(whom.workspace_id, whom.deletion_id, whom.profile_ids)
        await self._config_store.announce()
        snapshot = await self._registry.refresh()
        syncs = [s for s in snapshot.syncs.values() if s.workspace_id == whom.workspace_id]
        others = {s.key: s for s in syncs if not s.is_list}
        destinations = {k: d for k, d in snapshot.destinations.items() if d.workspace_id == whom.workspace_id}
        places = {key: Place(d.name) for key, d in destinations.items()}
        await self._exchanges.write()  # what is only named yet could not be removed
        members = Place(LIST_MEMBERS)
        lists = [s for s in syncs if s.is_list and whom.profile_ids and s.destination_key in places]
        gone = await asyncio.gather(*(self._off_list(whom, s, places[s.destination_key], members) for s in lists))
        members.count = sum(gone)
        sent: set[str] = set()

        async def sent_to(keys: set[str]) -> None:
            for key in keys - sent:
                if key in destinations:
                    await self._erasures.note(whom.workspace_id, whom.deletion_id, destinations[key].id, {"sent": True})
            sent.update(keys)

        deliveries = Place(DELIVERIES)
        deliveries.count = await self._erasures.remove_deliveries(
            whom.workspace_id,
            whom.deletion_id,
            others,
            profile_ids=whom.profile_ids,
            message_ids=whom.message_ids,
            sent_to=sent_to,
        )
        left = await self._erasures.left_on_lists(whom.workspace_id, whom.deletion_id, whom.profile_ids)
        forwarding = [s.key for s in syncs if s.is_forwarding]
        ledger = Place(LEDGER)
        ledger.count = await self._erasures.remove_from_ledger(
            whom.workspace_id, whom.deletion_id, forwarding, whom.message_ids
        )
        await asyncio.gather(*(self._ask(whom, d, places[key], again=key in sent) for key, d in destinations.items()))
        for id, sync_ids in left.items():
            name = f"workspaces/{whom.workspace_id}/destinations/{id}"
            places.setdefault(key_of(whom.workspace_id, id), Place(name)).left(sync_ids)
        told = [p for p in places.values() if p.count or p.result is not Result.REMOVED]
        return [members, deliveries, ledger, *sorted(told, key=lambda p: p.name)]

    async def _off_list(self, whom: Whom, sync: SyncConfig, place: Place, members: Place) -> int:
        """Take a person off a list, also one whose sync is paused; returns how many members are gone."""
        if not await self._lists.mark_erased(sync.key, whom.profile_ids, now=now_us()):
            return 0
        if await self._lists.holds_rows(sync.key, whom.profile_ids):
            fault = await self._removed(whom, sync, place)
            if await self._lists.holds_rows(sync.key, whom.profile_ids):
                place.worse(Result.FAILED, fault or "the destination did not take the removal from its list")
                members.worse(Result.FAILED, "rows wait to be taken off a list")
        return await self._lists.drop_members(sync.key, whom.profile_ids)

    async def _removed(self, whom: Whom, sync: SyncConfig, place: Place) -> str:
        """Remove a person's rows, waiting a while for jobs of the vendor; returns what prevented it."""
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_PASS_S
        while True:
            fault = await self._pass(whom, sync, place)
            in_job = await self._lists.in_jobs(sync.key, whom.profile_ids)
            if not in_job:
                return fault
            while in_job and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(_LOOK_EVERY_S)
                in_job = await self._lists.in_jobs(sync.key, whom.profile_ids)
            if in_job or not await self._lists.holds_rows(sync.key, whom.profile_ids):
                return IN_JOB if in_job else fault

    async def _pass(self, whom: Whom, sync: SyncConfig, place: Place) -> str:
        """Send the removals of a person's rows; returns what prevented it."""
        outlet = self._fleet.outlet_of(sync)
        if outlet is None:
            return _NOT_ACTIVE
        if outlet.paused_s() > 0:
            return _BUSY
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_PASS_S
        leases = self._new_leases()
        while True:
            async with leases.hold(f"pass{SEPARATOR}{sync.key}") as lease:
                if lease is not None:
                    tally = Tally()
                    work = ListPass(
                        sync=sync,
                        outlet=outlet,
                        lists=self._lists,
                        items=self._items,
                        lease=lease,
                        tally=tally,
                        jobs=self._jobs,
                        only=whom.profile_ids,
                    )
                    try:
                        await work.run()
                    except LeaseLost:
                        return "another process has taken over the list"
                    except grpc.aio.AioRpcError:
                        return "profiles cannot be read now"
                    finally:
                        place.count += tally.removed + tally.pending
                    return tally.error
            if asyncio.get_running_loop().time() > deadline:
                return "a pass of the list is under way"
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ask(self, whom: Whom, destination: DestinationConfig, place: Place, *, again: bool) -> None:
        """Ask a destination to forget a person, where its connector can; what came of it is remembered."""
        known = (await self._erasures.destinations(whom.workspace_id, whom.deletion_id)).get(destination.id, {})
        was_sent = bool(known.get("sent") or known.get("l"))
        result, detail = Result(known.get("o", Result.REMOVED)), str(known.get("t", ""))
        if whom.identifiers and (again or "o" not in known or result is Result.FAILED):
            result, detail = await self._request(whom, destination, was_sent)
            note = {"o": int(result), "t": detail}
            await self._erasures.note(whom.workspace_id, whom.deletion_id, destination.id, note)
        place.worse(result, detail)

    async def _request(self, whom: Whom, destination: DestinationConfig, was_sent: bool) -> tuple[Result, str]:
        info = self._fleet.info(destination)
        if info is None and was_sent:
            return Result.FAILED, "its plugin is not loaded"
        if info is None or _DELETION not in info.capabilities:
            if was_sent:
                return Result.NOT_SUPPORTED, "its connector cannot ask it to delete what it was sent"
            return Result.REMOVED, ""
        async with self._fleet.lent(destination) as outlet:
            if outlet is None:
                return Result.FAILED, _NOT_ACTIVE
            if outlet.paused_s() > 0:
                return Result.FAILED, _BUSY
            found = [
                await ask_to_forget(outlet.for_list(one), whom, was_sent=was_sent)
                for one in self._lists_of(destination, info)
            ]
            return max(found, key=lambda one: one[0])

    def _lists_of(self, destination: DestinationConfig, info: wire.ConnectorInfo) -> list[str]:
        """The lists by which a destination is asked: all that are filled, where its connector knows lists alone."""
        if info.capabilities & _MORE_THAN_LISTS:
            return [""]
        syncs = self._registry.current.syncs.values()
        return sorted({"", *(s.list_id for s in syncs if s.is_list and s.destination_key == destination.key)})


async def ask_to_forget(outlet: Outlet, whom: Whom, *, was_sent: bool) -> tuple[Result, str]:
    """Ask a destination to forget a person; a job that the vendor makes of it is not waited for: that takes hours."""
    profile_id = whom.profile_ids[0] if whom.profile_ids else ""
    subject = Subject(profile_id=profile_id, identifiers=dict(whom.identifiers), merged_ids=list(whom.profile_ids[1:]))

    async def leave(job: str, places: Sequence[int], after_s: float) -> None:
        log.info("the vendor works on a deletion", connector=outlet.info.name)

    (verdict,) = await outlet.send(DELETE_PEOPLE, [subject], taken=leave)
    if verdict.kind is Kind.PENDING:
        return Result.REQUESTED, "the vendor works on it"
    if verdict.kind in (Kind.DELIVERED, Kind.WARNED):
        return Result.REQUESTED, verdict.reason
    if verdict.kind is Kind.SKIPPED:
        return (Result.NOT_SUPPORTED, verdict.reason) if was_sent else (Result.REMOVED, "")
    if verdict.kind is Kind.REJECTED:
        return Result.NOT_SUPPORTED, verdict.reason
    return Result.FAILED, verdict.reason or _BUSY
