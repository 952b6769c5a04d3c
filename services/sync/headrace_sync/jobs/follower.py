"""Asking vendors for the jobs that are kept in the store, and writing down what came of each item.

Any process asks for any job; nothing waits for it meanwhile. A job is put off before it is asked for, so that several
processes seldom ask for the same; that they do is harmless, and so is every repetition after a crash: an item is
written down only while it has the job's mark, and a round is counted in its passes once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymongo.errors import PyMongoError

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Document
from headrace.telemetry import logs
from headrace_sync.config import SEPARATOR
from headrace_sync.deliveries.results import Results
from headrace_sync.deliveries.store import DeliveryStore, in_job
from headrace_sync.fleet import Fleet
from headrace_sync.jobs.store import JobStore, part_of
from headrace_sync.leases import Leases
from headrace_sync.lists.diff import RowChange
from headrace_sync.lists.following import Following
from headrace_sync.lists.passes import IN_JOB, again, worst
from headrace_sync.lists.results import MemberResult
from headrace_sync.lists.store import ListStore, record_of
from headrace_sync.outlets.batch import REMOVE_MEMBERS
from headrace_sync.outlets.jobs import ENDED, FIRST_PAUSE_S, GROWTH, LONGEST_PAUSE_S
from headrace_sync.outlets.outlet import Outlet
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.store import DELIVERED, FAILED, WAITING, WARNING

log = logs.get_logger(__name__)

LONGEST_S = 6 * 3600.0
"""How long a job is asked for. What it holds is sent again then, where the vendor drops what it has already."""

_ACCEPTED = frozenset({Kind.DELIVERED, Kind.WARNED})
_LEASE_S = 120.0
_MOST = 256
_MOST_PER_DESTINATION = 4
"""Jobs that are asked for at a time: a vendor that answers slowly keeps no other's waiting."""
_LOOK_EVERY_S = 0.2
_LATER_S = 5.0
_WAIT_FOR_PASS_S = 10.0
_LOOK_FOR_PASS_EVERY_S = 0.1
_ELSEWHERE = Verdict(Kind.LOST, "the list or its settings changed meanwhile", after_s=0.0)


@dataclass(slots=True)
class _Round:
    """What one round of questions about a stored job found: its items that ended, and what is left."""

    ended: list[tuple[Mapping[str, object], Verdict]] = field(default_factory=list)
    left: list[Document] = field(default_factory=list)


class JobFollower:
    """Follows stored jobs."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        fleet: Fleet,
        deliveries: DeliveryStore,
        lists: ListStore,
        leases: Leases,
        owner: str,
        plugin_attempts: int,
        following: Following,
    ) -> None:
        """Wire it; `run` starts it.

        Args:
            jobs: The jobs.
            fleet: Ways to destinations.
            deliveries: What of events is in jobs.
            lists: What of lists is.
            leases: Of an owner of their own, so that no pass of this process runs beside.
            owner: Unique name of this process.
            plugin_attempts: After how many failures of the plugin a delivery is parked.
            following: Knows where rows go by now.
        """
        self._following = following
        self._jobs = jobs
        self._fleet = fleet
        self._deliveries = deliveries
        self._lists = lists
        self._leases = leases
        self._owner = owner
        self._plugin_attempts = plugin_attempts
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._asking: Counter[str] = Counter()

    async def run(self) -> None:
        """Follow jobs until cancelled."""
        try:
            while True:
                try:
                    while len(self._under_way) < _MOST and await self._take():
                        pass
                except PyMongoError:
                    log.exception("jobs of vendors could not be read")
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await asyncio.shield(self._jobs.free(self._owner, now=now_us()))
            except PyMongoError:
                log.warning("jobs of vendors could not be given back and come back by their lease")

    async def _take(self) -> bool:
        """Begin with a job that is to be asked for; False when there is none."""
        lease_us = int(_LEASE_S * SECOND_US)
        busy = [key for key, count in self._asking.items() if count >= _MOST_PER_DESTINATION]
        document = await self._jobs.take(
            owner=self._owner, now=now_us(), lease_us=lease_us, besides=list(self._under_way), not_of=busy
        )
        if document is None:
            return False
        id, key = document["_id"], document["d"]

        def forget(_: asyncio.Task[None]) -> None:
            del self._under_way[id]
            self._asking[key] -= 1
            self._asking += Counter()  # only those above 0 stay

        self._asking[key] += 1
        self._under_way[id] = asyncio.create_task(self._follow(document))
        self._under_way[id].add_done_callback(forget)
        return True

    async def _follow(self, document: Document) -> None:
        """Ask once for a stored job; nothing that goes wrong with it ends the others."""
        try:
            left = await self._still_wanted(document)
            if not left:
                await self._jobs.goes_on(document, left)
                return
            whole = self._fleet.outlet(document["d"])
            # The list is the one into which the job went, whatever the sync fills by now.
            outlet = whole.for_list(document.get("l", "")) if whole is not None else None
            if outlet is None and await self._jobs.forget_without_destination(document):
                return
            if outlet is None or outlet.paused_s() > 0:
                if len(left) < len(document["p"]):
                    await self._jobs.goes_on(document, left)
                await self._jobs.put_off(document["_id"], until=now_us() + int(_LATER_S * SECOND_US))
                return
            document = {**document, "p": left}
            found = await ask_round(outlet, document, now_us())
            settle = self._settle_rows if document["k"] else self._settle_deliveries
            if found.ended and not await settle(outlet.info, document, found):
                await self._jobs.put_off(document["_id"], until=now_us() + int(_LOOK_EVERY_S * SECOND_US))
                return
            await self._jobs.goes_on(document, found.left)
        except Exception:
            # It was put off when it was taken, and is asked for again then.
            log.exception("a job of a vendor could not be followed")

    async def _still_wanted(self, document: Document) -> list[Document]:
        """The parts of a job but for those of whose deliveries none is left: their people were deleted.

        Nothing more is sent of them, and what such a part says of them is forgotten, also while the destination is
        paused.
        """
        parts: list[Document] = document["p"]
        if document["k"]:
            return parts
        ids = [str(item["id"]) for part in parts for item in part["i"]]
        waiting = await self._deliveries.in_job(document["_id"], ids)
        return [part for part in parts if any(str(item["id"]) in waiting for item in part["i"])]

    async def _settle_deliveries(self, info: wire.ConnectorInfo, document: Document, found: _Round) -> bool:
        """Write down what became of deliveries."""
        waiting = await self._deliveries.in_job(document["_id"], [str(item["id"]) for item, _ in found.ended])
        tried = [(waiting[str(item["id"])], verdict) for item, verdict in found.ended if item["id"] in waiting]
        results = Results(self._deliveries, info, self._plugin_attempts)
        if await results.write_down(tried, held=in_job(document["_id"])):
            self._fleet.wake(document["d"])
        return True

    async def _settle_rows(self, info: wire.ConnectorInfo, document: Document, found: _Round) -> bool:
        """Write down what became of rows of a list, between passes; False while one runs."""
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_PASS_S
        while True:
            async with self._leases.hold(f"pass{SEPARATOR}{document['k']}") as lease:
                if lease is not None:
                    await self._write_rows(info, document, found)
                    return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(_LOOK_FOR_PASS_EVERY_S)

    async def _write_rows(self, info: wire.ConnectorInfo, document: Document, found: _Round) -> None:
        here = "by" not in document or await self._following.is_of(document["k"], document["by"])
        by_member: dict[str, list[tuple[Mapping[str, object], Verdict]]] = {}
        for item, verdict in found.ended:
            by_member.setdefault(str(item["id"]), []).append((item, verdict if here else _ELSEWHERE))
        removes = document["op"] == REMOVE_MEMBERS
        left = {str(item["id"]) for part in found.left for item in part["i"]}
        waiting = await self._lists.in_job(document["_id"], list(by_member))
        now = now_us()
        results = [
            settled(document["_id"], member, by_member[id], info, removes=removes, goes_on=id in left, now=now)
            for id, member in waiting.items()
        ]
        await self._lists.finish(results, sync_key=document["k"], now=now)
        accepted = sum(verdict.kind in _ACCEPTED for _, verdict in found.ended)
        counted = {"removed" if removes else "added": accepted, "failed": len(found.ended) - accepted}
        await self._lists.runs.count_ended(document["rn"], document["_id"], document["n"], counted)


async def ask_round(outlet: Outlet, document: Document, now: int) -> _Round:
    """Ask for each part of a stored job that is to be asked for now.

    What could not be asked, or whose answer could not be read, is asked again: the vendor has it.
    """
    found = _Round()
    out_of_time = document["c"] + int(LONGEST_S * SECOND_US) <= now
    for part in document["p"]:
        if part["a"] > now:
            found.left.append(part)
            continue
        going: dict[str, tuple[list[Mapping[str, object]], float]] = {}
        for item, verdict in zip(part["i"], await outlet.poll(part["j"], len(part["i"])), strict=True):
            if verdict.kind in ENDED:
                found.ended.append((item, verdict))
            elif out_of_time:
                found.ended.append((item, Verdict(Kind.LOST, "the end of the vendor's job was not seen", verdict.code)))
            elif verdict.kind is Kind.PENDING and verdict.reason != part["j"]:
                # A job may end in another one, such as one that asks for the errors of the first.
                going.setdefault(verdict.reason, ([], verdict.after_s or 0.0))[0].append(item)
            else:
                wait_s = min(max(float(part["ws"]), FIRST_PAUSE_S) * GROWTH, LONGEST_PAUSE_S)
                wait_s = max(wait_s, verdict.after_s or 0.0)
                going.setdefault(part["j"], ([], wait_s))[0].append(item)
        found.left += [
            part_of(job, items, at=now + int(wait_s * SECOND_US), wait_s=wait_s)
            for job, (items, wait_s) in going.items()
        ]
    return found


def settled(
    job_id: str,
    document: Document,
    ended: Sequence[tuple[Mapping[str, object], Verdict]],
    info: wire.ConnectorInfo,
    *,
    removes: bool,
    goes_on: bool,
    now: int,
) -> MemberResult:
    """What a member is after the end of its rows' job.

    Args:
        job_id: The stored job.
        document: The member as it is stored.
        ended: (item of the job, verdict) of its rows.
        info: What the connector is.
        removes: True when the rows were to be removed.
        goes_on: True when other rows of the member are still in the job.
        now: The clock.
    """
    record = record_of(document)
    for item, verdict in ended:
        key = str(item["r"])
        if removes and verdict.kind in _ACCEPTED:
            record.forget([key])
        elif not removes and verdict.kind in _ACCEPTED:
            record.acknowledge([key])
        elif not removes and verdict.kind in (Kind.REJECTED, Kind.SKIPPED):
            record.forget([key])
    result = MemberResult(
        record=record,
        generation=max(int(str(item["g"])) for item, _ in ended),
        state=DELIVERED,
        due=int(document.get("due", 0)),
        rows=RowChange.REPLACED,
        out_of_job="" if goes_on else job_id,
    )
    problem = worst(verdict for _, verdict in ended if verdict.kind is not Kind.DELIVERED)
    if goes_on or len(document["jb"]) > 1:
        result.state, result.reason, result.in_job = WAITING, IN_JOB, True
        result.due = result.due or now  # what is left to be done shows when all its jobs have ended
    elif problem is None or problem.kind is Kind.WARNED:
        done = not removes or not record.desired
        result.state = DELIVERED if problem is None else WARNING
        result.due = result.due if done else result.due or now
    elif problem.kind in (Kind.REJECTED, Kind.SKIPPED):
        result.state = FAILED
    else:
        again(result, problem, info.retry, int(document.get("at", 0)) + 1, now)
    if problem is not None and not result.in_job:
        result.reason, result.code, result.exchange = problem.reason, problem.code, problem.exchange
    return result
