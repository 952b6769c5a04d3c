"""Carries out reassignments: find who is concerned, resolve their events anew, put the outcome in place."""

from __future__ import annotations

from collections.abc import Callable

from headrace.storage.mongo.client import Database
from headrace_identity.reassign.change import Change, Outcome
from headrace_identity.worker import AtStep, no_step

DEFAULT_MOST_EVENTS = 50_000


class Reassigner:
    """Changes what events are resolved by, together with everything that follows from it. All or nothing."""

    def __init__(
        self,
        db: Database,
        *,
        most_events: int = DEFAULT_MOST_EVENTS,
        committed: Callable[[], None] = lambda: None,
        at_step: AtStep = no_step,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            most_events: How many events one reassignment may concern.
            committed: Called after each commit; wakes whoever announces reassignments.
            at_step: Called between any two steps; tests end it there, or let somebody else be quicker.
        """
        self._db = db
        self._most_events = most_events
        self._committed = committed
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
                those stored; CONCURRENT_CHANGE, others changed the same people again and again. Nothing was done.
            pymongo.errors.PyMongoError: A store failed; nothing was done, or all of it when the answer was lost.
        """
        raise NotImplementedError
