"""Plans of list syncs within their passes: when one has to be made, and what a pass may send.

The order makes every crash harmless. That a plan is being made is stored before its first member is, and it waits only
once it is complete; one that is not is made anew. What is about to be changed unasked is counted before it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace_sync.alerts.sender import Alerts, approval_needed
from headrace_sync.config import SyncConfig
from headrace_sync.leases import Lease
from headrace_sync.lists.looking import Looked, Looker
from headrace_sync.lists.store import ListStore, record_of
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.plans.gate import Gate
from headrace_sync.plans.rules import Counts, Window, never_waits, operation_of
from headrace_sync.plans.store import PlanStore

_AT_ONCE = 1_000


class PlanKeeper:
    """Makes plans and gates. All of it is for who holds the lease of the sync's passes."""

    def __init__(self, plans: PlanStore, lists: ListStore, items: ItemBuilder, alerts: Alerts) -> None:
        """Keep plans in a store, and tell of those that wait."""
        self._alerts = alerts
        self._plans = plans
        self._lists = lists
        self._items = items

    async def needs_pass(self, sync: SyncConfig) -> bool:
        """True when a plan asks for a pass."""
        return await self._plans.needs_pass(sync.key, guarded=sync.is_guarded)

    async def gate(
        self,
        sync: SyncConfig,
        outlet: Outlet,
        lease: Lease,
        *,
        anew: bool,
        urgent: bool,
        extra: Mapping[str, Any],
    ) -> Gate | None:
        """What the pass that begins may send; None when all of it.

        Args:
            sync: The list sync.
            outlet: The way to its vendor.
            lease: Of its passes, held.
            anew: True makes a new plan in place of one that waits.
            urgent: True for a pass of withdrawals of consent alone: it asks for nothing.
            extra: Query of the members that it looks at.

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
            LeaseLost: Another process may have begun a pass.
        """
        if not sync.is_guarded:
            if await self._plans.is_open(sync.key):
                await self._lists.release_held(sync.key, now=now_us())
                await self._plans.close(sync.key)
            return None
        await self._plans.drop_unmade(sync.key)
        approved = await self._plans.approved(sync.key)
        if urgent:
            return Gate(approved=approved, closed=True)
        if anew:
            await self._plans.discard(sync.key)
        waiting = (await self._plans.waiting([sync.key])).get(sync.key)
        if waiting is not None:
            # Should a process have ended before it told of the plan; what was told is not told again.
            await self._tell(sync, waiting["_id"], waiting["r"])
            return Gate(approved=approved, closed=True)
        await self._lists.release_held(sync.key, now=now_us())
        await self._plans.begun(approved)
        reason = "the sync asks for approval"
        if not sync.require_approval:
            window = await self._window(sync)
            share = window.share(await self._count(sync, outlet, lease, approved, extra))
            if share <= sync.most_changed_percent:
                return Gate(
                    approved=approved,
                    percent=sync.most_changed_percent,
                    window=window,
                    spend=lambda unasked, granted: self._plans.spend(sync.key, unasked, granted),
                )
            reason = f"{share:.0f} % of the list would change, and {sync.most_changed_percent} % may unasked"
        plan_id = new_time_ordered_id()
        await self._plans.begin(plan_id, sync_key=sync.key, workspace_id=sync.workspace_id, reason=reason, now=now_us())
        return Gate(
            approved=approved,
            plan_id=plan_id,
            reason=reason,
            spend=lambda unasked, granted: self._plans.spend(sync.key, unasked, granted),
        )

    async def conclude(self, sync: SyncConfig, gate: Gate) -> bool:
        """A pass has looked at everybody: its plan waits. True when there is one."""
        if gate.plan_id and gate.held:
            await self._plans.made(gate.plan_id, gate.held)
            await self._tell(sync, gate.plan_id, gate.reason)
        elif gate.plan_id:
            await self._plans.drop_unmade(sync.key)
        elif gate.held and not gate.closed:
            await self._lists.release_held(sync.key, now=now_us())  # more came than was counted: it is asked for
        return bool(gate.plan_id and gate.held)

    async def _tell(self, sync: SyncConfig, plan_id: str, reason: str) -> None:
        """Keep the alert about a plan that waits; until that is written down a pass is asked for."""
        await self._alerts.add(sync.destination_key, approval_needed(sync.name, plan_id, reason))
        await self._plans.told(plan_id)

    async def _window(self, sync: SyncConfig) -> Window:
        now = now_us()
        window = await self._plans.window(sync.key, now=now)
        if window is None:
            window = Window(now, await self._lists.count_on_list(sync.key))
            await self._plans.begin_window(sync.key, window)
        return window

    async def _count(
        self, sync: SyncConfig, outlet: Outlet, lease: Lease, approved: frozenset[str], extra: Mapping[str, Any]
    ) -> Counts:
        """What a pass would change unasked."""
        counts, now, after = Counts(), now_us(), ""
        looker = Looker(sync, outlet, self._items)
        while True:
            lease.check()
            documents = await self._lists.due(sync.key, now=now, after=after, limit=_AT_ONCE, extra=extra)
            if not documents:
                return counts
            after = documents[-1]["_id"]
            # Rows of merged profiles are handed over, which changes nothing on the list.
            members = [
                Looked(d, record_of(d)) for d in documents if d["desired"] or not d.get("into") or not d.get("rows")
            ]
            await looker.look(members)
            for member in members:
                waits_not = member.kept_out is not None and never_waits(member.kept_out.reason)
                if not waits_not and (member.document.get("pn") or [""])[0] not in approved:
                    counts.take(operation_of(member.record, member.changes))
