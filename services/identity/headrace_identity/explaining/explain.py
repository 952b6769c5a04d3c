"""Why two identifiers are one person, or two: pure functions over what single events did to the graph.

A link is an event that did something: it created a profile, brought an identifier, merged, or had identifiers set
aside. Events that only repeat what was known joined nobody, so chains are made of links and of manual links alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.identity_service_pb2 import IdentityLink, IdentityNode, RecordedMerge
from headrace.rpc import names
from headrace_identity.resolving.rules import Identifier


class Forced(NamedTuple):
    """Two identifiers that a manual link forces together; `name` is the link's resource name."""

    name: str
    first: Identifier
    second: Identifier


class Step(NamedTuple):
    """Two identifiers and what joins them: an event that carried both, else the name of a manual link."""

    start: Identifier
    end: Identifier
    link: IdentityLink | None = None
    manual_link: str = ""


class Holder(NamedTuple):
    """What is known of one of the two identifiers that are explained.

    Attributes:
        namespace: Its namespace.
        blocked_by: The rule by which it identifies nobody, else "".
        profile_id: The profile that holds it, "" for nobody.
    """

    namespace: str
    blocked_by: str
    profile_id: str


def identifiers_of(link: IdentityLink) -> list[Identifier]:
    """The identifiers of an event that its decision kept, by priority."""
    return [(i.namespace, i.value) for i in link.decision.identifiers]


def brought_by(link: IdentityLink) -> Iterator[Identifier]:
    """The identifiers that an event brought to its profile: new ones, and those that were handed over."""
    identifiers = identifiers_of(link)
    return (identifiers[place] for place in link.decision.brought)


def shortest_chain(
    links: Iterable[IdentityLink], together: Iterable[Forced], start: Identifier, end: Identifier
) -> list[Step]:
    """The shortest chain of links from one identifier to another; of several the one whose events came first.

    Args:
        links: Links of a person, in recorded order.
        together: Manual links between identifiers of the person; an event is preferred to them.
        start: One identifier.
        end: Another one.

    Returns:
        The steps, in order; none when there is no chain.
    """
    # An event joins all that it carries, so it is a knot of its own between them: that keeps the work linear.
    carriers = [
        (members, Step(start, end, link)) for link in links if len(members := tuple(identifiers_of(link))) > 1
    ] + [((pair.first, pair.second), Step(start, end, None, pair.name)) for pair in together]
    carriers_of: dict[Identifier, list[int]] = {}
    for number, (members, _) in enumerate(carriers):
        for identifier in members:
            carriers_of.setdefault(identifier, []).append(number)
    distances = _distances([members for members, _ in carriers], carriers_of, end)
    if start not in distances:
        return []
    steps: list[Step] = []
    here = start
    while here != end:
        nearer = distances[here] - 1
        number, there = next(
            (number, identifier)
            for number in carriers_of[here]
            for identifier in carriers[number][0]
            if distances[identifier] == nearer
        )
        steps.append(carriers[number][1]._replace(start=here, end=there))
        here = there
    return steps


def _distances(
    carriers: Sequence[Sequence[Identifier]], carriers_of: dict[Identifier, list[int]], end: Identifier
) -> dict[Identifier, int]:
    """How many steps each identifier is from the end, breadth first; those without a chain are left out."""
    distances = {end: 0}
    seen: set[int] = set()
    queue = deque([end])
    while queue:
        here = queue.popleft()
        for number in carriers_of.get(here, ()):
            if number in seen:
                continue
            seen.add(number)
            for identifier in carriers[number]:
                if identifier not in distances:
                    distances[identifier] = distances[here] + 1
                    queue.append(identifier)
    return distances


def keeps_apart(link: IdentityLink, of_the_other: Collection[Identifier]) -> bool:
    """Whether an event of one person carried identifiers of the other, which were demoted."""
    return any(
        s.action == "demoted" and (s.identifier.namespace, s.identifier.value) in of_the_other
        for s in link.decision.set_aside
    )


def nodes(identifiers: Collection[Identifier], links: Iterable[IdentityLink]) -> list[IdentityNode]:
    """The identifiers of a person, each with the event that brought it to the profile that has it.

    Args:
        identifiers: Identifiers that the person holds.
        links: Links of the person, in recorded order.
    """
    # The last one counts: an identifier of a shared device may have gone and come back.
    origin = {identifier: link for link in links for identifier in brought_by(link)}
    found = []
    for namespace, value in sorted(identifiers):
        node = IdentityNode(identifier=IdentifierMessage(namespace=namespace, value=value))
        link = origin.get((namespace, value))
        if link is not None:
            node.part, node.timestamp_us, node.message_id = link.part, link.timestamp_us, link.message_id
        found.append(node)
    return found


def recorded_merges(workspace_id: str, link: IdentityLink) -> list[RecordedMerge]:
    """The merges that an event caused."""
    decision = link.decision
    return [
        RecordedMerge(
            name=names.format(names.MERGE, workspace_id, merge.loser),
            merge=merge,
            message_id=link.message_id,
            source_id=link.source_id,
            timestamp_us=link.timestamp_us,
            sequence=decision.sequence,
            rule=decision.rule,
            loser_identifiers=[decision.identifiers[place] for place in merge.loser_found_by],
            survivor_identifiers=[decision.identifiers[place] for place in merge.survivor_found_by],
        )
        for merge in decision.merges
    ]


def summary(
    first: Holder,
    second: Holder,
    steps: Sequence[Step],
    apart_by: Sequence[IdentityLink],
    *,
    more_apart: bool,
    forced_apart: bool,
) -> str:
    """The answer in one sentence, which names namespaces and rules and never a value.

    Args:
        first: What is known of the first identifier.
        second: What is known of the second.
        steps: The chain between them.
        apart_by: Events that carried identifiers of both people.
        more_apart: Whether there are more such events.
        forced_apart: Whether a manual link forces the two apart.
    """
    for holder in (first, second):
        if holder.blocked_by:
            return f"A value such as this {holder.namespace} identifies nobody: the rule {holder.blocked_by} blocks it."
    both = (
        f"The {first.namespace} and the {second.namespace}"
        if first.namespace != second.namespace
        else f"The two values of {first.namespace}"
    )
    if first.profile_id and first.profile_id == second.profile_id:
        return f"{both} belong to one person{_because(steps)}."
    missing = [holder.namespace for holder in (first, second) if not holder.profile_id]
    if len(missing) == 2:
        return f"{both} are held by nobody: no stored event was resolved by either of them."
    if missing and first.namespace == second.namespace:
        return f"One of the two values of {missing[0]} is held by nobody, so nothing joins it to the other."
    if missing:
        return f"The {missing[0]} is held by nobody, so nothing joins it to the other."
    forced = ", and a manual link keeps them apart" if forced_apart else ""
    if not apart_by:
        return f"{both} belong to two people{forced}: no event of one of them carried an identifier of the other."
    count = f"{len(apart_by)}{' or more' if more_apart else ''} event{'s' if len(apart_by) > 1 or more_apart else ''}"
    rules = sorted({s.rule for link in apart_by for s in link.decision.set_aside if s.action == "demoted"})
    return (
        f"{both} belong to two people{forced}: {count} carried identifiers of both, kept apart by {', '.join(rules)}."
    )


def _because(steps: Sequence[Step]) -> str:
    if not steps:
        return ", but the events that joined them are not stored any more"
    if len(steps) == 1:
        return ": a manual link forces them together" if steps[0].link is None else ": one event carried both"
    events = sum(step.link is not None for step in steps)
    manual = len(steps) - events
    counts = [f"{n} {what}{'s' if n > 1 else ''}" for n, what in ((events, "event"), (manual, "manual link")) if n]
    way = ", ".join(step.end[0] for step in steps[:-1])
    return f": a chain of {' and '.join(counts)} leads from one to the other by way of {way}"


def in_recorded_order(*parts_of_it: Iterable[IdentityLink]) -> list[IdentityLink]:
    """Links in recorded order, each once."""
    return sorted({link.decision.sequence: link for link in chain(*parts_of_it)}.values(), key=_sequence)


def _sequence(link: IdentityLink) -> int:
    return link.decision.sequence
