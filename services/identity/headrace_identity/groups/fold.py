"""Memberships of groups when events go to other parts: made anew for the parts concerned.

The groups themselves stay: what an event says of a group does not depend on whose event it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pymongo import DeleteOne, ReplaceOne

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.storage.mongo.client import Database, Document, Session
from headrace_identity.groups.statements import Groups, Mention, fold
from headrace_identity.groups.store import member_document, member_key, stored_members
from headrace_identity.store import GROUP_MEMBERS
from headrace_identity.workspaces import Workspace


class GroupFold:
    """Memberships of groups, as `headrace_identity.reassign.folds.Fold`."""

    async def rewrite(
        self,
        db: Database,
        session: Session,
        workspace: Workspace,
        old_parts: Collection[str],
        events_by_part: Mapping[str, Sequence[ResolvedEvent]],
    ) -> None:
        """Write the difference between the stored memberships of some parts and those that their events make."""
        groups = Groups()
        for part, events in events_by_part.items():
            fold(groups, [Mention.of(e.event, part, e.decision.sequence) for e in events if e.event.group_id])
        stored = await stored_members(db, session, workspace.id, {*old_parts, *events_by_part})
        writes: list[DeleteOne | ReplaceOne[Document]] = []
        for key in stored.keys() | groups.members.keys():
            membership = groups.members.get(key)
            if membership is None:
                writes.append(DeleteOne({"_id": member_key(workspace.id, key)}))
            elif stored.get(key) != membership:
                document = member_document(workspace.id, key, membership)
                writes.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
        if writes:
            await db[GROUP_MEMBERS].bulk_write(writes, ordered=False, session=session)
