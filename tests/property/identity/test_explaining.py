"""Whatever the rules, policies and manual links: a chain is there exactly when two identifiers are one person."""

from __future__ import annotations

import itertools
import random

from headrace_identity.explaining.explain import Forced, identifiers_of, in_recorded_order, shortest_chain
from headrace_identity.resolving.links import Kind, Links, ManualLink
from headrace_identity.resolving.replay import Replay, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.identity_service_pb2 import IdentityLink
from headrace.storage.mongo.log import Linked, linked_of
from tests.support.reassignment import POOLS, random_history

RULES = (
    DEFAULT_RULES,
    parse({"namespaces": [{"name": "user_id", "limit": 3}, {"name": "email", "limit": 2, "per": "week"}]}),
    parse({"protected": [], "max_merges": 2, "max_identifiers": 6, "default_limit": 2}),
    parse({"policies": [{"policy": "isolation", "source": "kiosk"}, {"policy": "link", "source": "tablet"}]}),
    parse({"policies": [{"policy": "conversion"}]}),
)


def random_links(chance: random.Random) -> Links:
    """A few manual links that do not contradict each other."""
    identifiers = sorted(i for pool in POOLS.values() for i in pool)
    links = Links()
    for number in range(chance.randrange(5)):
        kind: Kind = "together" if chance.random() < 0.5 else "apart"
        first, second = chance.sample(identifiers, 2)
        link = ManualLink(f"{number}", kind, first, second)
        if links.contradiction(link) is None:
            links = Links([*links.by_id.values(), link])
    return links


def joining_of(result: Replay, root: str) -> list[IdentityLink]:
    """The links of a person that the store finds: by what each did, creations by the sequences of the parts."""
    created = {result.graph.profiles[part].created for part in result.graph.profiles[root].parts}
    return in_recorded_order(
        IdentityLink(message_id=message_id, part=part, decision=decision)
        for message_id, (part, decision) in result.resolutions.items()
        if result.root_of(message_id) == root and (linked_of(decision) >= Linked.JOINED or decision.sequence in created)
    )


@settings(max_examples=150)
@given(st.integers(0, 100_000), st.sampled_from(RULES))
def test_a_chain_is_there_exactly_when_two_are_one_person(seed: int, rules: Rules) -> None:
    chance = random.Random(seed)
    events: list[Event] = random_history(chance, size=25)
    links = random_links(chance)
    result = replay(events, rules, links=links)
    for root in result.roots():
        profile = result.graph.profiles[root]
        joining = joining_of(result, root)
        forced = [
            Forced(x.id, x.first, x.second) for x in links.concerning(profile.identifiers) if x.kind == "together"
        ]
        strangers = [i for i in result.graph.holders if i not in profile.identifiers]
        for start in sorted(profile.identifiers):
            for end in sorted({*profile.identifiers} - {start}):
                steps = shortest_chain(joining, forced, start, end)
                assert steps and (steps[0].start, steps[-1].end) == (start, end)
                assert all(a.end == b.start for a, b in itertools.pairwise(steps))
                for step in steps:
                    if step.link is not None:
                        assert {step.start, step.end} <= set(identifiers_of(step.link))
                    else:
                        assert links.by_id[step.manual_link].pair == {step.start, step.end}
            handed_over = {i for link in joining for i in identifiers_of(link)} - profile.identifiers.keys()
            for end in strangers:
                # A device that a logout gave away was with the person: only then it stands in their events.
                assert not shortest_chain(joining, forced, start, end) or end in handed_over
