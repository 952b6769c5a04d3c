"""Chains of links: valid, shortest, there exactly when two identifiers are one person; and what kept people apart."""

from __future__ import annotations

import itertools

import pytest
from headrace_identity.explaining.explain import (
    Forced,
    Holder,
    Step,
    identifiers_of,
    in_recorded_order,
    keeps_apart,
    nodes,
    recorded_merges,
    shortest_chain,
    summary,
)
from headrace_identity.resolving.replay import Replay, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier, Rules, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.identity_service_pb2 import IdentityLink
from headrace.storage.mongo.log import Linked, linked_of
from tests.support.identity import WORKSPACE, event
from tests.support.identity_histories import history

U1, U2, E1, E2, D1, D2, D3 = (
    ("user_id", "u1"),
    ("user_id", "u2"),
    ("email", "e1@shop.example"),
    ("email", "e2@shop.example"),
    ("anonymous_id", "d1x"),
    ("anonymous_id", "d2x"),
    ("anonymous_id", "d3x"),
)


def links_of(result: Replay, events: list[Event], root: str, least: Linked = Linked.JOINED) -> list[IdentityLink]:
    """The links of a person, chosen as the store's index does, creations by the profile's sequence."""
    created = {result.graph.profiles[part].created for part in result.graph.profiles[root].parts}
    by_id = {e.message_id: e for e in events}
    found = []
    for message_id, (part, decision) in result.resolutions.items():
        if result.root_of(message_id) == root and (linked_of(decision) >= least or decision.sequence in created):
            one = by_id[message_id]
            found.append(
                IdentityLink(
                    message_id=message_id,
                    source_id=one.source_id,
                    timestamp_us=one.timestamp_us,
                    part=part,
                    decision=decision,
                )
            )
    return in_recorded_order(found)


def chain_of(events: list[Event], start: Identifier, end: Identifier, rules: Rules = DEFAULT_RULES) -> list[Step]:
    """The chain in the person who holds the first."""
    result = replay(events, rules)
    holder = result.graph.find(start)
    assert holder is not None
    return shortest_chain(links_of(result, events, holder.id), (), start, end)


def test_a_chain_names_each_event_and_what_it_carried() -> None:
    events = [event("m1", D1), event("m2", U1, D1), event("m3", E1, D2), event("m4", U1, D2), event("m5", U1, D1)]
    steps = chain_of(events, D1, E1)
    assert [(s.start, s.link and s.link.message_id, s.end) for s in steps] == [
        (D1, "m2", U1),
        (U1, "m4", D2),
        (D2, "m3", E1),
    ]
    assert chain_of(events, E1, D1) == [s._replace(start=s.end, end=s.start) for s in reversed(steps)]


def test_of_several_shortest_chains_the_one_of_the_first_events() -> None:
    events = [event("m1", U1, D1), event("m2", U1, D2), event("m3", D1, E1), event("m4", D2, E2), event("m5", E1, E2)]
    events += [event("m6", U1, D1), event("m7", U1, U2), event("m8", U2, E1)]
    links = [IdentityLink(message_id=e.message_id) for e in events]
    for number, (link, one) in enumerate(zip(links, events, strict=True)):
        link.decision.identifiers.extend(one.identifiers)
        link.decision.sequence = number
    assert [s.link and s.link.message_id for s in shortest_chain(links, (), U1, E1)] == ["m1", "m3"]
    assert [s.link and s.link.message_id for s in shortest_chain(links, (), U1, E2)] == ["m2", "m4"]


def test_manual_links_are_steps_and_events_are_preferred() -> None:
    events = [event("m1", D1, U1), event("m2", D2, E1)]
    result = replay(events, DEFAULT_RULES)
    links = in_recorded_order(*(links_of(result, events, root) for root in result.roots()))
    forced = [Forced("first link", U1, D1), Forced("second link", D1, D2)]
    steps = shortest_chain(links, forced, U1, E1)
    assert [(s.link.message_id if s.link else s.manual_link) for s in steps] == ["m1", "second link", "m2"]
    assert shortest_chain(links, (), U1, E1) == []


def test_an_event_that_only_repeats_is_no_link() -> None:
    events = [event("m1", U1, D1), event("m2", D1, E1), event("m3", U1, E1)]
    assert [s.link and s.link.message_id for s in chain_of(events, U1, E1)] == ["m1", "m2"]


def test_a_thousand_identifiers_in_a_row() -> None:
    """Linear: a chain of a thousand steps, beside ten thousand other identifiers in one event."""
    ids = [("anonymous_id", f"d{n}") for n in range(1_001)]
    links = [IdentityLink(message_id=f"m{n}") for n in range(1_001)]
    for link, pair in zip(links, itertools.pairwise(ids), strict=False):
        for namespace, value in pair:
            link.decision.identifiers.add(namespace=namespace, value=value)
    for n in range(10_000):
        links[-1].decision.identifiers.add(namespace="email", value=str(n))
    links[-1].decision.identifiers.add(namespace=ids[0][0], value=ids[0][1])
    assert len(shortest_chain(links, (), ids[0], ids[-1])) == 1_000


RULES = (
    DEFAULT_RULES,
    parse({"namespaces": [{"name": "user_id", "limit": 3}, {"name": "email", "limit": 2, "per": "week"}]}),
    parse({"protected": [], "max_merges": 2, "max_identifiers": 6, "default_limit": 2}),
)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(RULES), st.booleans())
def test_a_chain_is_there_exactly_when_two_are_one_person(seed: int, rules: Rules, aliases: bool) -> None:
    events = history(seed, WORKSPACE, aliases=aliases, size=30)
    result = replay(events, rules)
    carried = {e.message_id: {(i.namespace, i.value) for i in e.identifiers} for e in events}
    links_by_root = {root: links_of(result, events, root) for root in result.roots()}
    for start, end in itertools.permutations(sorted(result.graph.holders), 2):
        holder, other = result.graph.find(start), result.graph.find(end)
        assert holder is not None and other is not None
        steps = shortest_chain(links_by_root[holder.id], (), start, end)
        assert bool(steps) == (holder.id == other.id)
        if not steps:
            continue
        assert (steps[0].start, steps[-1].end) == (start, end)
        assert all(a.end == b.start for a, b in itertools.pairwise(steps))
        for step in steps:
            assert step.link is not None
            decision = result.resolutions[step.link.message_id].decision
            assert {step.start, step.end} <= set(identifiers_of(step.link))
            assert decision == step.link.decision
            # The previous id of an alias is no identifier of its event.
            assert aliases or {step.start, step.end} <= carried[step.link.message_id]
        assert len(steps) == _naive_distance(links_by_root[holder.id], start, end)


def _naive_distance(links: list[IdentityLink], start: Identifier, end: Identifier) -> int:
    """Breadth first over sets, in the plainest way."""
    reached, distance = {start}, 0
    while end not in reached:
        reached |= {i for link in links for i in identifiers_of(link) if reached & set(identifiers_of(link))}
        distance += 1
    return distance


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(RULES), st.booleans())
def test_nodes_name_the_event_that_brought_each(seed: int, rules: Rules, aliases: bool) -> None:
    events = history(seed, WORKSPACE, aliases=aliases, size=30)
    result = replay(events, rules)
    first: dict[Identifier, str] = {}
    for message_id, resolution in result.resolutions.items():
        for i in resolution.decision.identifiers:
            first.setdefault((i.namespace, i.value), message_id)
    for root in result.roots():
        profile = result.graph.profiles[root]
        found = nodes(profile.identifiers, links_of(result, events, root))
        assert [(n.identifier.namespace, n.identifier.value) for n in found] == sorted(profile.identifiers)
        for node in found:
            identifier = (node.identifier.namespace, node.identifier.value)
            assert node.message_id == first[identifier]
            assert node.timestamp_us == profile.identifiers[identifier]
            assert node.part == result.resolutions[node.message_id].profile_id == result.graph.holders[identifier]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_merges_say_by_which_identifiers_each_side_was_found(seed: int, aliases: bool) -> None:
    events = history(seed, WORKSPACE, aliases=aliases, size=30)
    result = replay(events, DEFAULT_RULES)
    holders: dict[Identifier, str] = {}  # the part that brought each so far
    for message_id, (part, decision) in result.resolutions.items():
        link = IdentityLink(message_id=message_id, part=part, decision=decision)
        merges = recorded_merges(WORKSPACE, link)
        kept = identifiers_of(link)
        for recorded in merges:
            lost = [i for i in kept if holders.get(i) in recorded.merge.loser_parts]
            assert [(i.namespace, i.value) for i in recorded.loser_identifiers] == lost
            assert lost
            assert recorded.name == f"workspaces/{WORKSPACE}/merges/{recorded.merge.loser}"
        if merges:
            lost_parts = {p for m in merges for p in m.merge.loser_parts}
            survived = [i for i in kept if i in holders and holders[i] not in lost_parts]
            assert survived
            assert all([(i.namespace, i.value) for i in m.survivor_identifiers] == survived for m in merges)
        for identifier in kept:
            holders.setdefault(identifier, part)


def test_what_kept_two_apart_is_an_event_that_carried_both() -> None:
    events = [event("m1", U1, E1), event("m2", U2, E1), event("m3", U2, ("anonymous_id", "null"))]
    result = replay(events, DEFAULT_RULES)
    one, two = (result.graph.find(u) for u in (U1, U2))
    assert one is not None and two is not None
    links = links_of(result, events, two.id, Linked.BLOCKED)
    assert [link.message_id for link in links] == ["m2", "m3"]
    assert [link.message_id for link in links if keeps_apart(link, one.identifiers)] == ["m2"]
    assert [linked_of(link.decision) for link in links] == [Linked.JOINED, Linked.BLOCKED]


HELD, OTHER, NOBODY = Holder("user_id", "", "p1"), Holder("email", "", "p2"), Holder("email", "", "")
KEPT = IdentityLink()
KEPT.decision.set_aside.add(action="demoted", rule="limit:user_id")
KEPT.decision.set_aside.add(action="blocked", rule="blocked:value")


@pytest.mark.parametrize(
    ("first", "second", "steps", "apart", "more", "forced", "sentence"),
    [
        (HELD, Holder("email", "", "p1"), [Step(U1, E1, KEPT)], [], False, False,
         "The user_id and the email belong to one person: one event carried both."),
        (HELD, Holder("email", "", "p1"), [Step(U1, E1, None, "l")], [], False, False,
         "The user_id and the email belong to one person: a manual link forces them together."),
        (HELD, HELD, [Step(U1, D1, KEPT), Step(D1, E1, None, "l"), Step(E1, U2, KEPT)], [], False, False,
         "The two values of user_id belong to one person: a chain of 2 events and 1 manual link leads from one to the"
         " other by way of anonymous_id, email."),
        (HELD, HELD, [], [], False, False,
         "The two values of user_id belong to one person, but the events that joined them are not stored any more."),
        (HELD, OTHER, [], [KEPT], False, False,
         "The user_id and the email belong to two people: 1 event carried identifiers of both, kept apart by"
         " limit:user_id."),
        (HELD, OTHER, [], [KEPT], True, True,
         "The user_id and the email belong to two people, and a manual link keeps them apart: 1 or more events carried"
         " identifiers of both, kept apart by limit:user_id."),
        (HELD, OTHER, [], [], False, False,
         "The user_id and the email belong to two people: no event of one of them carried an identifier of the other."),
        (HELD, NOBODY, [], [], False, False, "The email is held by nobody, so nothing joins it to the other."),
        (OTHER, NOBODY, [], [], False, False,
         "One of the two values of email is held by nobody, so nothing joins it to the other."),
        (NOBODY, Holder("phone", "", ""), [], [], False, False,
         "The email and the phone are held by nobody: no stored event was resolved by either of them."),
        (HELD, Holder("email", "blocked:invalid", ""), [], [], False, False,
         "A value such as this email identifies nobody: the rule blocked:invalid blocks it."),
    ],
)  # fmt: skip
def test_the_summary_is_one_sentence(
    first: Holder, second: Holder, steps: list[Step], apart: list[IdentityLink], more: bool, forced: bool, sentence: str
) -> None:
    assert summary(first, second, steps, apart, more_apart=more, forced_apart=forced) == sentence
