"""Carries out reassignments: find who is concerned, resolve their events anew, put the outcome in place.

Most of the work is done before the transaction, on what is stored at that moment. The transaction closes the gates,
looks what has come since, and writes the difference: so micro-batches of the workspace wait for the writing only.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.rpc.errors import concurrent_change, limit_exceeded, links_contradict, person_erased, wrong_state
from headrace.storage.mongo.client import Database, Session, transaction
from headrace.telemetry import logs, metrics
from headrace_identity import gates, links_store, workspaces
from headrace_identity.deletion.tombstones import Marks, Tombstones
from headrace_identity.failures import is_conflict
from headrace_identity.links_store import LinksStore
from headrace_identity.reassign import apply
from headrace_identity.reassign.anew import Anew, BeingDeleted
from headrace_identity.reassign.change import Change, Outcome
from headrace_identity.reassign.closure import Closure, TooManyEvents
from headrace_identity.reassign.folds import FOLDS, Fold
from headrace_identity.reassign.plan import Plan, difference, events_by_part
from headrace_identity.reassign.rulebook import Rulebook
from headrace_identity.resolving.links import Links
from headrace_identity.worker import AtStep, NoTombstones, no_step
from headrace_identity.workspaces import Workspace, Workspaces

_log = logs.get_logger(__name__)

DEFAULT_MOST_EVENTS = 50_000

_MOST_TRIES = 20
_MOST_WHILE_OTHERS_WAIT = 2_000
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.5

_reassignments = metrics.counter("headrace_identity_reassignments", "Reassignments that changed something.")
_reassigned = metrics.counter("headrace_identity_reassigned_events", "Events that were assigned anew.")
_repeated = metrics.counter(
    "headrace_identity_reassignment_conflicts", "Reassignments that were tried again because others were quicker."
)


class _Overtaken(Exception):
    """What was planned on is not what is stored any more: plan anew."""


@dataclass(slots=True)
class _Draft:
    """What was worked out before the transaction.

    Attributes:
        workspace: The workspace as it was.
        links: Its manual links after the change.
        closure: Whom it concerns.
        anew: What their events make.
        used: Whether a transaction has begun to add to it.
    """

    workspace: Workspace
    links: Links
    closure: Closure
    anew: Anew
    used: bool = False


class Reassigner:
    """Changes what events are resolved by, together with everything that follows from it. All or nothing."""

    def __init__(
        self,
        db: Database,
        *,
        most_events: int = DEFAULT_MOST_EVENTS,
        committed: Callable[[], None] = lambda: None,
        folds: Sequence[Fold] = FOLDS,
        tombstones: Tombstones | None = None,
        at_step: AtStep = no_step,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            most_events: How many events one reassignment may concern.
            committed: Called after each commit; wakes whoever announces reassignments.
            folds: What else is kept per part.
            tombstones: What was deleted people's; only a database without any can do without.
            at_step: Called between any two steps; tests end it there, or let somebody else be quicker.
        """
        self._db = db
        self._workspaces = Workspaces(db)
        self._links = LinksStore(db)
        self._most_events = most_events
        self._committed = committed
        self._folds = folds
        self._tombstones = tombstones
        self._at_step = at_step

    async def reassign(self, workspace_id: str, change: Change) -> Outcome:
        """Carry out a change, and assign all events concerned anew.

        One transaction writes the change, profiles, identifiers, events, folds, the record in the log and the epoch.
        While it runs, micro-batches of the workspace wait; they are then resolved by the changed input.

        Args:
            workspace_id: The workspace.
            change: The change.

        Returns:
            What came of it. When nothing about anybody changes, the change is stored and the epoch stays.

        Raises:
            ApiError: LIMIT_EXCEEDED, too many events are concerned; LINKS_CONTRADICT, the links to be added contradict
                those stored; PERSON_ERASED, one names a deleted or suppressed person; WRONG_STATE, somebody is being
                deleted; CONCURRENT_CHANGE, others changed the same people again and again. Nothing was done.
            pymongo.errors.PyMongoError: A store failed; nothing was done, or all of it when the answer was lost.
        """
        pause_s = _FIRST_PAUSE_S
        draft: _Draft | None = None
        for tries in range(_MOST_TRIES):
            try:
                if tries >= gates.PATIENCE:
                    await gates.ask_for_room(self._db, workspace_id)
                if draft is None or draft.used:
                    draft = await self._draft(workspace_id, change)
                    await self._at_step("drafted")
                outcome = await self._attempt(change, draft)
            except _Overtaken:
                draft = None
                _repeated.add(1)
            except TooManyEvents as error:
                raise _too_many(error) from None
            except BeingDeleted:
                message = "Somebody concerned is being deleted: wait until that is done."
                raise wrong_state("deleting", message) from None
            except Exception as error:
                if not is_conflict(error):
                    raise
                _repeated.add(1)
            else:
                await self._at_step("committed")
                self._committed()
                return outcome
            # Full jitter: whoever was quicker may come again at once.
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not for secrets
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise concurrent_change()

    async def _draft(self, workspace_id: str, change: Change) -> _Draft:
        """Work out a change on what is stored now."""
        workspace = await self._workspaces.read(workspace_id)
        before = await self._links.read(workspace)
        after = _changed_links(before, change)
        rulebook = Rulebook(self._workspaces.rules, workspace, change.rules_of)
        most = change.most_events if change.most_events is not None else self._most_events
        closure = Closure(self._db, workspace_id, (before, after), rulebook, most)
        removed = [before.by_id[link_id] for link_id in change.remove_links if link_id in before.by_id]
        await closure.seed(
            None,
            identifiers={*change.identifiers, *(i for link in (*change.add_links, *removed) for i in link.pair)},
            profiles=change.profiles,
            messages=change.messages,
        )
        marks = await self._marks(workspace)
        _check_links(marks, change)
        anew = Anew(after, marks)
        await anew.resolve(closure.in_order())
        return _Draft(workspace, after, closure, anew)

    async def _marks(self, workspace: Workspace) -> Marks | None:
        if not workspace.tombstones_version:
            return None
        if self._tombstones is None:
            raise NoTombstones
        return await self._tombstones.marks(workspace)

    async def _attempt(self, change: Change, draft: _Draft) -> Outcome:
        workspace_id = draft.workspace.id
        async with transaction(self._db.client) as session:
            await gates.close_gates(self._db, session, workspace_id)
            await self._at_step("closed the gates")
            workspace = await self._workspaces.read(workspace_id, session)
            if _input(workspace) != _input(draft.workspace):
                raise _Overtaken
            draft.used = True
            await self._catch_up(session, draft)
            await self._at_step("caught up")
            stored = await apply.read_stored(self._db, session, workspace_id, draft.closure)
            events = draft.closure.in_order()
            plan = difference(workspace_id, events, stored, draft.anew)
            await self._at_step("planned")
            await self._write_links(session, workspace_id, change)
            epoch = workspace.epoch
            if not plan.empty:
                await apply.write_people(self._db, session, workspace_id, plan)
                await self._at_step("wrote people")
                await apply.write_events(self._db, session, workspace_id, plan)
                await self._at_step("wrote events")
                epoch = await apply.record(self._db, session, workspace_id, plan)
                await self._at_step("recorded")
            changed = await self._workspaces.read(workspace_id, session)
            now = events_by_part(plan.changed_parts, events, draft.anew)
            if plan.changed_parts:
                for fold in self._folds:
                    await fold.rewrite(self._db, session, changed, plan.old_parts, now)
            await self._at_step("folded")
            outcome = _outcome(change, draft, plan, epoch)
            if change.write is not None:
                await change.write(session, outcome)
            await self._at_step("written")
        if not plan.empty:
            _reassignments.add(1)
            _reassigned.add(len(plan.events))
            _log.info(
                "events were assigned anew",
                workspace=workspace_id,
                epoch=epoch,
                concerned=len(events),
                assigned=len(plan.events),
                moved=plan.moved_events,
            )
        return outcome

    async def _catch_up(self, session: Session, draft: _Draft) -> None:
        """Add what has come since the draft.

        Raises:
            _Overtaken: It comes before what was resolved, and there are too many events to resolve all of them while
                micro-batches wait.
        """
        new = await draft.closure.refresh(session)
        if not new or new[0].sequence > draft.anew.last:
            await draft.anew.resolve(new)
            return
        if len(draft.closure.events) > _MOST_WHILE_OTHERS_WAIT:
            raise _Overtaken
        draft.anew = draft.anew.from_the_start()
        await draft.anew.resolve(draft.closure.in_order())

    async def _write_links(self, session: Session, workspace_id: str, change: Change) -> None:
        if not change.add_links and not change.remove_links:
            return
        await links_store.remove(self._db, session, workspace_id, change.remove_links)
        await links_store.add(self._db, session, workspace_id, change.add_links)
        await workspaces.count(self._db, session, workspace_id, "l")


def _input(workspace: Workspace) -> tuple[int, ...]:
    """What a draft depends on, beside the events."""
    return (
        workspace.epoch,
        workspace.links_version,
        workspace.tombstones_version,
        workspace.rebuilt_version,
        workspace.rebuilt_sequence,
    )


def _changed_links(before: Links, change: Change) -> Links:
    """The links after a change.

    Raises:
        ApiError: LINKS_CONTRADICT.
    """
    kept = {link_id: link for link_id, link in before.by_id.items() if link_id not in set(change.remove_links)}
    links = Links(kept.values()) if len(kept) < len(before.by_id) else before
    for link in change.add_links:
        chain = links.contradiction(link)
        if chain is not None:
            raise links_contradict(chain)
        links = Links([*links.by_id.values(), link])
    return links


def _outcome(change: Change, draft: _Draft, plan: Plan, epoch: int) -> Outcome:
    identifiers = {*change.identifiers, *(i for link in change.add_links for i in link.pair)}
    found = {i: draft.anew.graph.find(i) for i in identifiers}
    return Outcome(
        epoch=epoch,
        moved_events=plan.moved_events,
        holders={identifier: root.id for identifier, root in found.items() if root is not None},
        affected=plan.affected,
        changed=not plan.empty,
    )


def _check_links(marks: Marks | None, change: Change) -> None:
    """Refuse to link by hand what was a deleted or suppressed person's own.

    It would give their events to somebody whose own are taken, and keep in the clear what was deleted. The links of an
    undone merge only keep apart what is stored.
    """
    if marks is None:
        return
    named = [identifier for link in change.add_links if not link.undone_merge for identifier in link.pair]
    if any(marks.is_own(identifier) for identifier in named):
        raise person_erased("An identifier of the link is a deleted or suppressed person's: unsuppress them first.")


def _too_many(error: TooManyEvents) -> Exception:
    message = f"More than {error.most} events are concerned."
    if error.people > 1:
        message += (
            f" One {error.namespace} alone ties {error.people} profiles together: if it names nobody, block it in the"
            " identity rules and rebuild; else raise HEADRACE_IDENTITY_REASSIGN_EVENTS."
        )
    else:
        message += " Raise HEADRACE_IDENTITY_REASSIGN_EVENTS."
    return limit_exceeded("identity_reassign_events", message)
