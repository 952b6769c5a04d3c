"""Computed traits as a fold: made anew for the parts whose events a reassignment changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Database, Session
from headrace_identity.computed import folding
from headrace_identity.computed.store import Compiled
from headrace_identity.workspaces import Workspace


class ComputedTraitFold:
    """See `headrace_identity.reassign.folds.Fold`."""

    async def rewrite(
        self,
        db: Database,
        session: Session,
        workspace: Workspace,
        old_parts: Collection[str],
        events_by_part: Mapping[str, Sequence[ResolvedEvent]],
    ) -> None:
        """Make anew what is kept of these parts, for all traits, those that are being filled too."""
        if workspace.computed_version:
            traits = await Compiled(db).read(workspace.id, workspace.computed_version, session)
            await folding.rewrite(db, session, workspace.id, traits, old_parts, events_by_part)
