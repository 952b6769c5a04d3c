"""The calls of IdentityService that explain: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

from typing import Any

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.rpc import auth, names
from headrace.rpc.errors import invalid_argument, not_found
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import IDENTITY_READ
from headrace_identity.calls.link_messages import identifier_message, link_message
from headrace_identity.explaining import explain
from headrace_identity.explaining.explain import Forced, Holder, Step
from headrace_identity.explaining.graph_view import GraphView, MergePosition
from headrace_identity.links_store import LinksStore
from headrace_identity.resolving.graph import Profile
from headrace_identity.resolving.links import Links, ManualLink
from headrace_identity.resolving.rules import Checked, Identifier, Rules
from headrace_identity.workspaces import Workspaces

_MOST_APART = 20
"""Events that are named as what kept two people apart."""


class GraphCalls:
    """Serves the calls of IdentityService that only read the graph."""

    def __init__(self, view: GraphView, workspaces: Workspaces, links: LinksStore, pager: Pager) -> None:
        """Serve from what reads the graph, rules and manual links."""
        self._view = view
        self._workspaces = workspaces
        self._links = links
        self._pager = pager

    async def GetIdentityGraph(self, request: pb.GetIdentityGraphRequest, context: Any) -> pb.GetIdentityGraphResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.name)
        _, profile_id = names.parse(names.PROFILE, request.name)
        size = page_size(request.page_size)
        after = self._pager.decode("GetIdentityGraph", [request.name], request.page_token)
        person = await self._view.person(workspace_id, profile_id)
        if person is None:
            raise not_found(request.name)
        links = await self._view.links(workspace_id, person, after=after or 0, limit=size + 1)
        token = ""
        if len(links) > size:
            token = self._pager.encode("GetIdentityGraph", [request.name], links[size - 1].decision.sequence)
        response = pb.GetIdentityGraphResponse(
            links=links[:size], next_page_token=token, profile=names.format(names.PROFILE, workspace_id, person.id)
        )
        if after is None:
            await self._add_first_page(workspace_id, person, response)
        return response

    async def _add_first_page(self, workspace_id: str, person: Profile, response: pb.GetIdentityGraphResponse) -> None:
        joining = await self._view.joining(workspace_id, person)
        response.nodes.extend(explain.nodes(person.identifiers, joining))
        merging = await self._view.with_sources(workspace_id, [link for link in joining if link.decision.merges])
        for sequence in sorted(merging):
            response.merges.extend(explain.recorded_merges(workspace_id, merging[sequence]))
        links = await self._links.read(await self._workspaces.read(workspace_id))
        manual = links.concerning(person.identifiers)
        response.manual_links.extend(link_message(workspace_id, link) for link in manual)
        origin = next((link for link in joining if link.decision.sequence == person.created), None)
        if origin is not None and origin.decision.stems_from:
            response.stems_from = names.format(names.PROFILE, workspace_id, origin.decision.stems_from)

    async def ExplainLink(self, request: pb.ExplainLinkRequest, context: Any) -> pb.ExplainLinkResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        workspace = await self._workspaces.read(workspace_id)
        rules, links = workspace.rules, await self._links.read(workspace)
        start_message = getattr(request, "from")
        first, second = _checked("from", start_message, rules), _checked("to", request.to, rules)
        start, end = (start_message.namespace, first.value), (request.to.namespace, second.value)
        if start == end:
            raise invalid_argument("to", "must be another identifier than `from`: these two are one and the same")
        one = None if first.rule else await self._view.holder(workspace_id, start)
        other = None if second.rule else await self._view.holder(workspace_id, end)
        response = pb.ExplainLinkResponse(
            together=one is not None and other is not None and one.id == other.id,
            from_profile=_name(workspace_id, one),
            to_profile=_name(workspace_id, other),
        )
        steps: list[Step] = []
        apart_by: list[pb.IdentityLink] = []
        more_apart = False
        if one is not None and other is not None:
            if one.id == other.id:
                steps = await self._chain(workspace_id, one, links, start, end)
            else:
                apart_by, more_apart = await self._view.between(workspace_id, one, other, _MOST_APART)
        response.steps.extend(map(_step_message, steps))
        response.kept_apart_by.extend(apart_by)
        apart = _apart(links, one, other)
        manual = {link.id: link for link in (*links.concerning((start, end)), *apart)}
        response.manual_links.extend(link_message(workspace_id, manual[link_id]) for link_id in sorted(manual))
        response.summary = explain.summary(
            Holder(start[0], first.rule, one.id if one is not None else ""),
            Holder(end[0], second.rule, other.id if other is not None else ""),
            steps,
            apart_by,
            more_apart=more_apart,
            forced_apart=bool(apart),
        )
        return response

    async def _chain(
        self, workspace_id: str, person: Profile, links: Links, start: Identifier, end: Identifier
    ) -> list[Step]:
        together = [
            Forced(names.format(names.IDENTITY_LINK, workspace_id, link.id), link.first, link.second)
            for link in links.concerning(person.identifiers)
            if link.kind == "together"
        ]
        steps = explain.shortest_chain(await self._view.joining(workspace_id, person), together, start, end)
        sources = await self._view.with_sources(workspace_id, [s.link for s in steps if s.link is not None])
        return [s if s.link is None else s._replace(link=sources[s.link.decision.sequence]) for s in steps]

    async def ListMerges(self, request: pb.ListMergesRequest, context: Any) -> pb.ListMergesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.parent, "parent")
        person = None
        if request.parent != names.format(names.WORKSPACE, workspace_id):
            _, profile_id = names.parse(names.PROFILE, request.parent, "parent")
            person = await self._view.person(workspace_id, profile_id)
            if person is None:
                raise not_found(request.parent)
        size = page_size(request.page_size)
        position = self._pager.decode("ListMerges", [request.parent], request.page_token)
        before = MergePosition(*position) if position is not None else None
        merges = await self._view.merges(workspace_id, person, before=before, limit=size + 1)
        token = ""
        if len(merges) > size:
            last = merges[size - 1]
            token = self._pager.encode("ListMerges", [request.parent], [last.sequence, last.merge.loser])
        return pb.ListMergesResponse(merges=merges[:size], next_page_token=token)


def _checked(field: str, identifier: IdentifierMessage, rules: Rules) -> Checked:
    if not identifier.namespace:
        raise invalid_argument(f"{field}.namespace", "is required")
    if not identifier.value.strip():
        raise invalid_argument(f"{field}.value", "is required")
    return rules.check(identifier.namespace, identifier.value)


def _apart(links: Links, one: Profile | None, other: Profile | None) -> list[ManualLink]:
    """The manual links that keep two people apart."""
    if one is None or other is None or one.id == other.id:
        return []
    of_one, of_other = ({links.one_of(i) for i in person.identifiers} for person in (one, other))
    found = []
    for link in links.concerning(one.identifiers):
        first, second = links.one_of(link.first), links.one_of(link.second)
        crosses = (first in of_one and second in of_other) or (second in of_one and first in of_other)
        if link.kind == "apart" and crosses:
            found.append(link)
    return found


def _step_message(step: Step) -> pb.LinkStep:
    message = pb.LinkStep(to=identifier_message(step.end), link=step.link, manual_link=step.manual_link)
    getattr(message, "from").CopyFrom(identifier_message(step.start))
    return message


def _name(workspace_id: str, person: Profile | None) -> str:
    return "" if person is None else names.format(names.PROFILE, workspace_id, person.id)
