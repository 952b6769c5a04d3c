"""Resolves micro-batches: look up, apply the rules in memory, commit everything in one transaction.

When another worker changed the same people meanwhile, the micro-batch is resolved again on what it left; when that
happens repeatedly it is split in halves, so that only the part that collides repeats. An event that cannot be
processed is parked with its reason and holds nothing up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.api.common.v1.event_pb2 import Event
from headrace.domain.times import now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Document, Session, transaction
from headrace.telemetry import logs, metrics
from headrace_identity import demotions, gates, parked, store
from headrace_identity.alarms import Alarms
from headrace_identity.computed import folding
from headrace_identity.computed.store import Compiled
from headrace_identity.deletion.refusing import count_refused
from headrace_identity.deletion.tombstones import Marks, Tombstones
from headrace_identity.emitter import Resolved
from headrace_identity.failures import is_conflict, is_events_fault
from headrace_identity.groups import store as group_store
from headrace_identity.groups.statements import Mention
from headrace_identity.links_store import LinksStore
from headrace_identity.resolving.graph import Changes
from headrace_identity.resolving.replay import ACTION_NAMES
from headrace_identity.resolving.resolver import Prepared, prepare, resolve
from headrace_identity.resolving.rules import Rules
from headrace_identity.workspaces import Workspace, Workspaces

_log = logs.get_logger(__name__)

_TRIES_BEFORE_SPLIT = 3
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25

_events = metrics.counter("headrace_identity_events", "Events that identity resolved, by what was decided.")
_conflicts = metrics.counter(
    "headrace_identity_conflicts", "Micro-batches that were resolved again because another worker was quicker."
)
_parked = metrics.counter(
    "headrace_identity_parked", "Events that could not be processed and were put aside.", without_labels=True
)


class Incoming(NamedTuple):
    """An event with its place in the log."""

    event: Event
    segment_id: str
    place: int


@dataclass(slots=True)
class Outcome:
    """What came of a micro-batch: resolved events, in order, and which of them had been stored before.

    Events that tombstones refuse are in `refused` alone: nothing of them was stored, and nothing is sent on.
    """

    resolved: list[Resolved] = field(default_factory=list)
    repeated: int = 0
    parked: int = 0
    refused: list[Incoming] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Append what came of the next part."""
        self.resolved += other.resolved
        self.repeated += other.repeated
        self.parked += other.parked
        self.refused += other.refused


class EventFault(Exception):
    """Events of a micro-batch cannot be processed: the cause of each by message id."""

    def __init__(self, causes: Mapping[str, BaseException]) -> None:
        super().__init__("events cannot be processed")
        self.causes = causes


class NoTombstones(RuntimeError):
    """A worker that was wired without tombstones works on a workspace that has some."""


AtStep = Callable[[str], Awaitable[None]]
"""Called between any two steps with the name of the one before."""


async def no_step(_: str) -> None:
    """Nothing happens between the steps."""


class Worker:
    """Resolves micro-batches of one workspace each; any number may run at a time, here and in other processes."""

    def __init__(
        self,
        db: Database,
        *,
        tombstones: Tombstones | None = None,
        alarms: Alarms | None = None,
        at_step: AtStep = no_step,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            tombstones: Which events are refused; only a database without any can do without.
            alarms: Told of each micro-batch; None raises no alarms.
            at_step: Called between any two steps; tests end a worker there, or let another one be quicker.
        """
        self._db = db
        self._tombstones = tombstones
        self._alarms = alarms
        self._workspaces = Workspaces(db)
        self._computed = Compiled(db)
        self._links = LinksStore(db)
        self._gate = gates.choose()
        self._at_step = at_step

    async def process(self, workspace_id: str, events: Sequence[Incoming]) -> Outcome:
        """Resolve events and store them with all their effects, each exactly once.

        Args:
            workspace_id: The workspace of all of them.
            events: The events, in order; some may have been resolved before.

        Returns:
            Each event once, with the decision that is stored. Profile ids are those at the time of resolving.

        Raises:
            Exception: A store failed; what was not stored is not, and repeating is safe.
        """
        pause_s = _FIRST_PAUSE_S
        tries = 0
        parked_events = 0
        while events:
            try:
                outcome = await self._attempt(workspace_id, events)
            except NoTombstones:
                raise  # no event is at fault
            except gates.GateClosed:
                _conflicts.add(1)
                self._gate = gates.choose()  # perhaps another worker has the same one
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            except Exception as error:
                if is_conflict(error):
                    tries += 1
                    _conflicts.add(1)
                    if tries < _TRIES_BEFORE_SPLIT or len(events) == 1:
                        # Full jitter: two workers that collided must not do so again in step.
                        await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
                        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                        continue
                elif isinstance(error, EventFault):
                    await self._park(workspace_id, events, error.causes)
                    parked_events += len(error.causes)
                    events = [e for e in events if e.event.message_id not in error.causes]
                    continue
                elif not is_events_fault(error):
                    raise
                elif len(events) == 1:
                    await self._park(workspace_id, events, {events[0].event.message_id: error})
                    parked_events += 1
                    break
                outcome = await self._in_halves(workspace_id, events)
            outcome.parked += parked_events
            return outcome
        return Outcome(parked=parked_events)

    async def _in_halves(self, workspace_id: str, events: Sequence[Incoming]) -> Outcome:
        middle = len(events) // 2
        outcome = await self.process(workspace_id, events[:middle])
        outcome.add(await self.process(workspace_id, events[middle:]))
        return outcome

    async def _park(self, workspace_id: str, events: Sequence[Incoming], causes: Mapping[str, BaseException]) -> None:
        for incoming in events:
            cause = causes.get(incoming.event.message_id)
            if cause is not None:
                await parked.park(self._db, workspace_id, incoming.event, incoming.segment_id, incoming.place, cause)
                _log.error("an event was parked", workspace=workspace_id, segment=incoming.segment_id, cause=cause)
        _parked.add(len(causes))

    async def _attempt(self, workspace_id: str, events: Sequence[Incoming]) -> Outcome:
        by_id: dict[str, Incoming] = {}
        strangers: dict[str, BaseException] = {}
        for incoming in events:
            event = incoming.event
            if event.workspace_id != workspace_id or not event.message_id:
                strangers[event.message_id] = ValueError("it has no message id, or another workspace than its segment")
            by_id.setdefault(event.message_id, incoming)
        if strangers:
            raise EventFault(strangers)
        await self._at_step("begun")
        stored = await self._stored(workspace_id, by_id)
        await self._remember_repeats(workspace_id, events, by_id, stored)
        await self._at_step("looked for repeated")
        new = [incoming for message_id, incoming in by_id.items() if message_id not in stored]
        refused: dict[str, str] = {}
        resolved = await self._resolve(workspace_id, new, refused) if new else {}
        await self._at_step("committed")
        count_refused(Counter(refused.values()))
        for action, count in Counter(r.decision.action for r in resolved.values()).items():
            _events.add(count, {"action": ACTION_NAMES[action]})
        if stored:
            _events.add(len(stored), {"action": "repeated"})
        taken = [found for m in by_id if (found := resolved.get(m) or stored.get(m)) is not None]
        return Outcome(taken, repeated=len(stored), refused=[by_id[m] for m in refused])

    async def _stored(self, workspace_id: str, message_ids: Collection[str]) -> dict[str, Resolved]:
        """Those that were resolved before. The epoch is read first: in it their profiles hold, or in a later one."""
        stored = await log.events_by_id(self._db, workspace_id, message_ids)
        if not stored:
            return {}
        workspace = await self._workspaces.read(workspace_id)
        again = await log.events_by_id(self._db, workspace_id, stored)
        found = {message_id: Resolved.of(event, workspace.epoch) for message_id, event in again.items()}
        marks = await self._marks(workspace)
        if marks is not None and marks.deleted:
            # Those of a person whose deletion is under way are sent to nobody: they are as good as removed.
            return {m: r for m, r in found.items() if not marks.is_deleted(r.decision)}
        return found

    async def _remember_repeats(
        self,
        workspace_id: str,
        events: Sequence[Incoming],
        by_id: Mapping[str, Incoming],
        stored: Mapping[str, Resolved],
    ) -> None:
        """Remember segments that brought what another segment brought before; an entry that comes again is none."""
        repeats = set()
        for incoming in events:
            message_id = incoming.event.message_id
            first = stored.get(message_id) or by_id[message_id]
            if incoming.segment_id != first.segment_id:
                repeats.add((message_id, incoming.segment_id))
        await log.add_repeats(self._db, workspace_id, sorted(repeats))

    async def _marks(self, workspace: Workspace, session: Session | None = None) -> Marks | None:
        if not workspace.tombstones_version:
            return None
        if self._tombstones is None:
            raise NoTombstones
        return await self._tombstones.marks(workspace, session)

    async def _resolve(
        self, workspace_id: str, new: Sequence[Incoming], refused: dict[str, str]
    ) -> dict[str, Resolved]:
        """Resolve and store new events; those that are refused are left out, and told with the reason."""
        async with transaction(self._db.client) as session:
            workspace = await self._workspaces.read(workspace_id, session)
            if workspace.closing_us > now_us():
                raise gates.GateClosed
            rules = workspace.rules
            await self._at_step("read rules")
            marks = await self._marks(workspace, session)
            prepared = _prepare(new, rules, marks)
            if marks is not None:
                new, prepared = _admitted(new, prepared, marks, refused)
                if not new:
                    return {}
            links = await self._links.read(workspace, session)
            loaded = await store.load(self._db, session, workspace_id, prepared, links)
            await self._at_step("loaded")
            # Reserved after the first read: see the module `headrace.storage.mongo.log` and ADR 6.
            sequence = await log.next_sequence(self._db, len(new), now_us())
            await self._at_step("reserved")
            changes = Changes()
            at_us = now_us()
            resolved: dict[str, Resolved] = {}
            mentions: list[Mention] = []
            for number, (incoming, one) in enumerate(zip(new, prepared, strict=True), start=sequence):
                try:
                    resolution = resolve(loaded.graph, rules, one, number, changes, links)
                    if incoming.event.group_id:
                        mentions.append(Mention.of(incoming.event, resolution.profile_id, number))
                except Exception as error:
                    raise EventFault({incoming.event.message_id: error}) from error
                decision = resolution.decision
                decision.rules_version = workspace.rules_version
                resolved[incoming.event.message_id] = Resolved(
                    incoming.event,
                    incoming.event.SerializeToString(),
                    resolution.profile_id,
                    decision,
                    decision.SerializeToString(),
                    at_us,
                    incoming.segment_id,
                    incoming.place,
                    workspace.epoch,
                )
            await self._at_step("resolved")
            await store.write(self._db, session, workspace_id, loaded, changes)
            if mentions:
                await group_store.record(self._db, session, workspace_id, mentions, stripe=self._gate)
            found = [d for r in resolved.values() for d in demotions.demotions_of(r.profile_id, r.decision)]
            await demotions.add(self._db, session, workspace_id, found)
            await self._at_step("written")
            computed = await self._computed.read(workspace_id, workspace.computed_version, session)
            await folding.fold(self._db, session, workspace_id, computed, resolved.values())
            documents = [_document(r) for r in resolved.values()]
            await self._db[log.EVENTS].insert_many(documents, ordered=False, session=session)
            await self._at_step("inserted")
            await gates.pass_gate(self._db, session, workspace_id, self._gate)
            await self._at_step("passed the gate")
        if self._alarms is not None:
            self._alarms.notice(workspace_id, rules, resolved.values(), loaded.graph, changes)
        return resolved


def _prepare(new: Sequence[Incoming], rules: Rules, marks: Marks | None) -> list[Prepared]:
    prepared: list[Prepared] = []
    faults: dict[str, BaseException] = {}
    for incoming in new:
        try:
            prepared.append(prepare(incoming.event, rules))
        except Exception as error:  # whatever it is: one event must not hold up the others
            bare = _bare(incoming.event, rules)
            if marks is not None and marks.admit(bare) is None:
                prepared.append(bare)  # it is refused, and so not kept to be tried again either
            else:
                faults[incoming.event.message_id] = error
    if faults:
        raise EventFault(faults)
    return prepared


def _bare(event: Event, rules: Rules) -> Prepared:
    """What tombstones look at, of an event that cannot be processed."""
    identifiers = ((i.namespace, rules.check(i.namespace, i.value)) for i in event.identifiers)
    named = tuple((namespace, checked.value) for namespace, checked in identifiers if not checked.rule)
    return Prepared(event, named, (), (), {})


def _admitted(
    new: Sequence[Incoming], prepared: Sequence[Prepared], marks: Marks, refused: dict[str, str]
) -> tuple[list[Incoming], list[Prepared]]:
    """Events that are not refused; the message ids of the others with the reasons go into `refused`."""
    admitted = [(incoming, one, marks.admit(one)) for incoming, one in zip(new, prepared, strict=True)]
    refused.clear()
    refused.update({i.event.message_id: marks.reason(one) for i, one, taken in admitted if taken is None})
    kept = [(incoming, taken) for incoming, _, taken in admitted if taken is not None]
    return [incoming for incoming, _ in kept], [taken for _, taken in kept]


def _document(resolved: Resolved) -> Document:
    return log.event_document_of(
        resolved.event,
        resolved.event_bytes,
        profile_id=resolved.profile_id,
        sequence=resolved.decision.sequence,
        decision=resolved.decision_bytes,
        resolved_at_us=resolved.resolved_at_us,
        segment_id=resolved.segment_id,
        segment_index=resolved.place,
        linked=log.linked_of(resolved.decision),
    )
