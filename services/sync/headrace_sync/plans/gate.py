"""What a pass of a list sync may send: all of it, what was approved, or as much as may be changed unasked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from headrace_sync.lists.diff import Difference
from headrace_sync.lists.looking import Looked
from headrace_sync.plans.rules import Counts, Operation, Window, digest, never_waits, operation_of

Spend = Callable[[Counts, int], Awaitable[None]]
"""Writes down what is about to be changed: unasked, and how many people are about to be added by approval."""


class Gate:
    """Decides for each member of a pass.

    Attributes:
        held: People whose changes wait.
        plan_id: The plan that they are written into; empty when they wait for the next one.
        reason: Why that plan has to be approved.
        closed: True when nothing goes through unasked.
    """

    def __init__(
        self,
        *,
        approved: frozenset[str],
        plan_id: str = "",
        reason: str = "",
        closed: bool = False,
        percent: int = 0,
        window: Window | None = None,
        spend: Spend | None = None,
    ) -> None:
        """Make a gate.

        Args:
            approved: Ids of the plans that were approved.
            plan_id: A new plan, into which everything else goes.
            reason: Why it has to be approved.
            closed: True lets nothing through unasked.
            percent: Share of the list that may be changed unasked, with
            window: what was changed of it so far.
            spend: Called before anything goes through.
        """
        self.held = Counts()
        self.plan_id = plan_id
        self.reason = reason
        self._approved = approved
        self.closed = closed or bool(plan_id)
        self._percent = percent
        self._window = window
        self._spend = spend

    async def admit(self, members: Sequence[Looked]) -> None:
        """Take away the changes of members that have to wait."""
        unasked, granted = Counts(), 0
        for member in members:
            operation = operation_of(member.record, member.changes)
            if operation in (Operation.NOTHING, Operation.RESEND):
                continue
            if member.kept_out is not None and never_waits(member.kept_out.reason):
                continue
            if self._is_approved(member):
                granted += operation is Operation.ADD
            elif self._may_change(operation):
                unasked.take(operation)
            else:
                self._hold(member, operation)
        if self._spend is not None and (unasked or granted):
            await self._spend(unasked, granted)

    def _is_approved(self, member: Looked) -> bool:
        plan_id, approved_digest = member.document.get("pn") or ("", "")
        return plan_id in self._approved and approved_digest == digest(member.changes)

    def _may_change(self, operation: Operation) -> bool:
        if self.closed or self._window is None:
            return not self.closed
        one = Counts()
        one.take(operation)
        if self._window.share(one) > self._percent:
            return False
        self._window.count(one)
        return True

    def _hold(self, member: Looked, operation: Operation) -> None:
        self.held.take(operation)
        member.held = True
        member.plan = [self.plan_id, digest(member.changes)] if self.plan_id else None
        member.changes = Difference({}, {})
