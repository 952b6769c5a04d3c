"""Folds: what else is kept beside profiles per part, and must be made anew when events go to other parts.

A fold keeps something about each *part* (the profile at the time of resolving, the `p` of event documents) that is a
function of the set of the part's events. Micro-batches add to it event by event; a reassignment makes it anew for the
parts whose events changed. To take part, implement `Fold` and add the fold to `FOLDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Database, Session
from headrace_identity.computed.fold import ComputedTraitFold
from headrace_identity.groups.fold import GroupFold
from headrace_identity.workspaces import Workspace


class Fold(Protocol):
    """Something that is kept per part."""

    async def rewrite(
        self,
        db: Database,
        session: Session,
        workspace: Workspace,
        old_parts: Collection[str],
        events_by_part: Mapping[str, Sequence[ResolvedEvent]],
    ) -> None:
        """Make what is kept about some parts anew, inside the transaction of a reassignment.

        Afterwards the store holds, for each of these parts, exactly what micro-batches would have made of these events,
        and nothing for a part that has no events any more. All gates of the workspace are closed, so no micro-batch
        commits meanwhile.

        Args:
            db: Database.
            session: The transaction.
            workspace: The workspace in the transaction's snapshot, after the change.
            old_parts: Parts whose events changed, and which may have something stored: remove it.
            events_by_part: All events of each part whose events changed, in recorded order, with their new decisions.
                A part that is in old_parts and not here has none any more.

        Raises:
            pymongo.errors.PyMongoError: The reassignment is tried again, or given up with nothing done.
        """


FOLDS: tuple[Fold, ...] = (GroupFold(), ComputedTraitFold())
"""All folds of the service, in the order in which they are made anew."""
