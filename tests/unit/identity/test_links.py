"""Manual links: what they compile to, what contradicts what, and what they make of events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from headrace_identity.resolving.links import Links, ManualLink
from headrace_identity.resolving.replay import Replay, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Identifier, parse

from headrace.api.common.v1.event_pb2 import Event
from tests.support.identity import event, partition

U1, U2, U3 = ("user_id", "u1"), ("user_id", "u2"), ("user_id", "u3")
E1, E2 = ("email", "one@shop.example"), ("email", "two@shop.example")
A1, A2, A3 = ("anonymous_id", "dev1"), ("anonymous_id", "dev2"), ("anonymous_id", "dev3")


def together(link_id: str, one: Identifier, other: Identifier) -> ManualLink:
    return ManualLink(link_id, "together", one, other)


def apart(link_id: str, one: Identifier, other: Identifier) -> ManualLink:
    return ManualLink(link_id, "apart", one, other)


def people(events: Sequence[Event], *links: ManualLink) -> set[frozenset[Identifier]]:
    return partition(replay(events, DEFAULT_RULES, links=Links(links)).graph)


def decisions(replayed: Replay) -> list[tuple[str, list[str]]]:
    """Rule and demotions of each event."""
    return [
        (r.decision.rule, [f"{s.identifier.namespace} {s.rule}" for s in r.decision.set_aside])
        for r in replayed.resolutions.values()
    ]


class TestContradictions:
    links = Links([together("t1", U1, E1), together("t2", E1, A1), apart("a1", A1, A2), together("t3", A2, U2)])

    @pytest.mark.parametrize(
        ("link", "chain"),
        [
            (apart("n", U1, A1), ["t1", "t2"]),
            (apart("n", A1, U1), ["t2", "t1"]),
            (apart("n", U1, E1), ["t1"]),
            (together("n", U1, A2), ["t1", "t2", "a1"]),
            (together("n", U2, U1), ["t3", "a1", "t2", "t1"]),
            (together("n", A1, A2), ["a1"]),
            (together("n", U1, U1), []),
            (apart("n", U1, U1), []),
        ],
        ids=str,
    )
    def test_chains_are_named(self, link: ManualLink, chain: list[str]) -> None:
        assert self.links.contradiction(link) == chain

    @pytest.mark.parametrize("link", [apart("n", U1, U2), together("n", U1, A1), together("n", U1, U3)], ids=str)
    def test_what_says_nothing_against(self, link: ManualLink) -> None:
        assert self.links.contradiction(link) is None

    def test_the_same_link_in_any_order(self) -> None:
        assert self.links.same(together("n", E1, U1)) == together("t1", U1, E1)
        assert self.links.same(apart("n", E1, U1)) is None


class TestTogether:
    def test_two_user_ids_are_one_person_over_the_limit(self) -> None:
        events = [event("m1", U1), event("m2", U2)]
        assert people(events) == {frozenset({U1}), frozenset({U2})}
        assert people(events, together("t", U1, U2)) == {frozenset({U1, U2})}

    def test_a_device_that_comes_with_somebody_else_joins_the_two(self) -> None:
        events = [event("m1", U1, A1), event("m2", U2, A2)]
        links = together("t", A1, A2)
        assert people(events, links) == {frozenset({U1, A1, U2, A2})}
        replayed = replay(events, DEFAULT_RULES, links=Links([links]))
        assert decisions(replayed)[1] == ("together:t", [])

    def test_it_counts_as_found(self) -> None:
        events = [event("m1", U1, A1), event("m2", A2)]
        replayed = replay(events, DEFAULT_RULES, links=Links([together("t", U1, A2)]))
        (first, second) = replayed.resolutions.values()
        assert first.profile_id == second.profile_id

    def test_what_is_forced_together_is_one_thing_for_limits(self) -> None:
        events = [event("m1", U1, A1), event("m2", A2), event("m3", U2, A2), event("m4", U3, A1)]
        # u2 is u1 in another form, so the device joins; u3 is somebody else, so it does not.
        assert people(events, together("t", U1, U2)) == {frozenset({U1, U2, A1, A2}), frozenset({U3})}

    def test_it_goes_over_caps(self) -> None:
        rules = parse({"max_identifiers": 2})
        events = [event("m1", U1, A1), event("m2", A2), event("m3", A3), event("m4", U1, A3)]
        replayed = replay(events, rules, links=Links([together("t", A1, A2)]))
        assert partition(replayed.graph) == {frozenset({U1, A1, A2}), frozenset({A3})}

    def test_an_alias_means_what_its_previous_id_is_forced_together_with(self) -> None:
        events = [event("m1", U1, A1), event("m2", U2, previous_id="u3")]
        rules = parse({"namespaces": [{"name": "user_id", "limit": 3}]})
        replayed = replay(events, rules, links=Links([together("t", U3, A1)]))
        assert partition(replayed.graph) == {frozenset({U1, A1, U2, U3})}
        assert partition(replay(events, rules).graph) == {frozenset({U1, A1}), frozenset({U2, ("anonymous_id", "u3")})}

    def test_a_linked_device_is_not_handed_over(self) -> None:
        rules = parse({"policies": [{"policy": "conversion"}]})
        events = [event("m1", U1, A1), event("m2", A1, name="Signed Out")]
        assert len(partition(replay(events, rules).graph)) == 2
        assert len(partition(replay(events, rules, links=Links([together("t", U1, A1)])).graph)) == 1


class TestApart:
    def test_the_weaker_identifier_is_demoted(self) -> None:
        events = [event("m1", A1), event("m2", E1), event("m3", E1, A1)]
        assert people(events) == {frozenset({E1, A1})}
        replayed = replay(events, DEFAULT_RULES, links=Links([apart("a", E1, A1)]))
        assert partition(replayed.graph) == {frozenset({E1}), frozenset({A1})}
        assert decisions(replayed)[2] == ("attach", ["anonymous_id apart:a"])

    def test_innocent_identifiers_stay(self) -> None:
        events = [event("m1", A1), event("m2", E1), event("m3", E1, A1, A2, A3)]
        replayed = replay(events, DEFAULT_RULES, links=Links([apart("a", E1, A1)]))
        assert partition(replayed.graph) == {frozenset({E1, A2, A3}), frozenset({A1})}

    def test_who_holds_one_side_leads_to_it(self) -> None:
        events = [event("m1", A1, A2), event("m2", E1, A3), event("m3", A2, A3)]
        replayed = replay(events, DEFAULT_RULES, links=Links([apart("a", E1, A1)]))
        assert partition(replayed.graph) == {frozenset({A1, A2}), frozenset({E1, A3})}
        assert decisions(replayed)[2] == ("attach", ["anonymous_id apart:a"])

    def test_it_keeps_classes_apart(self) -> None:
        events = [event("m1", A1), event("m2", U1, A2), event("m3", U1, A1)]
        links = [apart("a", U1, A3), together("t", A3, A1)]
        assert people(events, *links) == {frozenset({A1}), frozenset({U1, A2})}

    def test_of_one_event_that_brings_both(self) -> None:
        assert people([event("m1", U1, A1)], apart("a", U1, A1)) == {frozenset({U1})}

    def test_an_alias_does_not_join_what_is_apart(self) -> None:
        events = [event("m1", U1), event("m2", A1), event("m3", U1, previous_id="dev1")]
        assert people(events) == {frozenset({U1, A1})}
        assert people(events, apart("a", U1, A1)) == {frozenset({U1}), frozenset({A1})}
