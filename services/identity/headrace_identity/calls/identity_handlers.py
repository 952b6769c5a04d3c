"""Corrections by hand: merges that are undone, identifiers that are forced together or apart.

Each of them changes manual links and nothing else; everybody concerned is assigned anew with that, in one transaction
(`headrace_identity.reassign`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.profile_pb2 import Decision, Merge
from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.rpc import names
from headrace.rpc.errors import invalid_argument, not_found, wrong_state
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Database, Session
from headrace_identity.documents import identifier_key, profile_key
from headrace_identity.links_store import LinksStore
from headrace_identity.reassign.change import Change, Outcome
from headrace_identity.reassign.reassigner import Reassigner
from headrace_identity.resolving.links import Kind, ManualLink
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.store import IDENTIFIERS, PROFILES, survivors
from headrace_identity.workspaces import Workspaces

_MOST_REASON = 500


@dataclass(frozen=True, slots=True)
class Corrected:
    """What came of a correction.

    Attributes:
        links: The links concerned, as stored.
        profiles: Ids of the profiles that hold their identifiers now.
        moved_events: Number of events that belong to another profile than before.
    """

    links: Sequence[ManualLink]
    profiles: Sequence[str]
    moved_events: int


Remember = Callable[[Session, Corrected], Awaitable[None]]
"""Stores the answer of a correction in its transaction."""


async def _nothing(_: Session, __: Corrected) -> None:
    """Store nothing."""


class Corrections:
    """Undoes merges, adds and deletes manual links."""

    def __init__(self, db: Database, workspaces: Workspaces, links: LinksStore, reassigner: Reassigner) -> None:
        """Work on a database through what reassigns events."""
        self._db = db
        self._workspaces = workspaces
        self._links = links
        self._reassigner = reassigner

    async def undo_merge(
        self, workspace_id: str, merge_id: str, reason: str, *, remember: Remember = _nothing
    ) -> Corrected:
        """Split a profile at a recorded merge: what joined the two keeps them apart from now on.

        Args:
            workspace_id: The workspace.
            merge_id: Id of the profile that was merged.
            reason: Why, for the record.
            remember: Stores the answer in the same transaction.

        Raises:
            ApiError: NOT_FOUND, there is no such merge; WRONG_STATE, it was undone before; LINKS_CONTRADICT, manual
                links hold the two together; and what `Reassigner.reassign` raises.
        """
        _check_reason("reason", reason)
        decision, merge = await self._recorded(workspace_id, merge_id)
        created_us = now_us()
        links = [
            ManualLink(new_time_ordered_id(), "apart", one, other, reason, merge_id, created_us)
            for one, other in apart_of(decision, merge)
        ]
        if not links:
            name = names.format(names.MERGE, workspace_id, merge_id)
            message = f"{name} was recorded before identifiers of merges were: rebuild the identity graph first."
            raise wrong_state("recorded_before", message)
        return await self._change(workspace_id, Change(add_links=links), links, remember)

    async def add_link(
        self,
        workspace_id: str,
        kind: Kind,
        first: IdentifierMessage,
        second: IdentifierMessage,
        reason: str,
        *,
        remember: Remember = _nothing,
    ) -> Corrected:
        """Force two identifiers together or apart. The same link again changes nothing, and is answered as stored.

        Args:
            workspace_id: The workspace.
            kind: "together" or "apart".
            first: One identifier, in any form that means it.
            second: Another one.
            reason: Why, for the record.
            remember: Stores the answer in the same transaction.

        Raises:
            ApiError: INVALID_ARGUMENT, an identifier identifies nobody by the rules, or the two are the same;
                LINKS_CONTRADICT; and what `Reassigner.reassign` raises.
        """
        _check_reason("link.reason", reason)
        workspace = await self._workspaces.read(workspace_id)
        one, other = _checked("link.first", first, workspace.rules), _checked("link.second", second, workspace.rules)
        if one == other:
            raise invalid_argument("link.second", "is the same identifier as the first: a link is of two")
        link = ManualLink(new_time_ordered_id(), kind, one, other, reason, "", now_us())
        known = (await self._links.read(workspace)).same(link)
        if known is not None:
            return Corrected([known], await self._holders(workspace_id, known), 0)
        return await self._change(workspace_id, Change(add_links=[link]), [link], remember)

    async def get_link(self, workspace_id: str, link_id: str) -> ManualLink:
        """A manual link.

        Raises:
            ApiError: NOT_FOUND.
        """
        link = await self._links.get(workspace_id, link_id)
        if link is None:
            raise not_found(names.format(names.IDENTITY_LINK, workspace_id, link_id))
        return link

    async def list_links(self, workspace_id: str, after: str, limit: int) -> list[ManualLink]:
        """Manual links in the order in which they were made, those after an id."""
        return await self._links.page(workspace_id, after, limit)

    async def delete_link(self, workspace_id: str, link_id: str, *, remember: Remember = _nothing) -> Corrected:
        """Take a manual link back: what the events alone say holds again.

        Raises:
            ApiError: NOT_FOUND; and what `Reassigner.reassign` raises.
        """
        link = await self.get_link(workspace_id, link_id)
        change = Change(identifiers=link.pair, remove_links=[link_id])
        return await self._change(workspace_id, change, [link], remember)

    async def _change(
        self, workspace_id: str, change: Change, links: Sequence[ManualLink], remember: Remember
    ) -> Corrected:
        corrected: list[Corrected] = []

        async def write(session: Session, outcome: Outcome) -> None:
            profiles = sorted(set(outcome.holders.values()))
            corrected.append(Corrected(links, profiles, outcome.moved_events))
            await remember(session, corrected[-1])

        await self._reassigner.reassign(workspace_id, replace(change, write=write))
        return corrected[-1]

    async def _holders(self, workspace_id: str, link: ManualLink) -> list[str]:
        keys = [identifier_key(workspace_id, identifier) for identifier in link.pair]
        found = await self._db[IDENTIFIERS].find({"_id": {"$in": keys}}, {"p": 1}).to_list(None)
        parts = {d["p"] for d in found if d["p"]}
        moved = await survivors(self._db, workspace_id, parts)
        return sorted({moved.get(part, part) for part in parts})

    async def _recorded(self, workspace_id: str, merge_id: str) -> tuple[Decision, Merge]:
        """A merge with the decision that made it.

        Raises:
            ApiError: NOT_FOUND, or WRONG_STATE when it was undone.
        """
        name = names.format(names.MERGE, workspace_id, merge_id)
        key = profile_key(workspace_id, merge_id)
        profile = await self._db[PROFILES].find_one({"_id": key, "w": workspace_id}, {"into": 1, "ms": 1})
        if profile is None or "into" not in profile:
            links = await self._links.undoing(workspace_id, merge_id)
            if not links:
                raise not_found(name, "a merge has the id of the profile that was merged, and ListMerges lists them")
            undone_by = names.format(names.IDENTITY_LINK, workspace_id, links[0].id)
            raise wrong_state("undone", f"{name} is undone already, by {undone_by}.")
        sequence = profile["ms"]
        async for event in log.events_between(self._db, sequence, sequence + 1, workspace_id):
            for merge in event.decision.merges:
                if merge.loser == merge_id:
                    return event.decision, merge
        raise not_found(name)  # it is being undone at this moment


def apart_of(decision: Decision, merge: Merge) -> list[tuple[Identifier, Identifier]]:
    """The pairs of identifiers that joined a profile with others: by which the event found it, and found the others."""
    loser = set(merge.loser_found_by)
    others = {place for m in decision.merges for place in (*m.loser_found_by, *m.survivor_found_by)} - loser
    of = [(i.namespace, i.value) for i in decision.identifiers]
    return [(of[one], of[other]) for one in sorted(loser) for other in sorted(others)]


def _check_reason(field: str, reason: str) -> None:
    if not reason.strip() or len(reason) > _MOST_REASON:
        raise invalid_argument(field, f"must be 1 to {_MOST_REASON} characters")


def _checked(field: str, identifier: IdentifierMessage, rules: Rules) -> Identifier:
    """An identifier in the form in which events bring it.

    Raises:
        ApiError: INVALID_ARGUMENT, it identifies nobody by the rules.
    """
    if not identifier.namespace:
        raise invalid_argument(f"{field}.namespace", "is required")
    if not identifier.value.strip():
        raise invalid_argument(f"{field}.value", "is required")
    checked = rules.check(identifier.namespace, identifier.value)
    if checked.rule:
        raise invalid_argument(field, f"identifies nobody, by the rules of the workspace ({checked.rule})")
    return identifier.namespace, checked.value
