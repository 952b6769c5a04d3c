"""One pass of a list sync: what should be on the vendor's list against what may be there, and sending the difference.

The order makes every crash harmless. Rows that moved with a merge are handed over first. A row is written down before
it is sent. Removals go before additions. Results are written last; what was sent without a stored result stays in
doubt, and the next pass sends it again. What the vendor took into a job waits for its end in the store
(`headrace_sync.jobs`), and no pass looks at its member meanwhile.

While a chunk is sent the next one is read and looked at. Only one chunk at a time is written to the store.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.connector import wire
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.storage.mongo.client import Document
from headrace_sdk import RetryPolicy, Row
from headrace_sync.batching import chunks
from headrace_sync.config import SyncConfig
from headrace_sync.jobs.store import JobItem, JobStore
from headrace_sync.leases import Lease
from headrace_sync.lists.diff import (
    Difference,
    MemberRecord,
    RowChange,
    difference,
    doubt,
    intend,
    removable,
    resend_everything,
)
from headrace_sync.lists.looking import Looked, Looker
from headrace_sync.lists.results import MemberResult
from headrace_sync.lists.store import ListStore, member_id, record_of
from headrace_sync.mappings.items import ItemBuilder
from headrace_sync.outlets.backoff import delay_us
from headrace_sync.outlets.batch import ADD_MEMBERS, REMOVE_MEMBERS
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.people.consents import FRESH_S
from headrace_sync.plans.gate import Gate
from headrace_sync.plans.rules import APPROVAL, never_waits
from headrace_sync.store import DELIVERED, FAILED, FILTERED, WAITING, WARNING

_FEWEST_AT_ONCE = 1_000
_MOST_AT_ONCE = 10_000
"""Bounds of how many members are in hand at a time; between them it is what the vendor takes at a time."""
_TRIAL_MEMBERS = 100
"""How many are while it is not known whether the vendor answers again: all of it may be for nothing."""
HOLD_US = 30 * SECOND_US
"""How long rows that came with a merge are not removed: the survivor's own membership is on its way."""

_GIVE_UP_TRIES = 20
"""Refused tries in a row after which a member counts as failed; the difference is still looked at now and then."""
_FAILED_AGAIN_US = 3600 * SECOND_US
_BUSY = "the destination takes nothing at the moment"
IN_JOB = "the vendor works on it"
"""Reason of a member whose rows are in a job."""
FAR_US = 3650 * DAY_US
"""After how long a member is looked at that waits for somebody to decide."""


@dataclass(slots=True)
class Tally:
    """What a pass did.

    Attributes:
        added: Rows that the vendor took.
        removed: Rows that the vendor dropped.
        failed: Rows that stay different.
        pending: Rows that the vendor took into jobs, whose end is asked for later.
        skipped: Members left out, by reason.
        error: What stopped it.
        looked_at: Members looked at.
        held: Members whose changes wait for approval.
        plan_id: The plan that was made of them.
    """

    added: int = 0
    removed: int = 0
    failed: int = 0
    pending: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    error: str = ""
    looked_at: int = 0
    held: int = 0
    plan_id: str = ""

    def document(self) -> Document:
        """Its stored form."""
        skipped = [{"r": reason, "n": count} for reason, count in self.skipped.items()]
        return {
            "added": self.added,
            "removed": self.removed,
            "failed": self.failed,
            "pending": self.pending,
            "skipped": skipped,
            "error": self.error,
            "held": self.held,
            "plan": self.plan_id,
        }


class _Chunk:
    """Members that are looked at together.

    Attributes:
        members: They.
        size: How many were read.
        last_id: Database id of the last of these.
        merged: True when rows of some have to be handed over before anybody is looked at.
        looked_at: When they were looked at, by the monotonic clock.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self.members = [Looked(document, record_of(document)) for document in documents]
        self.size = len(documents)
        self.last_id = str(documents[-1]["_id"]) if documents else ""
        self.merged = any(_is_merged(member.record) for member in self.members)
        self.looked_at = 0.0

    def forget_look(self) -> None:
        """Have them looked at as if nobody had."""
        self.members = [Looked(member.document, member.record) for member in self.members]


class ListPass:
    """A pass over the members of one list sync that something is to be done for."""

    def __init__(
        self,
        *,
        sync: SyncConfig,
        outlet: Outlet,
        lists: ListStore,
        items: ItemBuilder,
        lease: Lease,
        tally: Tally,
        jobs: JobStore,
        runs: Sequence[str] = (),
        only: Sequence[str] | None = None,
        gate: Gate | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a pass; `run` carries it out.

        Args:
            sync: The list sync.
            outlet: The way to its vendor.
            lists: Its members.
            items: Makes members.
            lease: Of its passes, held.
            tally: Counts what is done.
            jobs: Keeps what the vendor takes into jobs.
            runs: Ids under which the pass is stored.
            only: Looks at these profiles alone; None looks at all.
            gate: What may be sent; None lets everything through.
            extra: Looks only at members that match this query.
        """
        self._extra: Document = {**(extra or {})} if only is None else {"p": {"$in": list(only)}, **(extra or {})}
        self._sync = sync
        self._outlet = outlet
        self._lists = lists
        self._looker = Looker(sync, outlet, items)
        self._lease = lease
        self._tally = tally
        self._jobs = jobs
        self._runs = runs
        self._gate = gate
        self._removes_only = sync.paused and not sync.deleting and only is None
        self._at_once = members_at_once(outlet.info, outlet.required_consents)
        self._handed_over = False
        self._not_after: float | None = None

    async def run(self) -> bool:
        """Look at every member that is due, chunk by chunk.

        Returns:
            False when it ended before it came to all of them.

        Raises:
            grpc.aio.AioRpcError: Profiles cannot be read now.
            LeaseLost: Another process may have begun a pass.
        """
        began = now_us()
        chunk = await self._read("", began)
        while True:
            self._lease.check()
            if not chunk.size:
                if not self._handed_over:
                    return True
                began, self._handed_over = now_us(), False  # the survivors are due now
                chunk = await self._read("", began)
                continue
            if chunk.merged:
                await self._hand_over_all(chunk)
            ahead = asyncio.create_task(self._read(chunk.last_id, began))
            try:
                await self._carry_out(chunk)
                self._tally.looked_at += chunk.size
                if self._outlet.paused_s() > 0:
                    self._tally.error = self._tally.error or self._outlet.refusal or _BUSY
                    return False
                chunk = await ahead
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, after: str, began: int) -> _Chunk:
        """Read the members after an id, and look at them unless rows have to be handed over first."""
        limit = min(self._at_once, _TRIAL_MEMBERS) if self._outlet.is_on_trial() else self._at_once
        documents = await self._lists.due(self._sync.key, now=began, after=after, limit=limit, extra=self._extra)
        chunk = _Chunk(documents)
        if not chunk.merged:
            await self._look(chunk)
        return chunk

    async def _look(self, chunk: _Chunk) -> None:
        chunk.looked_at = time.monotonic()
        await self._looker.look(chunk.members)

    async def _carry_out(self, chunk: _Chunk) -> None:
        """Send what a chunk changes, and write down what became of it."""
        if self._outlet.required_consents and time.monotonic() - chunk.looked_at > FRESH_S / 2:
            chunk.forget_look()
            await self._look(chunk)
        self._not_after = chunk.looked_at + FRESH_S if self._outlet.required_consents else None
        members = chunk.members
        if self._removes_only:
            members = await self._never_waiting(members)
        if self._gate is not None:
            await self._gate.admit(members)
        members = await self._intend(members)
        await self._remove(members)
        await self._add(members)
        await self._finish(members)

    async def _never_waiting(self, members: Sequence[Looked]) -> list[Looked]:
        """Those who are taken off also while the sync is paused; of the others nothing is urgent any more."""
        leaving: list[Looked] = []
        others: list[Looked] = []
        for member in members:
            kept_out = member.kept_out
            is_leaving = not member.record.desired or (kept_out is not None and never_waits(kept_out.reason))
            is_unknown = kept_out is not None and kept_out.kind is Kind.PLUGIN
            (leaving if is_leaving or is_unknown else others).append(member)
        await self._lists.not_urgent(self._sync.key, [(m.record.profile_id, _generation(m)) for m in others])
        return leaving

    async def _hand_over_all(self, chunk: _Chunk) -> None:
        """Give the rows of merged profiles to their survivors; some of these may be in the same chunk."""
        self._handed_over = True
        stay = []
        for member in chunk.members:
            if _is_merged(member.record):
                await self._hand_over(member)
            else:
                stay.append(member.record.profile_id)
        # Survivors among them have rows now that were not read with them.
        found = await self._lists.get(self._sync.key, stay)
        chunk.members = [Looked(found[id], record_of(found[id])) for id in stay if id in found]
        await self._look(chunk)

    async def _hand_over(self, member: Looked) -> None:
        """Give the rows of a merged profile to its survivor."""
        record = member.record
        found = await self._lists.get(self._sync.key, [record.merged_into])
        document = found.get(record.merged_into)
        if document is not None and document.get("jb"):
            # The end of the survivor's job is written into its rows.
            await self._lists.look_later(self._sync.key, record.profile_id, at=now_us() + HOLD_US)
            return
        survivor = record_of(document) if document is not None else MemberRecord(record.merged_into)
        survivor.receive(record.rows)
        now = now_us()
        await self._lists.hand_over(
            self._sync.workspace_id,
            self._sync.key,
            survivor,
            record.profile_id,
            now=now,
            hold_until=now + HOLD_US,
            urgent=bool(member.document.get("ur")),
        )

    async def _intend(self, members: list[Looked]) -> list[Looked]:
        """Write down the rows that are about to be added; returns the members without those who left meanwhile.

        Nothing is sent for who left, or is gone: the pass after this one looks at them as they are by then.
        """
        new = [member for member in members if intend(member.record, member.changes.add)]
        left = await self._lists.intend_rows(self._sync.key, [member.record for member in new])
        return [member for member in members if member.record.profile_id not in left] if left else members

    async def _remove(self, members: Sequence[Looked]) -> None:
        """Take rows off the list, unless another member holds them."""
        losing = [member for member in members if member.changes.remove]
        if not losing:
            return
        keys = {key for member in losing for key in member.changes.remove}
        here = {key for member in members for key in _held_by(member)}
        others = await self._lists.holders(
            self._sync.key, list(keys), besides=[member.record.profile_id for member in members]
        )
        sending: list[tuple[Looked, Row]] = []
        doubted: list[Looked] = []
        for member in losing:
            to_send, to_forget = removable(member.changes.remove, others | here)
            if to_forget:
                member.record.forget(to_forget)
                member.rows = RowChange.REPLACED
            if to_send and member.changes.add and self._outlet.info.rows_match_people:
                resend_everything(member.record)
                doubted.append(member)
            elif doubt(member.record, to_send):
                doubted.append(member)
            elif not to_send and self._outlet.info.rows_match_people:
                # Nothing goes out for this person, so what is acknowledged stays so.
                member.changes = Difference(difference(member.record, member.wanted).add, {})
            sending += [(member, Row(key=key, data=member.changes.remove[key])) for key in to_send]
        await self._lists.save_rows([(self._sync.key, member.record) for member in doubted])
        for member, row, verdict in await self._send(REMOVE_MEMBERS, sending):
            if verdict.kind in (Kind.DELIVERED, Kind.WARNED):
                member.record.forget([row.key])
                member.rows = RowChange.REPLACED
                self._tally.removed += 1
            else:
                self._differs(member, verdict)

    async def _add(self, members: Sequence[Looked]) -> None:
        """Put rows on the list, written down beforehand."""
        # What is being removed is not added before its end: what comes of both would be the vendor's choice.
        adding = [member for member in members if member.changes.add and not _in_job(member)]
        if self._outlet.required_consents:
            await self._lists.save_consents(self._sync.key, {m.record.profile_id: m.consents for m in adding})
        sending = [(member, Row(key=key, data=data)) for member in adding for key, data in member.changes.add.items()]
        for member, row, verdict in await self._send(ADD_MEMBERS, sending, not_after=self._not_after):
            if verdict.kind in (Kind.DELIVERED, Kind.WARNED):
                member.record.acknowledge([row.key])
                member.rows = max(member.rows, RowChange.ACKNOWLEDGED)
                self._tally.added += 1
                if verdict.kind is Kind.WARNED:
                    member.verdicts.append(verdict)
                continue
            if verdict.kind in (Kind.REJECTED, Kind.SKIPPED):
                member.record.forget([row.key])
                member.rows = RowChange.REPLACED
            self._differs(member, verdict)

    def _differs(self, member: Looked, verdict: Verdict) -> None:
        """A row of the member is not as it should be, for now or for good."""
        member.verdicts.append(verdict)
        if verdict.kind is Kind.PENDING:
            self._tally.pending += 1
        else:
            self._tally.failed += 1

    async def _send(
        self, operation: str, rows: Sequence[tuple[Looked, Row]], *, not_after: float | None = None
    ) -> list[tuple[Looked, Row, Verdict]]:
        """Send rows in batches, several at a time."""
        if not rows:
            return []
        at_a_time = asyncio.Semaphore(self._outlet.info.concurrency)

        async def batch(part: Sequence[tuple[Looked, Row]]) -> list[tuple[Looked, Row, Verdict]]:
            async with at_a_time:
                self._lease.check()

                async def taken(job: str, chosen: Sequence[int], after_s: float) -> None:
                    items = [_item(self._sync.key, *part[i]) for i in chosen]
                    await self._jobs.keep_rows(
                        self._sync.destination_key,
                        self._sync.key,
                        operation,
                        items,
                        job,
                        runs=self._runs,
                        after_s=after_s,
                        place=self._outlet.place,
                    )

                verdicts = await self._outlet.send(
                    operation, [row for _, row in part], not_after=not_after, taken=taken
                )
            return [(member, row, verdict) for (member, row), verdict in zip(part, verdicts, strict=True)]

        sent = await asyncio.gather(*map(batch, chunks(rows, self._outlet.info.batch.max_items)))
        return [answer for part in sent for answer in part]

    async def _finish(self, members: Sequence[Looked]) -> None:
        """Write down what became of the members."""
        now = now_us()
        results = [self._result(member, now) for member in members]
        for result in results:
            if result.state == FILTERED and result.record.desired:
                self._tally.skipped[result.reason] = self._tally.skipped.get(result.reason, 0) + 1
        await self._lists.finish(results, sync_key=self._sync.key, now=now)

    def _result(self, member: Looked, now: int) -> MemberResult:
        tries = int(member.document.get("at", 0))
        result = MemberResult(
            record=member.record,
            generation=_generation(member),
            state=DELIVERED,
            rows=_row_change(member),
        )
        if member.held:
            self._tally.held += 1
            result.state, result.reason, result.plan = WAITING, APPROVAL, member.plan
            result.due, result.tries = now + FAR_US, tries
            return result
        verdicts = [*member.verdicts]
        if member.kept_out is not None:
            if member.kept_out.kind is Kind.PLUGIN:
                verdicts.append(member.kept_out)
            else:
                result.state, result.reason = FILTERED, member.kept_out.reason
        problem = worst(verdicts)
        if problem is None:
            result.due = member.again_us
            return result
        result.reason, result.code, result.exchange = problem.reason, problem.code, problem.exchange
        if problem.kind is Kind.PENDING:
            result.state, result.reason, result.tries, result.in_job = WAITING, IN_JOB, tries, True
            if any(verdict.kind is not Kind.PENDING for verdict in verdicts):
                result.due = now  # once the job has ended: something else is to be done, too
        elif problem.kind is Kind.WARNED:
            result.state = WARNING
        elif problem.kind is Kind.UNTRIED:
            result.state, result.tries = WAITING, tries
            result.due = now + int((problem.after_s or 1.0) * SECOND_US)
        elif problem.kind in (Kind.REJECTED, Kind.SKIPPED):
            result.state = FAILED if problem.kind is Kind.REJECTED else FILTERED
        else:
            again(result, problem, self._outlet.info.retry, tries + 1, now)
        return result


def again(result: MemberResult, problem: Verdict, policy: RetryPolicy, tries: int, now: int) -> None:
    """Look at a member again later: it stays different until the vendor takes it."""
    result.tries = tries
    result.state = WAITING if tries < _GIVE_UP_TRIES else FAILED
    delay = delay_us(
        tries,
        base_s=policy.base_s,
        cap_s=policy.cap_s,
        draw=random.random(),  # noqa: S311 - jitter
        asked_s=problem.after_s,
    )
    result.due = now + (delay if tries < _GIVE_UP_TRIES else max(delay, _FAILED_AGAIN_US))


def members_at_once(info: wire.ConnectorInfo, required_consents: Sequence[str]) -> int:
    """How many members a pass has in hand at a time.

    As many as fill the requests that the vendor takes at a time; few where consents are required, because what was made
    of them may be sent only for some seconds.

    Args:
        info: What the connector is.
        required_consents: Purposes that a person must have granted.
    """
    if required_consents:
        return _FEWEST_AT_ONCE
    return min(max(_FEWEST_AT_ONCE, info.batch.max_items * info.concurrency), _MOST_AT_ONCE)


def _is_merged(record: MemberRecord) -> bool:
    """True when rows of a merged profile wait for its survivor."""
    return bool(not record.desired and record.merged_into and record.rows)


def _row_change(member: Looked) -> RowChange:
    """What became of the rows that are stored for a member."""
    if member.rows is RowChange.ACKNOWLEDGED and not member.record.is_acknowledged:
        return RowChange.REPLACED  # some of them only
    return member.rows


def _in_job(member: Looked) -> bool:
    return any(verdict.kind is Kind.PENDING for verdict in member.verdicts)


def _item(sync_key: str, member: Looked, row: Row) -> JobItem:
    return JobItem(member_id(sync_key, member.record.profile_id), row.key, _generation(member))


def _generation(member: Looked) -> int:
    return int(member.document.get("g", 0))


def _held_by(member: Looked) -> Iterable[str]:
    """Keys of the rows that a member has on the list, or is given by this pass."""
    if not member.record.desired:
        return ()
    is_unknown = member.kept_out is not None and member.kept_out.kind is not Kind.SKIPPED
    # Who waits for approval, or of whom nothing is known now, keeps what is written down, and gets nothing more.
    return member.record.rows if member.held or is_unknown else member.wanted


_ORDER = (Kind.PENDING, Kind.UNTRIED, Kind.RETRY, Kind.LOST, Kind.PLUGIN, Kind.REJECTED, Kind.SKIPPED, Kind.WARNED)


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict that decides what becomes of a member: one that has to be tried again before one that is final."""
    found: Mapping[Kind, Verdict] = {verdict.kind: verdict for verdict in verdicts}
    return next((found[kind] for kind in _ORDER if kind in found), None)
