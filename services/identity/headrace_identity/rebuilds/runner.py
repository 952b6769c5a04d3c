"""Works on previews and rebuilds: resolve everything into a shadow, compare, and for a rebuild put it in place.

A rebuild resolves what was recorded before its rules were put in force; what came later followed those rules already.
It is put in place group by group: people whom no event ties to others, in one reassignment, which looks at all their
events again and is right whatever came meanwhile. Everything can be repeated: after a crash another replica starts
over, and finds less to do. When somebody else corrected people meanwhile, it is all compared again before it is done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from pymongo import ASCENDING
from pymongo.errors import PyMongoError

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.api.identity.v1 import profile_pb2
from headrace.domain.times import now_us
from headrace.rpc import names
from headrace.rpc.errors import CONCURRENT_CHANGE, LIMIT_EXCEEDED, WRONG_STATE, ApiError, concurrent_change
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session
from headrace.telemetry import logs, metrics
from headrace_identity import gates, workspaces
from headrace_identity.deletion.tombstones import Tombstones
from headrace_identity.documents import SEPARATOR
from headrace_identity.links_store import LinksStore
from headrace_identity.people.profiles import Profiles
from headrace_identity.reassign.change import Change, Outcome
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.rebuilds.comparison import Comparison, Example, Group, compare
from headrace_identity.rebuilds.shadow import Keep, Shadow
from headrace_identity.rebuilds.store import SWITCHING, Job, RebuildStore, Stopped
from headrace_identity.resolving.rules import Identifier, Rules, parse_text
from headrace_identity.worker import AtStep, no_step
from headrace_identity.workspaces import Workspace, Workspaces

_log = logs.get_logger(__name__)

_POLL_S = 1.0
_PROGRESS_S = 1.0
_BUSY_PAUSE_S = 0.2
_EVENTS_AT_A_TIME = 1_000
_EVENTS_A_SWITCH = 500
_MOST_PASSES = 10
_MOST_TRIES = 5
_MOST_IDENTIFIERS = 20
"""Identifiers that an example names of a profile."""

_jobs = metrics.counter("headrace_identity_rebuilds", "Previews and rebuilds of the identity graph, by how they ended.")
_shadowed = metrics.counter("headrace_identity_shadow_events", "Events that previews and rebuilds resolved in memory.")


class _Corrected(Exception):
    """Somebody corrected people while their events were compared."""


class Rebuilder:
    """Works on previews and rebuilds of all workspaces, one at a time. Any number of replicas may."""

    def __init__(
        self,
        db: Database,
        store: RebuildStore,
        reassigner: Reassigner,
        *,
        tombstones: Tombstones | None = None,
        events_at_a_time: int = _EVENTS_AT_A_TIME,
        events_a_switch: int = _EVENTS_A_SWITCH,
        at_step: AtStep = no_step,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            store: Previews and rebuilds.
            reassigner: Puts people in place.
            tombstones: Which events are left out; only a database without any can do without.
            events_at_a_time: Events that are resolved between two looks at anything else.
            events_a_switch: About how many events are put in place in one transaction.
            at_step: Called between any two steps; tests end it there, or let somebody else be quicker.
        """
        self._db = db
        self._store = store
        self._reassigner = reassigner
        self._workspaces = Workspaces(db)
        self._links = LinksStore(db)
        self._tombstones = tombstones
        self._profiles = Profiles(db)
        self._events_at_a_time = events_at_a_time
        self._events_a_switch = events_a_switch
        self._at_step = at_step
        self._owner = os.urandom(8).hex()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look for work at once."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._changed.clear()
            if not await self.step():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await self._changed.wait()

    async def step(self) -> bool:
        """Work on one preview or rebuild to its end, if there is one; returns whether there was.

        Raises:
            pymongo.errors.PyMongoError: A store failed; it is begun again later, here or by another replica.
        """
        job = await self._store.take(self._owner)
        if job is None:
            return False
        kind = "preview" if job.preview else "rebuild"
        if job.tries >= _MOST_TRIES:
            # Whoever had it ended each time: it must not end one replica after the other.
            await self._fail(job, "It was begun again and again and never ended: has identity too little memory?")
            return True
        try:
            await self._work(job)
        except Stopped:
            _jobs.add(1, {"kind": kind, "end": "stopped"})
            _log.info("a rebuild was stopped", workspace=job.workspace_id, kind=kind)
        except ApiError as error:
            await self._fail(job, error.message)
        except PyMongoError:  # it is begun again when the lease ends
            raise
        except asyncio.CancelledError:
            with suppress(Exception):  # it ends by itself when the lease does
                await asyncio.shield(self._store.put_down(job, self._owner))
            raise
        except Exception as error:
            _log.exception("a rebuild failed", workspace=job.workspace_id, kind=kind)
            await self._fail(job, f"It failed unexpectedly ({type(error).__name__}); the log has more.")
        else:
            _jobs.add(1, {"kind": kind, "end": "done"})
            _log.info("a rebuild is done", workspace=job.workspace_id, kind=kind)
        return True

    async def _fail(self, job: Job, reason: str) -> None:
        _jobs.add(1, {"kind": "preview" if job.preview else "rebuild", "end": "failed"})
        await self._store.fail(job, self._owner, reason)

    async def _work(self, job: Job) -> None:
        for _ in range(_MOST_PASSES):
            try:
                await self._pass(job)
            except _Corrected:
                continue
            else:
                return
        raise concurrent_change()

    async def _pass(self, job: Job) -> None:
        comparison, shadow, epoch = await self._compare(job)
        await self._at_step("compared")
        if not job.compared:  # else a part of it is in place already
            await self._write_comparison(job, comparison, shadow)
            job.compared = True
        del shadow  # it may be large
        if job.preview:
            await self._store.finish(job, self._owner)
        else:
            await self._switch(job, comparison.groups, epoch)

    async def _compare(self, job: Job) -> tuple[Comparison, Shadow, int]:
        """Resolve everything anew in memory and compare.

        Returns:
            What came of it, and the epoch in which it holds.

        Raises:
            _Corrected: Somebody corrected people meanwhile.
        """
        rules = parse_text(job.rules)  # of its own: what it caches is not shared with the lanes' threads
        workspace = await self._workspaces.read(job.workspace_id)
        shadow = Shadow(rules, job.version, await self._links.read(workspace), await self._keep(workspace))
        total = [await self._count(job.workspace_id)]

        def progress() -> Mapping[str, object]:
            return {"ev": [shadow.events, max(total[0], shadow.events)]}

        async with self._reporting(job, progress) as check:
            position, behind = 0, True
            while behind:
                # What comes while the others are resolved is few, and fewer each time.
                until = job.sequence or await self._horizon(job.workspace_id)
                count = shadow.events
                async for chunk in self._chunks(job.workspace_id, position, until):
                    await asyncio.to_thread(shadow.add, chunk)
                    _shadowed.add(len(chunk))
                    check()
                    await self._at_step("added")
                position = until
                behind = not job.sequence and shadow.events - count > self._events_at_a_time
            total[0] = shadow.events
            comparison = await asyncio.to_thread(compare, shadow)
            check()
        again = await self._workspaces.read(job.workspace_id)
        if _input(again) != _input(workspace):
            raise _Corrected
        return comparison, shadow, workspace.epoch

    async def _keep(self, workspace: Workspace) -> Keep:
        marks = await self._tombstones.marks(workspace) if self._tombstones is not None else None
        return marks.keep if marks is not None else lambda prepared, _: prepared

    async def _count(self, workspace_id: str) -> int:
        """Number of stored events of a workspace; answered by the index alone."""
        bounds = {"$gt": f"{workspace_id}{SEPARATOR}", "$lt": workspace_id + chr(ord(SEPARATOR) + 1)}
        return await self._db[log.EVENTS].count_documents({"_id": bounds})

    async def _horizon(self, workspace_id: str) -> int:
        """A sequence up to which every event is stored that ever will be."""

        async def reserve(_: Session) -> int:
            return await log.next_sequence(self._db, 1, now_us())

        return await gates.change(self._db, workspace_id, reserve)

    async def _chunks(self, workspace_id: str, after: int, until: int) -> AsyncIterator[list[Document]]:
        query = {"s": {"$gt": after, "$lte": until}, "w": workspace_id}
        fields = {"_id": 0, "s": 1, "p": 1, "e": 1, "d": 1}
        cursor = self._db[log.EVENTS].find(query, fields).sort("s", ASCENDING).batch_size(self._events_at_a_time)
        chunk: list[Document] = []
        async for document in cursor:
            chunk.append(document)
            if len(chunk) >= self._events_at_a_time:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    async def _switch(self, job: Job, groups: Sequence[Group], epoch: int) -> None:
        """Put a rebuild in place, and say that it is done.

        Raises:
            _Corrected: Somebody corrected people meanwhile, so it is not known whether all are in place.
        """
        rules = parse_text(job.rules)
        switched = 0
        corrected = False

        def progress() -> Mapping[str, object]:
            return {"sw": [switched, len(groups)]}

        async with self._reporting(job, progress):
            for some in _batches(groups, self._events_a_switch):
                # Also asks whether the job is ours still: who cancels means at once.
                await self._store.write(job, self._owner, {"st": SWITCHING, **progress()})
                for outcome in await self._reassign(job, rules, some):
                    corrected |= outcome.epoch != epoch + outcome.changed
                    epoch = outcome.epoch
                switched += len(some)
                await self._at_step("switched")
        await self._store.write(job, self._owner, {"st": SWITCHING, **progress()})
        await self._at_step("all switched")

        async def finish(session: Session) -> bool:
            workspace = await self._workspaces.read(job.workspace_id, session)
            if corrected or workspace.epoch != epoch:
                return False
            await workspaces.mark_rebuilt(self._db, session, job.workspace_id, job.version, job.sequence)
            await self._store.finish(job, self._owner, session)
            return True

        if not await gates.change(self._db, job.workspace_id, finish):
            raise _Corrected

    async def _reassign(self, job: Job, rules: Rules, groups: Sequence[Group]) -> list[Outcome]:
        """Put people in place, together or else in parts.

        Raises:
            ApiError: LIMIT_EXCEEDED, a group alone is too large.
            Stopped: The job was cancelled, or another replica has it.
        """
        change = Change(
            profiles=[profile for group in groups for profile in group.profiles],
            messages=[message for group in groups for message in group.messages],
            rules_of=lambda _: (job.version, rules),
        )
        while True:
            try:
                return [await self._reassigner.reassign(job.workspace_id, change)]
            except ApiError as error:
                if error.reason in (CONCURRENT_CHANGE, WRONG_STATE):
                    # These people are busy, or one is being deleted, and a rebuild has time: again, unless it was
                    # cancelled.
                    await self._store.write(job, self._owner, {})
                    await asyncio.sleep(_BUSY_PAUSE_S)
                    continue
                if error.reason != LIMIT_EXCEEDED or len(groups) == 1:
                    raise
            middle = len(groups) // 2
            return [
                *await self._reassign(job, rules, groups[:middle]),
                *await self._reassign(job, rules, groups[middle:]),
            ]

    async def _write_comparison(self, job: Job, comparison: Comparison, shadow: Shadow) -> None:
        examples = pb.Rebuild(
            merge_examples=[await self._example(job, e, shadow) for e in comparison.joins],
            split_examples=[await self._example(job, e, shadow) for e in comparison.splits],
        )
        counts = [
            comparison.profiles_before,
            comparison.profiles_now,
            comparison.joining,
            comparison.splitting,
            comparison.moved_events,
        ]
        fields = {"c": counts, "x": examples.SerializeToString(), "ev": [shadow.events, shadow.events]}
        await self._store.write(job, self._owner, fields)

    async def _example(self, job: Job, example: Example, shadow: Shadow) -> pb.RebuildExample:
        stored = await self._profiles.get(job.workspace_id, example.before)
        before = {p: stored[p].profile.identifiers if p in stored else () for p in example.before}
        now = {p: shadow.graph.profiles[p].identifiers for p in example.now}
        return pb.RebuildExample(
            before=[_profile(job.workspace_id, p, identifiers) for p, identifiers in before.items()],
            after=[_profile(job.workspace_id, p, identifiers) for p, identifiers in now.items()],
        )

    @asynccontextmanager
    async def _reporting(
        self, job: Job, progress: Callable[[], Mapping[str, object]]
    ) -> AsyncIterator[Callable[[], None]]:
        """Say every second how far a job is.

        Yields:
            A check that raises Stopped once the job is not this replica's any more.
        """
        stopped = False

        async def report() -> None:
            nonlocal stopped
            while not stopped:
                await asyncio.sleep(_PROGRESS_S)
                try:
                    await self._store.write(job, self._owner, progress())
                except Stopped:
                    stopped = True
                except PyMongoError:  # while the lease lasts it is ours all the same
                    _log.exception("the progress of a rebuild could not be written", workspace=job.workspace_id)

        def check() -> None:
            if stopped:
                raise Stopped

        reporter = asyncio.create_task(report())
        try:
            yield check
        finally:
            reporter.cancel()
            with suppress(asyncio.CancelledError):
                await reporter


def _input(workspace: Workspace) -> tuple[int, ...]:
    """What a comparison depends on, beside the events and the rules."""
    return workspace.epoch, workspace.links_version, workspace.tombstones_version


def _batches(groups: Iterable[Group], most_events: int) -> Iterator[list[Group]]:
    batch: list[Group] = []
    events = 0
    for group in groups:
        if batch and events + group.events > most_events:
            yield batch
            batch, events = [], 0
        batch.append(group)
        events += group.events
    if batch:
        yield batch


def _profile(workspace_id: str, profile_id: str, identifiers: Iterable[Identifier]) -> profile_pb2.Profile:
    return profile_pb2.Profile(
        name=names.format(names.PROFILE, workspace_id, profile_id),
        identifiers=[IdentifierMessage(namespace=n, value=v) for n, v in sorted(identifiers)[:_MOST_IDENTIFIERS]],
    )
