"""Members of a list sync as a pass looks at them: what each should have on the list, and what that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Document
from headrace_sdk import Member
from headrace_sync.batching import chunks
from headrace_sync.config import SyncConfig
from headrace_sync.lists.diff import Difference, MemberRecord, RowChange, difference
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind, Verdict, with_field
from headrace_sync.people.consents import Consents

_PART = 1_000
_PARTS_AT_A_TIME = 3


@dataclass(slots=True)
class Looked:
    """A member as it is looked at.

    Attributes:
        document: As it is stored; empty for somebody who is not known here yet.
        record: What is known of it.
        wanted: The rows that it should have: key -> data.
        consents: Consents that allow them, where the destination requires any.
        kept_out: Why it should have none though it is desired; None when it should.
        changes: What must be sent for it.
        verdicts: What became of that.
        rows: What became of its rows.
        again_us: When to look again though nothing failed; 0 for never.
        held: True when its changes wait for approval.
        plan: The plan that holds them, and what they are, when they are in one.
    """

    document: Document
    record: MemberRecord
    wanted: dict[str, Any] = field(default_factory=dict)
    consents: Consents = field(default_factory=dict)
    kept_out: Verdict | None = None
    changes: Difference = field(default_factory=lambda: Difference({}, {}))
    verdicts: list[Verdict] = field(default_factory=list)
    rows: RowChange = RowChange.NONE
    again_us: int = 0
    held: bool = False
    plan: list[str] | None = None


class Looker:
    """Looks at members of one list sync; changes nothing anywhere."""

    def __init__(self, sync: SyncConfig, outlet: Outlet, items: ItemBuilder) -> None:
        """Look at members of a sync, as its vendor takes them."""
        self._sync = sync
        self._outlet = outlet
        self._items = items

    async def look(self, members: Sequence[Looked]) -> None:
        """Find what is to be sent for members.

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
        """
        await self._want([member for member in members if member.record.desired])
        now = now_us()
        for member in members:
            member.changes = self._difference(member, now)

    async def _want(self, desired: Sequence[Looked]) -> None:
        """Find the rows that desired members should have, some members after the others and several at a time.

        The plugin's process makes rows of some while profiles of the next are read and mapped here.
        """
        at_a_time = asyncio.Semaphore(_PARTS_AT_A_TIME)

        async def part(members: Sequence[Looked]) -> None:
            async with at_a_time:
                await self._want_rows(members)

        await asyncio.gather(*map(part, chunks(desired, _PART)))

    async def _want_rows(self, desired: Sequence[Looked]) -> None:
        made = await self._items.members(self._outlet, self._sync, [m.record.profile_id for m in desired])
        usable: list[tuple[Looked, Member]] = []
        for member in desired:
            found = made[member.record.profile_id]
            if isinstance(found, Verdict):
                member.kept_out = found
            else:
                member.consents = found.consents
                usable.append((member, found.item))
        answers = await self._outlet.rows([found for _, found in usable])
        for (member, _), answer in zip(usable, answers, strict=True):
            if isinstance(answer, Verdict):
                member.kept_out = answer
            elif answer.rejected is not None:
                reason = with_field(answer.rejected.reason, answer.rejected.field)
                member.kept_out = Verdict(Kind.SKIPPED, reason)
            else:
                member.wanted = {row.key: row.data for row in answer.rows}
                if not member.wanted:
                    member.kept_out = Verdict(Kind.SKIPPED, "the connector makes no row of the member")

    def _difference(self, member: Looked, now: int) -> Difference:
        """What is to be sent for a member."""
        kept_out = member.kept_out
        if kept_out is not None and kept_out.kind is not Kind.SKIPPED:
            # Merged (its exit is on its way), or the plugin failed: nothing is known, so nothing is changed.
            return Difference({}, {})
        if not member.record.desired and member.document.get("hold", 0) > now:
            member.again_us = member.document["hold"]
            return Difference({}, {})
        changes = difference(member.record, member.wanted)
        if changes.remove and member.record.desired and self._outlet.info.rows_match_people:
            # Taking one row off takes the person off: all rows that stay are in doubt, and sent after it.
            return Difference(dict(member.wanted), changes.remove)
        return changes
