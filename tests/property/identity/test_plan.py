"""The difference that a reassignment writes: once in place, everything is as replayed from the start.

In memory, with the code that plans; who is concerned is found in the plainest way. On real stores the same is tested by
`tests/integration/identity/test_corrections.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from headrace_identity.documents import profile_document
from headrace_identity.reassign.anew import Anew
from headrace_identity.reassign.closure import Recorded
from headrace_identity.reassign.plan import Stored, difference
from headrace_identity.resolving.graph import Changes, Graph
from headrace_identity.resolving.links import Links, ManualLink
from headrace_identity.resolving.resolver import prepare, resolve
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier, Rules, parse
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from tests.support.identity import WORKSPACE
from tests.support.reassignment import POOLS, random_history

RULES = [
    DEFAULT_RULES,
    parse(
        {
            "namespaces": [{"name": "email", "limit": 1, "per": "week"}],
            "max_merges": 2,
            "policies": [{"policy": "isolation", "source": "kiosk"}, {"policy": "link", "source": "tablet"}],
        }
    ),
]
IDENTIFIERS = sorted(i for pool in POOLS.values() for i in pool)

links_drawn = st.lists(
    st.tuples(st.sampled_from(["together", "apart"]), st.sampled_from(IDENTIFIERS), st.sampled_from(IDENTIFIERS)),
    max_size=4,
)


def consistent(drawn: Sequence[tuple[str, Identifier, Identifier]], first_id: int = 0) -> list[ManualLink]:
    """The links among these that do not contradict those before them."""
    links: list[ManualLink] = []
    for number, (kind, one, other) in enumerate(drawn, start=first_id):
        link = ManualLink(f"{number:02}", kind, one, other)  # type: ignore[arg-type]  # one of the two kinds
        if Links(links).contradiction(link) is None:
            links.append(link)
    return links


def replayed(events: Sequence[Event], rules: Rules, links: Links) -> tuple[list[Recorded], Stored]:
    """All events with what came of them, and what a store holds then."""
    graph, recorded, demotions = Graph(), [], set()
    for sequence, event in enumerate(events, start=1):
        prepared = prepare(event, rules)
        part, decision = resolve(graph, rules, prepared, sequence, Changes(), links)
        resolved = ResolvedEvent(event=event, profile_id=part, decision=decision)
        recorded.append(Recorded(resolved, decision.SerializeToString(), prepared, 0, rules))
        for aside in decision.set_aside:
            if aside.action == "demoted":
                demotions.add(((aside.identifier.namespace, aside.identifier.value), part))
        for handover in decision.handovers:
            demotions.add(((handover.identifier.namespace, handover.identifier.value), handover.from_profile))
    documents = {p.id: profile_document(WORKSPACE, p) for p in graph.profiles.values()}
    return recorded, Stored(documents, graph.holders, demotions)


def concerned(events: Sequence[Recorded], links: Sequence[Links], seeds: set[Identifier]) -> list[Recorded]:
    """The events that share an identifier with the seeds or with an event that does, and so on."""
    tied = set(seeds)
    while True:
        more = {p for i in tied for one in links for p in one.partners(i)}
        for event in events:
            own = {*event.prepared.identifiers, *event.prepared.previous}
            if own & tied:
                more |= own
        if more <= tied:
            break
        tied |= more
    return [e for e in events if tied & {*e.prepared.identifiers, *e.prepared.previous}]


@given(st.integers(0, 100_000), st.sampled_from(RULES), links_drawn, links_drawn, st.data())
def test_those_concerned_are_enough(
    seed: int,
    rules: Rules,
    before: list[tuple[str, Identifier, Identifier]],
    after: list[tuple[str, Identifier, Identifier]],
    data: st.DataObject,
) -> None:
    events = random_history(random.Random(seed), size=18)
    old = consistent(before)
    kept = [link for link in old if data.draw(st.booleans())]
    new = consistent([(link.kind, link.first, link.second) for link in kept] + after, first_id=50)
    recorded, stored = replayed(events, rules, Links(old))
    before_of = timelines(recorded, stored)
    changed = {i for link in (*old, *new) for i in link.pair}
    part = concerned(recorded, [Links(old), Links(new)], changed)
    parts = {e.resolved.profile_id for e in part}
    anew = Anew(Links(new))
    asyncio.run(anew.resolve(part))
    plan = difference(WORKSPACE, part, only(stored, parts), anew)

    stored.profiles = {p: d for p, d in stored.profiles.items() if p not in plan.removed_profiles} | plan.profiles
    stored.holders = {i: p for i, p in stored.holders.items() if i not in plan.freed} | plan.holders
    stored.demotions = stored.demotions - plan.removed_demotions | plan.demotions
    assigned = {e.resolved.event.message_id: (e.resolved.profile_id, e.decision) for e in recorded}
    assigned |= {m.message_id: (m.part, m.decision) for m in plan.events}
    expected, wanted = replayed(events, rules, Links(new))
    after_of = timelines(expected, wanted)
    assert assigned == {e.resolved.event.message_id: (e.resolved.profile_id, e.decision) for e in expected}
    assert stored == wanted
    # Whoever keeps something per profile hears of every profile whose events are others now.
    heard = {item.profile_id for item in plan.affected}
    assert {p for p in before_of.keys() | after_of.keys() if before_of.get(p) != after_of.get(p)} <= heard


def only(stored: Stored, parts: set[str]) -> Stored:
    """What is stored of some parts."""
    return Stored(
        {p: d for p, d in stored.profiles.items() if p in parts},
        {i: p for i, p in stored.holders.items() if p in parts},
        {(i, p) for i, p in stored.demotions if p in parts},
    )


def timelines(events: Sequence[Recorded], stored: Stored) -> dict[str, set[str]]:
    """Message ids of each person, by the id of the survivor."""
    graph = stored.graph()
    found: dict[str, set[str]] = {}
    for event in events:
        if event.resolved.profile_id:
            root = graph.root(event.resolved.profile_id).id
            found.setdefault(root, set()).add(event.resolved.event.message_id)
    return found
