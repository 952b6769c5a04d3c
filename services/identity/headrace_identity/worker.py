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
from headrace.storage.mongo.client import Database, Document, transaction
from headrace.telemetry import logs, metrics
from headrace_identity import gates, parked, store
from headrace_identity.emitter import Resolved
from headrace_identity.failures import is_conflict, is_events_fault
from headrace_identity.graph import Changes
from headrace_identity.replay import ACTION_NAMES
from headrace_identity.resolver import Prepared, prepare, resolve
from headrace_identity.rules import Rules
from headrace_identity.workspaces import Workspaces

_log = logs.get_logger(__name__)

_TRIES_BEFORE_SPLIT = 3
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25

_events = metrics.counter("headrace_identity_events", "Events that identity resolved, by what was decided.")
_conflicts = metrics.counter(
    "headrace_identity_conflicts", "Micro-batches that were resolved again because another worker was quicker."
)
_parked = metrics.counter("headrace_identity_parked", "Events that could not be processed and were put aside.")


class Incoming(NamedTuple):
    """An event with its place in the log."""

    event: Event
    segment_id: str
    place: int


@dataclass(slots=True)
class Outcome:
    """What came of a micro-batch: resolved events, in order, and which of them had been stored before."""

    resolved: list[Resolved] = field(default_factory=list)
    repeated: int = 0
    parked: int = 0

    def add(self, other: Outcome) -> None:
        """Append what came of the next part."""
        self.resolved += other.resolved
        self.repeated += other.repeated
        self.parked += other.parked


class EventFault(Exception):
    """Events of a micro-batch cannot be processed: the cause of each by message id."""

    def __init__(self, causes: Mapping[str, BaseException]) -> None:
        super().__init__("events cannot be processed")
        self.causes = causes


AtStep = Callable[[str], Awaitable[None]]
"""Called between any two steps with the name of the one before."""


async def no_step(_: str) -> None:
    """Nothing happens between the steps."""


class Worker:
    """Resolves micro-batches of one workspace each; any number may run at a time, here and in other processes."""

    def __init__(self, db: Database, *, at_step: AtStep = no_step) -> None:
        """Work on a database.

        Args:
            db: Database.
            at_step: Called between any two steps; tests end a worker there, or let another one be quicker.
        """
        self._db = db
        self._workspaces = Workspaces(db)
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
            except Exception as error:
                if is_conflict(error):
                    tries += 1
                    _conflicts.add(1)
                    self._gate = gates.choose()  # perhaps another worker has the same one
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
        await self._at_step("looked for repeated")
        new = [incoming for message_id, incoming in by_id.items() if message_id not in stored]
        resolved = await self._resolve(workspace_id, new) if new else {}
        await self._at_step("committed")
        for action, count in Counter(r.decision.action for r in resolved.values()).items():
            _events.add(count, {"action": ACTION_NAMES[action]})
        if stored:
            _events.add(len(stored), {"action": "repeated"})
        return Outcome([resolved.get(m) or stored[m] for m in by_id], repeated=len(stored))

    async def _stored(self, workspace_id: str, message_ids: Collection[str]) -> dict[str, Resolved]:
        """Those that were resolved before. The epoch is read first: in it their profiles hold, or in a later one."""
        stored = await log.events_by_id(self._db, workspace_id, message_ids)
        if not stored:
            return {}
        epoch = (await self._workspaces.read(workspace_id)).epoch
        again = await log.events_by_id(self._db, workspace_id, stored)
        return {message_id: Resolved.of(event, epoch) for message_id, event in again.items()}

    async def _resolve(self, workspace_id: str, new: Sequence[Incoming]) -> dict[str, Resolved]:
        async with transaction(self._db.client) as session:
            workspace = await self._workspaces.read(workspace_id, session)
            rules = workspace.rules
            await self._at_step("read rules")
            prepared = _prepare(new, rules)
            loaded = await store.load(self._db, session, workspace_id, prepared)
            await self._at_step("loaded")
            # Reserved after the first read: see the module `headrace.storage.mongo.log` and ADR 6.
            sequence = await log.next_sequence(self._db, len(new), now_us())
            await self._at_step("reserved")
            changes = Changes()
            at_us = now_us()
            resolved: dict[str, Resolved] = {}
            for number, (incoming, one) in enumerate(zip(new, prepared, strict=True), start=sequence):
                try:
                    resolution = resolve(loaded.graph, rules, one, number, changes)
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
            await self._at_step("written")
            documents = [_document(r) for r in resolved.values()]
            await self._db[log.EVENTS].insert_many(documents, ordered=False, session=session)
            await self._at_step("inserted")
            await gates.pass_gate(self._db, session, workspace_id, self._gate)
            await self._at_step("passed the gate")
        return resolved


def _prepare(new: Sequence[Incoming], rules: Rules) -> list[Prepared]:
    prepared: list[Prepared] = []
    faults: dict[str, BaseException] = {}
    for incoming in new:
        try:
            prepared.append(prepare(incoming.event, rules))
        except Exception as error:  # whatever it is: one event must not hold up the others
            faults[incoming.event.message_id] = error
    if faults:
        raise EventFault(faults)
    return prepared


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
