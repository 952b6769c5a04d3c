"""When passes of list syncs run: soon after a change, now and then in any case, and when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto

import grpc
from pymongo.errors import PyMongoError

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.storage.mongo.client import Document
from headrace.telemetry import logs, metrics
from headrace_sync.config import SEPARATOR, SyncConfig
from headrace_sync.fleet import Fleet
from headrace_sync.jobs.store import JobStore
from headrace_sync.leases import Lease, LeaseLost, Leases
from headrace_sync.lists.following import Following
from headrace_sync.lists.passes import ListPass, Tally
from headrace_sync.lists.runs import Date, RunStatus
from headrace_sync.lists.schedules import next_run
from headrace_sync.lists.store import ListStore
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.plans.keeper import PlanKeeper
from headrace_sync.registry import Registry

log = logs.get_logger(__name__)

_passes = metrics.counter("headrace_list_passes", "Passes of list syncs, by connector and outcome.")
_rows = metrics.counter("headrace_list_rows", "Rows of list syncs, by connector and what was done.")

_BUSY_AGAIN_S = 0.5


_WITHDRAWN: Document = {"ur": True}


def _left_by(date: Date) -> Document:
    """Whom the last pass by the schedule did not come to, or has to try again."""
    unseen: list[Document] = [{"due": {"$lte": date.open_us}}] if date.open_us else []
    return {"$or": [{"op": True}, *unseen]}


class Extent(Enum):
    """Whom a pass looks at, of those that are due."""

    ALL = auto()
    """Everybody: it is time by the schedule, or somebody asked."""
    LEFT = auto()
    """Whom the last pass by the schedule did not come to, or has to try again; and what is urgent."""
    URGENT = auto()
    """Those alone who withdrew a consent: they wait for no schedule, and for no sync that is paused."""

    def query(self, date: Date | None) -> Document:
        """Which members these are.

        Args:
            date: The last pass by the schedule; None without one.
        """
        if self is Extent.ALL:
            return {}
        if self is Extent.URGENT or date is None:
            return _WITHDRAWN
        return {"$or": [_left_by(date), _WITHDRAWN]}


class Lists:
    """Runs the passes of all list syncs, each in a task of its own: a slow destination delays only itself."""

    def __init__(
        self,
        *,
        registry: Registry,
        fleet: Fleet,
        lists: ListStore,
        items: ItemBuilder,
        leases: Leases,
        plans: PlanKeeper,
        jobs: JobStore,
        following: Following,
        delete: Callable[[SyncConfig], Awaitable[object]],
        debounce_s: float,
        every_s: float,
    ) -> None:
        """Wire it; `run` starts it.

        Args:
            registry: The syncs.
            fleet: Ways to destinations.
            lists: Members and passes.
            items: Makes members.
            leases: So that one process at a time runs a sync's pass.
            plans: What waits for approval.
            jobs: What vendors took into jobs.
            following: Knows what rows go by.
            delete: Deletes a sync.
            debounce_s: How long a pass waits for more changes after one, in seconds.
            every_s: How often passes are looked for without a change, in seconds.
        """
        self._delete = delete
        self._emptied: set[str] = set()
        self._plans = plans
        self._jobs = jobs
        self._following = following
        self._registry = registry
        self._fleet = fleet
        self._lists = lists
        self._items = items
        self._leases = leases
        self._debounce_s = debounce_s
        self._every_s = every_s
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: dict[tuple[str, bool, bool], asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._evaluated: dict[str, int] = {}

    def wake(self, sync_key: str) -> None:
        """Something is to be done for members of a list sync."""
        wake = self._wakes.get(sync_key)
        if wake is not None:
            wake.set()

    async def run(self) -> None:
        """Follow the configuration until cancelled."""
        try:
            while True:
                # One that is paused or resumed is followed anew, which ends the pass that is under way.
                syncs = [s for s in self._registry.current.syncs.values() if s.is_list]
                wanted = {(s.key, s.paused, s.deleting) for s in syncs}
                for state in self._tasks.keys() - wanted:
                    self._end(self._tasks.pop(state))
                    self._wakes.pop(state[0], None)
                for state in wanted - self._tasks.keys():
                    wake = self._wakes[state[0]] = asyncio.Event()
                    self._tasks[state] = asyncio.create_task(self._follow(state[0], wake))
                await asyncio.sleep(min(self._every_s, 0.5))
        finally:
            for running in self._tasks.values():
                self._end(running)
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _follow(self, key: str, wake: asyncio.Event) -> None:
        """Run passes of one sync when there is something to do."""
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await wake.wait()
            except TimeoutError:
                pass
            if wake.is_set():
                await asyncio.sleep(self._debounce_s)
            wake.clear()
            try:
                if not await self.pass_once(key):
                    wake.set()  # somebody else runs one, which may have begun before the change
                    await asyncio.sleep(_BUSY_AGAIN_S)
            except PyMongoError:
                log.exception("a pass of a list sync stopped at the store")
            except Exception:
                log.exception("a pass of a list sync failed")
                await asyncio.sleep(_BUSY_AGAIN_S)

    async def pass_once(self, key: str) -> bool:
        """Run a pass if anything is to be done and it can be done; False when another process runs one."""
        sync = self._registry.current.syncs.get(key)
        if sync is None:
            return True
        outlet = self._fleet.outlet_of(sync)
        if sync.deleting:
            return await self._empty(sync, outlet)
        if outlet is None or outlet.paused_s() > 0:
            return True
        if not await self._following.is_behind(sync, outlet.place) and await self._extent(sync, outlet) is None:
            return True
        async with self._leases.hold(f"pass{SEPARATOR}{key}") as lease:
            if lease is None:
                return False
            if not await self._following.follow(sync, outlet.place):
                return True  # what is sent now would go by what is old
            extent = await self._extent(sync, outlet)  # another process may have been quicker
            if extent is not None:
                await self._run(sync, outlet, lease, extent)
        return True

    async def _empty(self, sync: SyncConfig, outlet: Outlet | None) -> bool:
        """Take everybody off a list, and then delete its sync; False when another process runs a pass."""
        async with self._leases.hold(f"pass{SEPARATOR}{sync.key}") as lease:
            if lease is None:
                return False
            # Once all who have rows, whatever they wait for; then who came by a change that was on its way.
            await self._lists.want_nobody(sync.key, now=now_us(), again=sync.key in self._emptied)
            self._emptied.add(sync.key)
            is_due = await self._lists.has_due(sync.key, now=now_us())
            is_ready = is_due and outlet is not None and outlet.paused_s() <= 0
            if outlet is not None and is_ready and await self._following.follow(sync, outlet.place):
                await self._run(sync, outlet, lease, Extent.ALL)
            lease.check()
            if not await self._lists.has_rows(sync.key):
                await self._delete(sync)
                self._emptied.discard(sync.key)
        return True

    async def _extent(self, sync: SyncConfig, outlet: Outlet) -> Extent | None:
        """What a pass that begins now is about; None when there is nothing to do."""
        if sync.paused:
            return Extent.URGENT if await self._lists.has_due(sync.key, now=now_us(), extra=_WITHDRAWN) else None
        if (
            await self._lists.runs.requested(sync.key)
            or await self._requires_anew(sync, outlet)
            or await self._plans.needs_pass(sync)
        ):
            return Extent.ALL
        date = await self._lists.runs.date(sync.key) if sync.schedule else None
        if date is None or next_run(sync.schedule, date.began_us) <= now_us():
            return Extent.ALL if await self._lists.has_due(sync.key, now=now_us()) else None
        if await self._lists.has_due(sync.key, now=now_us(), extra=_left_by(date)):
            return Extent.LEFT
        if await self._lists.has_due(sync.key, now=now_us(), extra=_WITHDRAWN):
            return Extent.URGENT
        return None

    async def _requires_anew(self, sync: SyncConfig, outlet: Outlet) -> bool:
        """True when other consents are required than at the last look at all members."""
        if self._evaluated.get(sync.key, 0) != outlet.consents_changed_us:
            if await self._lists.evaluated_consents(sync.key) != outlet.consents_changed_us:
                return True
            self._evaluated[sync.key] = outlet.consents_changed_us
        return False

    async def _run(self, sync: SyncConfig, outlet: Outlet, lease: Lease, extent: Extent) -> None:
        if not await self._follow_requirements(sync, outlet):
            return
        await self._lists.runs.end_interrupted(sync.key, now=now_us())
        requested = [] if sync.paused or sync.deleting else await self._lists.runs.requested(sync.key)
        anew = any(not run.get("marked") for run in requested)
        for run in requested:
            if not run.get("marked"):
                await self._lists.mark_all(sync.key, now=now_us(), doubt=bool(run.get("full")), at_once=True)
            await self._lists.runs.update(run["_id"], {"marked": True, "st": RunStatus.RUNNING})
        if requested:
            ids = [run["_id"] for run in requested]
        else:
            ids = [new_time_ordered_id()]
            await self._lists.runs.insert(new_run(sync, ids[0], end=-1))
        tally, status = Tally(), RunStatus.FAILED
        try:
            status = await self._pass(sync, outlet, lease, extent, tally, ids, anew=anew)
        except LeaseLost:
            status, tally.error = RunStatus.INTERRUPTED, "another process has taken over"
        except asyncio.CancelledError:
            status, tally.error = RunStatus.INTERRUPTED, "the sync was paused, resumed or deleted, or the process ended"
            raise
        except grpc.aio.AioRpcError as error:
            tally.error = f"profiles cannot be read ({error.code().name})"
        except Exception as error:
            tally.error = f"stopped by {type(error).__name__}"
            raise
        finally:
            for id in ids:
                await self._lists.runs.update(id, {**tally.document(), "end": now_us(), "st": status})
            _count(outlet, tally, status)

    async def _pass(
        self,
        sync: SyncConfig,
        outlet: Outlet,
        lease: Lease,
        extent: Extent,
        tally: Tally,
        ids: list[str],
        *,
        anew: bool,
    ) -> RunStatus:
        """Run a pass; says how it ended."""
        began, gate = now_us(), None
        date = await self._lists.runs.date(sync.key) if sync.schedule else None
        extra = extent.query(date)
        if not (sync.paused or sync.deleting):
            gate = await self._plans.gate(sync, outlet, lease, anew=anew, urgent=extent is Extent.URGENT, extra=extra)
        if sync.schedule and extent is Extent.ALL:
            date = Date(began, now_us())
            await self._lists.runs.begin_date(sync.key, date)
        work = ListPass(
            sync=sync,
            outlet=outlet,
            lists=self._lists,
            items=self._items,
            lease=lease,
            tally=tally,
            jobs=self._jobs,
            runs=ids,
            gate=gate,
            extra=extra,
        )
        seen_all = await work.run()
        if date is not None and extent is not Extent.URGENT and seen_all:
            await self._lists.runs.close_date(sync.key, date.open_us)
        if gate is not None and not outlet.paused_s() and await self._plans.conclude(sync, gate):
            tally.plan_id = gate.plan_id
        return RunStatus.SUCCEEDED if seen_all else RunStatus.FAILED

    async def _follow_requirements(self, sync: SyncConfig, outlet: Outlet) -> bool:
        """Look at all members again when other consents are required than before; only for who holds the lease.

        Returns:
            False when this process does not know yet what is required now.
        """
        evaluated = await self._lists.evaluated_consents(sync.key)
        if evaluated > outlet.consents_changed_us:
            return False
        if sync.paused or sync.deleting:
            return True  # they are looked at when it is resumed
        if evaluated < outlet.consents_changed_us:
            await self._lists.mark_all(sync.key, now=now_us(), doubt=False, at_once=True)
            await self._lists.remember_evaluated(sync.key, outlet.consents_changed_us)
        self._evaluated[sync.key] = outlet.consents_changed_us
        return True


def _count(outlet: Outlet, tally: Tally, status: RunStatus) -> None:
    """Count a pass and its rows, for the metrics."""
    labels = {"connector": outlet.info.name}
    _passes.add(1, {**labels, "outcome": "done" if status is RunStatus.SUCCEEDED else "stopped"})
    for what, count in (
        ("added", tally.added),
        ("removed", tally.removed),
        ("failed", tally.failed),
        ("pending", tally.pending),
    ):
        _rows.add(count, {**labels, "outcome": what})


def new_run(sync: SyncConfig, run_id: str, *, end: int = 0, full: bool = False) -> dict[str, object]:
    """A pass as it is stored at its beginning.

    Args:
        sync: The sync.
        run_id: Time-ordered id.
        end: 0 asks that it be run; -1 says that it runs.
        full: True sends every member again.
    """
    return {
        "_id": run_id,
        "k": sync.key,
        "w": sync.workspace_id,
        "start": now_us(),
        "end": end,
        "st": RunStatus.RUNNING if end else RunStatus.REQUESTED,
        "full": full,
        **Tally().document(),
    }
