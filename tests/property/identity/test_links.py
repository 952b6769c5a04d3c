"""Whatever is linked: what is forced apart never meets, what is forced together is never two people."""

from __future__ import annotations

import random

from headrace_identity.resolving.links import Links, ManualLink
from headrace_identity.resolving.replay import replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier, parse
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event
from tests.support.reassignment import POOLS, random_history

RULES = [
    DEFAULT_RULES,
    parse({"namespaces": [{"name": "email", "limit": 1, "per": "week"}], "max_merges": 2, "max_identifiers": 5}),
    parse({"policies": [{"policy": "isolation", "source": "kiosk"}, {"policy": "link", "source": "tablet"}]}),
]
IDENTIFIERS = sorted(i for pool in POOLS.values() for i in pool)


@st.composite
def consistent_links(draw: st.DrawFn) -> Links:
    """Some links that do not contradict each other."""
    links = Links()
    pairs = st.tuples(
        st.sampled_from(["together", "apart"]), st.sampled_from(IDENTIFIERS), st.sampled_from(IDENTIFIERS)
    )
    for number, (kind, one, other) in enumerate(draw(st.lists(pairs, max_size=8))):
        link = ManualLink(f"{number:02}", kind, one, other)  # type: ignore[arg-type]  # one of the two kinds
        if links.contradiction(link) is None:
            links = Links([*links.by_id.values(), link])
    return links


histories = st.integers(0, 10_000).map(lambda seed: random_history(random.Random(seed), size=30))


@given(histories, consistent_links(), st.sampled_from(RULES))
def test_links_hold(events: list[Event], links: Links, rules: object) -> None:
    graph = replay(events, rules, links=links).graph  # type: ignore[arg-type]
    people: dict[str, set[Identifier]] = {}
    for identifier in graph.holders:
        root = graph.find(identifier)
        assert root is not None
        people.setdefault(root.id, set()).add(identifier)
    for root_id, identifiers in people.items():
        assert graph.profiles[root_id].identifiers.keys() == identifiers
    for link in links.by_id.values():
        one, other = (graph.find(side) for side in (link.first, link.second))
        if one is not None and other is not None:
            assert (one.id == other.id) == (link.kind == "together"), link


@given(histories, consistent_links())
def test_what_is_not_linked_is_as_without_links(events: list[Event], links: Links) -> None:
    """Links of things that nobody has change nothing."""
    renamed = [
        ManualLink(link.id, link.kind, (link.first[0], f"no-{link.first[1]}"), (link.second[0], f"no-{link.second[1]}"))
        for link in links.by_id.values()
    ]
    with_links, without = replay(events, DEFAULT_RULES, links=Links(renamed)), replay(events, DEFAULT_RULES)
    assert with_links.resolutions == without.resolutions
    assert with_links.graph == without.graph
